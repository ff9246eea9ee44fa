/* The manifest in force. See snapshotter.c for the reasons. */
#include "snapshot/current_manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/wrep.h"
#include "db/db.h"
#include "db/directory.h"
#include "db/table.h"
#include "record/manifest.h"
#include "snapshot/snapshotter_state.h"
#include "txn/multi_commit.h"

/* How much of the log stays behind for followers that are slow. */
static uint64_t keep_bytes(const struct wrep *w)
{
	return wrep_log_bytes(w) / 2;
}

/* Make `m` the manifest, at `index`. On success its content is the snapshotter's. point_lock held. */
int wrep_current_manifest_publish(struct wrep_snapshotter *k, struct wrep_manifest *m,
				  uint64_t index)
{
	struct rlog_buf *buf = wrep_manifest_encode(m);
	int rc = buf ? rlog_snapshot(k->w->log, index, buf, keep_bytes(k->w)) : -ENOMEM;

	rlog_buf_unref(buf);
	if (rc)
		return rc;
	wrep_manifest_clear(&k->last);
	k->last = *m;
	wrep_manifest_sort(&k->last);
	memset(m, 0, sizeof *m);
	k->last_index = index;
	k->adopted = true;
	return 0;
}

/* All names, as of one entry, which is not before `index`; `*all`: references of the databases in `m`, in
 * the same order. 0 or -ENOMEM. */
int wrep_current_manifest_names(struct wrep *w, uint64_t index, struct wrep_manifest *m,
				struct wrep_db ***all)
{
	size_t room = 0;
	int rc = 0;

	*all = NULL;
	pthread_mutex_lock(&w->lock);
	m->names_index = w->names_index > index ? w->names_index : index;
	for (size_t b = 0; b < WREP_BUCKETS && !rc; b++) {
		for (struct wrep_db *db = w->by_name[b]; db && !rc; db = db->next_by_name) {
			struct wrep_manifest_db *d;

			if (m->count == room) {
				struct wrep_db **more;

				room = room ? room * 2 : 64;
				more = reallocarray(*all, room, sizeof *more);
				if (!more) {
					rc = -ENOMEM;
					break;
				}
				*all = more;
			}
			d = wrep_manifest_add(m);
			if (!d) {
				rc = -ENOMEM;
				break;
			}
			strcpy(d->name, db->name);
			d->id = d->index = db->id;
			(*all)[m->count - 1] = wrep_db_ref(db);
		}
	}
	if (!rc)
		rc = wrep_dirs_note(w, m);
	pthread_mutex_unlock(&w->lock);
	if (!rc)
		wrep_dirs_describe(w, m);
	return rc;
}

void wrep_snapshotter_adopt(struct wrep *w, struct wrep_manifest *m, uint64_t index)
{
	struct wrep_snapshotter *k = w->snapshotter;

	pthread_mutex_lock(&k->point_lock);
	wrep_manifest_clear(&k->last);
	k->last = *m;
	wrep_manifest_sort(&k->last);
	memset(m, 0, sizeof *m);
	k->last_index = index;
	k->adopted = true;
	pthread_mutex_unlock(&k->point_lock);
}

void wrep_snapshotter_lock(struct wrep *w)
{
	pthread_mutex_lock(&w->snapshotter->point_lock);
}

void wrep_snapshotter_unlock(struct wrep *w)
{
	pthread_mutex_unlock(&w->snapshotter->point_lock);
}

int wrep_snapshotter_rename(struct wrep_db *db, const char *name, const struct wrep_db *replaced,
			    uint64_t index)
{
	struct wrep *w = db->w;
	struct wrep_snapshotter *k = w->snapshotter;
	struct wrep_manifest m = {.redo_until = k->last.redo_until};
	struct wrep_db **all = NULL;
	size_t kept = 0;
	int rc = k->closed ? -EBUSY : 0;

	if (rc || !k->adopted) /* a restart begins with nothing */
		return rc;
	rc = wrep_current_manifest_names(w, index, &m, &all);
	for (size_t i = 0; all && i < m.count; i++)
		wrep_db_unref(all[i]);
	free(all);
	for (size_t i = 0; i < m.count && !rc; i++) {
		struct wrep_manifest_db d = m.dbs[i];
		const struct wrep_manifest_db *old = wrep_manifest_find(&k->last, d.id);

		if (replaced && d.id == replaced->id)
			continue;
		/* One that came since is as its entry made it: all that is in it comes again. */
		m.dbs[kept] = old ? *old : d;
		strcpy(m.dbs[kept].name, d.id == db->id ? name : d.name);
		if (d.id == db->id)
			m.dbs[kept].wal_frames = 0;
		kept++;
	}
	m.count = kept;
	/* `replaced` is not in it any more, but may have had its part in a group: see state/multi_list.c. */
	if (!rc)
		rc = wrep_multi_commits_note(w, &m);
	if (!rc)
		rc = wrep_current_manifest_publish(k, &m, k->last_index);
	wrep_manifest_clear(&m);
	return rc;
}
