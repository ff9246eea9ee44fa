/* A -wal that the manifest in force needs, and the requests that wait for it. See snapshotter.c for the reasons. */
#include "snapshot/wal_hold.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/wrep.h"
#include "db/db.h"
#include "db/pin.h"
#include "db/sync.h"
#include "pages/capture.h"
#include "pages/wal_content.h"
#include "record/manifest.h"
#include "snapshot/current_manifest.h"
#include "snapshot/restore.h"
#include "snapshot/snapshotter_state.h"

/* The -wal of those that the manifest does not say to need it may go. point_lock held. */
void wrep_wal_hold_end(struct wrep_snapshotter *k, struct wrep_db *db)
{
	const struct wrep_manifest_db *d = wrep_manifest_find(&k->last, db->id);

	bool aside;

	pthread_mutex_lock(&db->lock);
	if (!d || !d->wal_frames)
		db->wal_held = false;
	aside = db->wal_moved_aside;
	db->wal_moved_aside = false;
	pthread_mutex_unlock(&db->lock);
	if (aside)
		wrep_wal_aside_remove(db->w, db->id);
}

int wrep_snapshotter_release(struct wrep_db *db)
{
	struct wrep *w = db->w;
	struct wrep_snapshotter *k = w->snapshotter;
	struct wrep_manifest m = {0};
	struct wrep_synced s = {0};
	struct wrep_manifest_db *d;
	bool held, copied = true;
	int rc = 0;

	pthread_mutex_lock(&k->point_lock);
	pthread_mutex_lock(&db->lock);
	held = db->wal_held && !db->removed;
	rc = k->closed ? -EBUSY : 0;
	if (held && !rc && db->files[WREP_DB])
		rc = wrep_db_pin(db, true);
	if (held && !rc &&
	    db->files[WREP_DB]) /* else it is being renamed, and this is done there */
		wrep_synced_take(db, &s, false);
	if (s.files[0] && db->capture) {
		if (db->fenced && !db->pending)
			wrep_capture_forget(db->capture);
		copied = wrep_wal_content_copied(db->capture, s.files[0]->fd, &db->state.sum);
	}
	pthread_mutex_unlock(&db->lock);
	if (!held || rc)
		goto out;
	rc = !s.files[0] || !copied	     ? -EBUSY
	     : fdatasync(s.files[0]->fd) < 0 ? wrep_db_sync_failed(db)
					     : 0;
	if (!rc)
		rc = wrep_manifest_copy(&k->last, &m);
	d = wrep_manifest_find(&m, db->id);
	if (d)
		d->wal_frames = 0;
	if (!rc && k->adopted)
		rc = wrep_current_manifest_publish(k, &m, k->last_index);
	if (!rc)
		wrep_wal_hold_end(k, db);
out:
	wrep_manifest_clear(&m);
	wrep_synced_drop(db, &s);
	pthread_mutex_unlock(&k->point_lock);
	return rc;
}

int wrep_snapshotter_defer(struct wrep_file *f, const struct wrep_deferred *like, const void *bytes,
			   struct wrep_op *op)
{
	struct wrep_snapshotter *k = f->db->w->snapshotter;
	struct wrep_deferred *d = malloc(sizeof *d + like->len);

	if (!d)
		return -ENOMEM;
	*d = *like;
	d->next = NULL;
	d->file = wrep_file_ref(f);
	d->op = op;
	if (bytes)
		memcpy(d->bytes, bytes, like->len);
	pthread_mutex_lock(&k->lock);
	*k->deferred_tail = d;
	k->deferred_tail = &d->next;
	pthread_cond_signal(&k->wake);
	pthread_mutex_unlock(&k->lock);
	return WREP_PENDING;
}

/* Do what was put off, or fail it; what is done again may be put off again. */
static void settle(struct wrep_deferred *d, bool stopping)
{
	struct wrep_file *f = d->file;
	int rc = stopping ? -EIO : wrep_snapshotter_release(f->db);

	if (rc == -EBUSY)
		rc = -EIO; /* the -wal holds what the database file does not: as wal_may_go() says */
	if (!rc)
		rc = d->again(d);
	if (rc != WREP_PENDING)
		d->op->done(d->op, rc);
	wrep_file_unref(f);
	free(d);
}

void wrep_deferred_settle_next(struct wrep_snapshotter *k)
{
	struct wrep_deferred *d = k->deferred;
	bool stop = k->stop;

	k->deferred = d->next;
	if (!k->deferred)
		k->deferred_tail = &k->deferred;
	pthread_mutex_unlock(&k->lock);
	settle(d, stop);
	pthread_mutex_lock(&k->lock);
}
