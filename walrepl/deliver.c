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
#include "db/db.h"
#include "db/directory.h"
#include "db/spool.h"
#include "db/table.h"
#include "deliver_commit.h"
#include "names/database.h"
#include "names/directory.h"
#include "names/rename.h"
#include "snapshot/snapshotter.h"
#include "txn/multi_commit.h"
#include "txn/proposal.h"
#include "txn/sender.h"

static void apply_create(struct wrep *w, uint64_t index, const struct wrep_entry *e,
			 struct rlog_buf *buf, struct rlog_request *req)
{
	struct wrep_db *db = wrep_db_by_id(w, index);
	bool restored = db; /* this entry is its own */
	struct wrep_tree_node *there;
	int rc;

	if (!db && index <= w->names_skip) { /* it has been removed since */
		wrep_meta_finish(req, -EIO);
		return;
	}
	there = db ? NULL : wrep_tree_find_path(w->tree, e->name);
	if (there && !there->is_dir)
		db = wrep_db_by_id(w, there->id);
	if (db) { /* two at once: the second finds it there */
		struct wrep_meta_request *m = (struct wrep_meta_request *)req;

		if (m && (restored || !(m->open_flags & O_EXCL))) {
			wrep_open_push(wrep_open_new(db, NULL, m->open_flags, m->op));
			free(m);
		} else if (m) {
			wrep_meta_finish(req, -EEXIST);
		}
		wrep_db_unref(db);
		return;
	}
	rc = there ? -EISDIR : wrep_tree_add(w->tree, index, e->name, false);
	if (rc && rc != -ENOMEM) { /* the directory is gone */
		wrep_meta_finish(req, rc);
		return;
	}
	db = rc ? NULL : wrep_db_new(w, e->name, index);
	if (!db) {
		wrep_fatalf(w, "out of memory while creating a database name=%s", e->name);
		return;
	}
	wrep_create_queue(db, wrep_tree_parent(w->tree, index), buf, req);
}

void wrep_parts_drop_dead(struct wrep *w, uint64_t term)
{
	struct wrep_db **all;
	size_t count;

	if (wrep_db_all(w, &all, &count) < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		struct wrep_parts *dead = NULL;

		pthread_mutex_lock(&all[i]->lock);
		if (all[i]->state.parts && all[i]->state.parts->term < term)
			dead = wrep_parts_take(all[i]);
		pthread_mutex_unlock(&all[i]->lock);
		wrep_apply_queue_drop(w, dead);
		wrep_db_unref(all[i]);
	}
	free(all);
}

/* This node leads, and everything before its barrier is delivered: what is open of older terms has no
 * COMMIT to come. The other nodes cannot tell before they see an entry of this term. */
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

static void apply_unlink(struct wrep *w, struct wrep_db *db, uint64_t index, struct rlog_buf *buf,
			 struct rlog_request *req)
{
	uint64_t parent = wrep_tree_parent(w->tree, db->id);

	wrep_tree_remove(w->tree, db->id);
	wrep_db_unlinked(db);
	wrep_unlink_queue(db, index, parent, buf, req);
}

/* A PAGES entry joins those of its transaction. Part 0, or any part of another transaction, shows
 * that the former one's COMMIT will never come: entries of one database are submitted by one node at
 * a time, in order. A gap leaves the transaction incomplete, so refused. */
static void apply_pages(struct wrep *w, struct wrep_db *db, const struct wrep_entry *e,
			struct rlog_buf *buf, uint64_t index, uint64_t term)
{
	struct wrep_parts *dead = NULL, *added = NULL;
	int rc = 0;

	pthread_mutex_lock(&db->lock);
	if (e->part == 0 || !wrep_parts_same(db->state.parts, e->origin, e->sequence) ||
	    db->state.parts->term != term)
		dead = wrep_parts_take(db);
	if (!db->state.parts && e->part == 0) {
		db->state.parts = wrep_parts_new(e, index, term);
		rc = db->state.parts ? 0 : -ENOMEM;
	}
	if (!rc && db->state.parts && e->part == db->state.parts->count) {
		rc = wrep_parts_add(db->state.parts, e);
		added = wrep_parts_ref(db->state.parts);
	}
	pthread_mutex_unlock(&db->lock);
	wrep_apply_queue_drop(w, dead);
	if (added)
		wrep_apply_queue_part(db, added, buf);
	wrep_parts_unref(added);
	if (rc < 0)
		wrep_fatalf(w, "out of memory while collecting a large transaction database=%s",
			    db->name);
}

/* Its originator gave a transaction up between two parts, or does not know what became of the COMMIT,
 * which then has either come before this or never comes. */
static void apply_discard(struct wrep *w, struct wrep_db *db, const struct wrep_entry *e)
{
	struct wrep_parts *dead = NULL;

	pthread_mutex_lock(&db->lock);
	if (wrep_parts_same(db->state.parts, e->origin, e->sequence))
		dead = wrep_parts_take(db);
	pthread_mutex_unlock(&db->lock);
	wrep_apply_queue_drop(w, dead);
}

/* The entry changes nothing any more. `req`, if there is one, is told so: of a transaction -EIO, which
 * leaves open whether it was committed. */
static void pass_over(struct rlog_request *req, const struct wrep_entry *e, uint64_t term,
		      int meta_result)
{
	if (!req)
		return;
	if (e->type == WREP_ENTRY_COMMIT)
		wrep_deliver_end_own((struct wrep_commit *)req, -EIO);
	else if (e->type == WREP_ENTRY_PAGES)
		wrep_part_delivered(req, term, false);
	else if (e->type == WREP_ENTRY_DISCARD)
		free(req);
	else
		wrep_meta_finish(req, meta_result);
}

static bool carries_pages(const struct wrep_entry *e)
{
	return e->type == WREP_ENTRY_PAGES || e->type == WREP_ENTRY_COMMIT ||
	       e->type == WREP_ENTRY_DISCARD;
}

/* w->delivery held. */
static int apply_entry(struct wrep *w, uint64_t index, uint64_t term, struct rlog_buf *buf,
		       struct rlog_request *req)
{
	struct wrep_commit *retired = NULL;
	struct wrep_entry e;
	struct wrep_db *db;
	bool full = wrep_queue_is_full(w->queue);
	int rc = 0;

	/* A failure passed an entry over: what comes behind it must not be judged, or a transaction
	 * counts as committed here that all others refuse. */
	if (full || !wrep_delivers(w))
		return -EAGAIN;
	if (term > w->delivered_term) {
		w->delivered_term = term;
		wrep_parts_drop_dead(w, term);
	}
	atomic_store(&w->delivering, index);
	if (wrep_entry_decode(buf, &e) < 0) {
		wrep_fatalf(w,
			    "an entry of the log cannot be understood index=%llu; run the same "
			    "dqlitefs version on all nodes",
			    (unsigned long long)index);
		return 0;
	}
	if (e.type == WREP_ENTRY_CREATE) {
		apply_create(w, index, &e, buf, req);
		return 0;
	}
	if (e.type == WREP_ENTRY_GROUP) {
		rc = wrep_deliver_group(w, index, term, &e, buf, req);
		return rc < 0 ? rc : 0;
	}
	if (e.type == WREP_ENTRY_MKDIR) {
		wrep_mkdir_delivered(w, index, &e, buf, req);
		return 0;
	}
	db = wrep_db_by_id(w, e.db_id);
	if (!db && (e.type == WREP_ENTRY_RMDIR || e.type == WREP_ENTRY_SETATTR)) {
		wrep_dir_delivered(w, index, &e, buf, req);
		return 0;
	}
	/* Removed by an earlier entry, or restored with this one in its file already (attributes are set
	 * once more: an own transaction may have overtaken them; names have an index of their own). */
	if (!db || (index <= db->state.index && carries_pages(&e))) {
		pass_over(req, &e, term, db ? -EIO : -ENOENT);
		wrep_db_unref(db);
		return 0;
	}
	switch (e.type) {
	case WREP_ENTRY_UNLINK:
		apply_unlink(w, db, index, buf, req);
		break;
	case WREP_ENTRY_RENAME:
		wrep_rename_delivered(w, db, index, &e, buf, req);
		break;
	case WREP_ENTRY_RMDIR: /* of a database: no node submits that */
		wrep_meta_finish(req, -ENOTDIR);
		break;
	case WREP_ENTRY_SETATTR:
		wrep_setattr_queue(db, index, buf, req);
		break;
	case WREP_ENTRY_PAGES:
		apply_pages(w, db, &e, buf, index, term);
		if (req)
			wrep_part_delivered(req, term, true);
		break;
	case WREP_ENTRY_DISCARD:
		apply_discard(w, db, &e);
		free(req);
		break;
	case WREP_ENTRY_COMMIT:
		if (req && (((struct wrep_commit *)req)->db != db || wrep_deliver_is_moving(db))) {
			retired = (struct wrep_commit *)req;
			req = NULL;
		}
		rc = wrep_deliver_commit(w, db, index, term, &e, buf, req);
		if (retired && rc >= 0)
			wrep_deliver_end_own(retired, rc == 1 ? 0 : -EIO);
		break;
	case WREP_ENTRY_CREATE:
	case WREP_ENTRY_GROUP:
	case WREP_ENTRY_MKDIR:
		break;
	}
	wrep_db_unref(db);
	return rc < 0 ? rc : 0;
}

int wrep_deliver(void *ctx, uint64_t index, uint64_t term, struct rlog_buf *buf,
		 struct rlog_request *req)
{
	struct wrep *w = ctx;
	int rc;

	pthread_mutex_lock(&w->delivery);
	rc = apply_entry(w, index, term, buf, req);
	if (rc == 0) {
		atomic_store(&w->delivered, index);
		wrep_keeper_delivered(w, buf->len);
	}
	pthread_mutex_unlock(&w->delivery);
	if (rc == 0)
		wrep_caught_up_delivered(w, index);
	return rc;
}
