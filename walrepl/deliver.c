/* A committed entry: decoded, dispatched by its type, passed over where it changes nothing any more.
 *
 * Raftlog's thread hands over one entry after the other. What it does to the replicated state is decided here and
 * at once (state/state.c); what it does to files is queued for the applier. An entry that finds the queue full is
 * not taken (-EAGAIN), and raftlog keeps it in its log.
 */
#include "deliver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include "apply/apply.h"
#include "apply/catch_up.h"
#include "apply/opening.h"
#include "base/phase.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/spool.h"
#include "db/table.h"
#include "deliver_commit.h"
#include "file/open.h"
#include "names/database.h"
#include "names/directory.h"
#include "names/rename.h"
#include "record/entry.h"
#include "snapshot/snapshotter.h"
#include "state/parts.h"
#include "state/state.h"
#include "state/version.h"
#include "txn/commit.h"
#include "txn/proposal.h"
#include "txn/sender.h"

/* ---- transactions that will not be committed ----------------------------------------------------- */

void wrep_parts_drop_dead(struct wrep *w, uint64_t term)
{
	struct wrep_db **all;
	size_t count;

	if (wrep_db_all(w, &all, &count) < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		struct wrep_parts *dead;

		pthread_mutex_lock(&all[i]->lock);
		dead = wrep_version_give_up_older(&all[i]->state, term);
		pthread_mutex_unlock(&all[i]->lock);
		wrep_apply_queue_drop(w, wrep_spool_take(dead));
		wrep_db_unref(all[i]);
	}
	free(all);
}

void wrep_deliver_discard_dead(struct wrep *w)
{
	struct wrep_db **all;
	uint64_t term;
	size_t count;
	bool may;

	pthread_mutex_lock(&w->lock);
	may = w->view.role == RLOG_LEADER && w->view.ready;
	term = w->view.term;
	pthread_mutex_unlock(&w->lock);
	if (!may || wrep_db_all(w, &all, &count) < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		struct wrep_db *db = all[i];
		uint64_t origin = 0, sequence = 0;
		bool dead;

		pthread_mutex_lock(&db->lock);
		dead = db->state.parts && db->state.parts->term < term;
		if (dead) {
			origin = db->state.parts->origin;
			sequence = db->state.parts->sequence;
		}
		pthread_mutex_unlock(&db->lock);
		if (dead)
			wrep_submit_discard(w, db->id, origin, sequence);
		wrep_db_unref(db);
	}
	free(all);
}

/* ---- each type ----------------------------------------------------------------------------------- */

/* Two at once: the second finds it there. So does who submitted the entry that made it, after a restart. */
static void open_existing(struct wrep_delivery *d, struct wrep_db *db)
{
	struct wrep_proposal *m = (struct wrep_proposal *)d->req;

	if (m && (db->id == d->at.index || !(m->open_flags & O_EXCL))) {
		wrep_open_push(wrep_open_new(db, NULL, m->open_flags, wrep_postpone_open, m->op));
		free(m);
	} else if (m) {
		wrep_proposal_finish(d->req, -EEXIST);
	}
}

static int deliver_create(struct wrep_delivery *d, struct wrep_db *none)
{
	struct wrep_name_effect effect;
	struct wrep_db *db = NULL;
	int rc = wrep_state_change_names(d->w->state, d->at.index, &d->e, &effect);

	(void)none;
	if (!rc && effect.verdict == WREP_TAKES_EFFECT) {
		db = wrep_db_new(d->w, d->e.name, d->at.index);
		if (db) {
			wrep_state_attach(d->w->state, d->at.index, &db->state);
			wrep_create_queue(db, effect.parent, d->buf, d->req);
			return 0;
		}
		rc = -ENOMEM;
	}
	if (rc) {
		wrep_fatalf(d->w, "out of memory while creating a database name=%s", d->e.name);
		return 0;
	}
	if (effect.id && !effect.is_dir)
		db = wrep_db_by_id(d->w, effect.id);
	if (db)
		open_existing(d, db);
	else
		wrep_proposal_finish(d->req, effect.error);
	wrep_db_unref(db);
	return 0;
}

static int deliver_unlink(struct wrep_delivery *d, struct wrep_db *db)
{
	struct wrep_name_effect effect;

	wrep_state_change_names(d->w->state, d->at.index, &d->e, &effect);
	if (effect.verdict == WREP_TAKES_EFFECT) {
		wrep_db_unlinked(db);
		wrep_unlink_queue(db, d->at.index, effect.parent, d->buf, d->req);
	} else {
		wrep_proposal_finish(d->req, effect.error);
	}
	return 0;
}

static int deliver_rename(struct wrep_delivery *d, struct wrep_db *db)
{
	wrep_rename_delivered(db, d->at.index, &d->e, d->buf, d->req);
	return 0;
}

static int deliver_mkdir(struct wrep_delivery *d, struct wrep_db *none)
{
	(void)none;
	wrep_mkdir_delivered(d->w, d->at.index, &d->e, d->buf, d->req);
	return 0;
}

static int deliver_rmdir(struct wrep_delivery *d, struct wrep_db *none)
{
	(void)none;
	wrep_dir_delivered(d->w, d->at.index, &d->e, d->buf, d->req);
	return 0;
}

/* Of a database they are set in any case, once more after a restart: an own transaction may have overtaken them. */
static int deliver_setattr(struct wrep_delivery *d, struct wrep_db *db)
{
	if (db)
		wrep_setattr_queue(db, d->at.index, d->buf, d->req);
	else
		wrep_dir_delivered(d->w, d->at.index, &d->e, d->buf, d->req);
	return 0;
}

static int deliver_pages(struct wrep_delivery *d, struct wrep_db *db)
{
	struct wrep_parts *given_up;
	struct wrep_spool *added = NULL;
	int rc;

	pthread_mutex_lock(&db->lock);
	rc = wrep_version_pages(&db->state, &d->e, d->at.index, d->at.term, &given_up);
	if (rc == WREP_TAKES_EFFECT) {
		added = wrep_spool_of(db->state.parts);
		if (!added)
			added = wrep_spool_new(db->state.parts);
		if (added)
			wrep_spool_ref(added);
		else
			rc = -ENOMEM;
	}
	pthread_mutex_unlock(&db->lock);
	wrep_apply_queue_drop(d->w, wrep_spool_take(given_up));
	if (added)
		wrep_apply_queue_part(db, added, d->buf);
	wrep_spool_unref(added);
	if (rc < 0)
		wrep_fatalf(d->w, "out of memory while collecting a large transaction database=%s",
			    db->name);
	if (d->req)
		wrep_part_delivered(d->req, d->at.term, rc != WREP_PAST);
	return 0;
}

static int deliver_discard(struct wrep_delivery *d, struct wrep_db *db)
{
	struct wrep_parts *given_up;

	pthread_mutex_lock(&db->lock);
	wrep_version_discard(&db->state, &d->e, d->at.index, &given_up);
	pthread_mutex_unlock(&db->lock);
	wrep_apply_queue_drop(d->w, wrep_spool_take(given_up));
	free(d->req);
	return 0;
}

static int deliver_multi_commit(struct wrep_delivery *d, struct wrep_db *none)
{
	(void)none;
	return wrep_deliver_multi_commit(d);
}

/* ---- any ----------------------------------------------------------------------------------------- */

/* There is no such database any more. Who asked is told so: of a transaction -EIO, which leaves open whether it
 * was committed. */
static void pass_over(struct wrep_delivery *d)
{
	if (!d->req)
		return;
	if (d->e.type == WREP_ENTRY_COMMIT)
		wrep_deliver_end_own((struct wrep_commit *)d->req, -EIO);
	else if (d->e.type == WREP_ENTRY_PAGES)
		wrep_part_delivered(d->req, d->at.term, false);
	else if (d->e.type == WREP_ENTRY_DISCARD)
		free(d->req);
	else
		wrep_proposal_finish(d->req, -ENOENT);
}

struct handler {
	int (*deliver)(struct wrep_delivery *d, struct wrep_db *db); /* 0 or -EAGAIN */
	bool names_database; /* by its id: without one the entry is passed over */
};

static const struct handler handlers[] = {
	[WREP_ENTRY_CREATE] = {deliver_create, false},
	[WREP_ENTRY_UNLINK] = {deliver_unlink, true},
	[WREP_ENTRY_SETATTR] = {deliver_setattr, false},
	[WREP_ENTRY_PAGES] = {deliver_pages, true},
	[WREP_ENTRY_COMMIT] = {wrep_deliver_commit, true},
	[WREP_ENTRY_DISCARD] = {deliver_discard, true},
	[WREP_ENTRY_GROUP] = {deliver_multi_commit, false},
	[WREP_ENTRY_MKDIR] = {deliver_mkdir, false},
	[WREP_ENTRY_RMDIR] = {deliver_rmdir, false},
	[WREP_ENTRY_RENAME] = {deliver_rename, true},
};

/* w->delivery held. */
static int deliver_entry(struct wrep_delivery *d)
{
	struct wrep *w = d->w;
	const struct handler *h;
	struct wrep_db *db;
	int rc = 0;

	/* A failure passed an entry over: what comes behind it must not be judged, or a transaction
	 * counts as committed here that all others refuse. */
	if (wrep_queue_is_full(w->queue) || !wrep_delivers(w))
		return -EAGAIN;
	if (d->at.term > w->delivered_term) {
		w->delivered_term = d->at.term;
		wrep_parts_drop_dead(w, d->at.term);
	}
	atomic_store(&w->delivering, d->at.index);
	if (wrep_entry_decode(d->buf, &d->e) < 0) {
		wrep_fatalf(w,
			    "an entry of the log cannot be understood index=%llu; run the same "
			    "dqlitefs version on all nodes",
			    (unsigned long long)d->at.index);
		return 0;
	}
	h = &handlers[d->e.type];
	db = d->e.db_id ? wrep_db_by_id(w, d->e.db_id) : NULL;
	if (h->names_database && !db)
		pass_over(d);
	else
		rc = h->deliver(d, db);
	wrep_db_unref(db);
	return rc;
}

int wrep_deliver(void *ctx, uint64_t index, uint64_t term, struct rlog_buf *buf,
		 struct rlog_request *req)
{
	struct wrep *w = ctx;
	struct wrep_delivery d = {.w = w, .at = {index, term}, .buf = buf, .req = req};
	int rc;

	pthread_mutex_lock(&w->delivery);
	rc = deliver_entry(&d);
	if (rc == 0) {
		atomic_store(&w->delivered, index);
		wrep_snapshotter_delivered(w, buf->len);
	}
	pthread_mutex_unlock(&w->delivery);
	if (rc == 0)
		wrep_caught_up_delivered(w, index);
	return rc;
}
