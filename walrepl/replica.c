/* The replica: the table of databases and their replicated state, moved entry by entry by raftlog.
 *
 * In the good case an application's commit arrives here as a committed entry together with the
 * request that submitted it: its pages are already in the backing -wal, all but the write that was
 * held back. That write is let through, the version moves, the application gets its reply, all on
 * raftlog's thread. An entry of another node moves the same replicated state and is then queued for
 * the applier, which brings the files up to date.
 *
 * Why nothing forks. A COMMIT names the database by the index of the entry that created it, and the
 * version it was built on. Whether it takes effect depends on these alone, so on nothing but the
 * log, and every node decides alike; the version grows by one with each that does. Two transactions
 * built on the same version (an old leader's and a new one's, or a retry after an unknown outcome)
 * can therefore never both take effect. The checksum it names then proves that the pages it carried
 * lead this node to the same database as the originator; a node where they do not stops. A GROUP takes
 * effect if the COMMITs in it all would.
 */
#include "replica.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>
#include "apply/applier.h"
#include "apply/apply.h"
#include "apply/apply_multi.h"
#include "apply/catch_up.h"
#include "apply/install.h"
#include "apply/opening.h"
#include "base/phase.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/departure.h"
#include "db/directory.h"
#include "db/pin.h"
#include "db/spool.h"
#include "db/stray.h"
#include "db/table.h"
#include "names/database.h"
#include "names/directory.h"
#include "names/rename.h"
#include "pages/capture.h"
#include "pages/pagesum.h"
#include "record/entry.h"
#include "record/manifest.h"
#include "repair/fetch.h"
#include "repair/page_server.h"
#include "repair/scrubber.h"
#include "snapshot/restore.h"
#include "snapshot/snapshotter.h"
#include "sqlite/conn.h"
#include "sqlite/file_format.h"
#include "state/name_tree.h"
#include "state/parts.h"
#include "txn/commit.h"
#include "txn/exclusive.h"
#include "txn/multi_commit.h"
#include "txn/proposal.h"
#include "txn/sender.h"
#include "txn/streaming.h"
#include "txn/super_journal.h"
#include "txn/unjournaled.h"

#define CLOSE_POINT_MS 2000 /* for a last durable point */

/* ---- committed entries, on raftlog's thread --------------------------------------------------- */

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

/* The open transaction of a database will not be committed, or has been. db->lock held. */
static struct wrep_parts *take_parts(struct wrep_db *db)
{
	struct wrep_parts *parts = db->state.parts;

	db->state.parts = NULL;
	return parts;
}

/* Let go of what take_parts() took; the applier closes the file. No lock held. */
static void drop_parts(struct wrep *w, struct wrep_parts *parts)
{
	if (!parts)
		return;
	atomic_store(&parts->dead, true);
	wrep_apply_queue_drop(w, parts);
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
			dead = take_parts(all[i]);
		pthread_mutex_unlock(&all[i]->lock);
		drop_parts(w, dead);
		wrep_db_unref(all[i]);
	}
	free(all);
}

/* This node leads, and everything before its barrier is delivered: what is open of older terms has no
 * COMMIT to come. The other nodes cannot tell before they see an entry of this term. */
static void discard_dead(struct wrep *w)
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

void wrep_db_unlinked(struct wrep_db *db)
{
	struct wrep_parts *dead;

	pthread_mutex_lock(&db->lock);
	db->removed = true;
	dead = take_parts(db);
	wrep_ahead_forget(db);
	wrep_txn_unlock(db);
	drop_parts(db->w, dead);
	wrep_db_remove(db);
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
		dead = take_parts(db);
	if (!db->state.parts && e->part == 0) {
		db->state.parts = wrep_parts_new(e, index, term);
		rc = db->state.parts ? 0 : -ENOMEM;
	}
	if (!rc && db->state.parts && e->part == db->state.parts->count) {
		rc = wrep_parts_add(db->state.parts, e);
		added = wrep_parts_ref(db->state.parts);
	}
	pthread_mutex_unlock(&db->lock);
	drop_parts(w, dead);
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
		dead = take_parts(db);
	pthread_mutex_unlock(&db->lock);
	drop_parts(w, dead);
}

/* The pages of a transaction, with their hashes. */
struct pages {
	const struct wrep_page_change *changes;
	struct wrep_page_change *owned; /* to be freed */
	uint32_t count;
	bool sets_wal_mode, wal_mode; /* page 1 is among them */
};

/* Of a COMMIT that carries all of them. */
static int hash_images(const struct wrep_entry *e, struct pages *out)
{
	out->owned = malloc(((size_t)e->image_count + 1) * sizeof *out->owned);
	if (!out->owned)
		return -ENOMEM;
	for (uint32_t i = 0; i < e->image_count; i++) {
		uint32_t pgno = wrep_entry_pgno(e, i);
		const uint8_t *page = e->images + (size_t)i * e->page_size;

		if (pgno == 1) {
			out->sets_wal_mode = true;
			out->wal_mode = wrep_page1_is_wal(page);
		}
		out->owned[i].pgno = pgno;
		out->owned[i].hash = wrep_page_hash(pgno, page, e->page_size);
	}
	out->changes = out->owned;
	out->count = e->image_count;
	return 0;
}

/* Of a COMMIT that completes `parts`. */
static int complete_parts(const struct wrep_entry *e, struct wrep_parts *parts, struct pages *out)
{
	int rc = wrep_parts_settle(parts, e);

	if (rc < 0)
		return rc;
	out->changes = parts->changes;
	out->count = parts->image_count;
	out->sets_wal_mode = parts->sets_wal_mode;
	out->wal_mode = parts->wal_mode;
	return 0;
}

/* The commit of an application of this node: `c` holds what was computed when it was captured. Its
 * parts are not needed, its pages being in the -wal or in the overlay; but until the latter is in the
 * file, a restart must find them in the log. db->lock held, released. */
static void finish_own(struct wrep *w, struct wrep_db *db, struct wrep_commit *c,
		       struct wrep_parts *parts)
{
	struct wrep_op *op = c->op;
	int rc = 0;

	assert(db->pending == c);
	if (c->mode == WREP_COMMIT_WAL)
		rc = wrep_capture_committed(db->capture);
	/* The overlay may be large, and a full disk is waited for: that is for the applier. */
	if (c->mode != WREP_COMMIT_WAL || rc == -ENOSPC) {
		if (parts)
			atomic_store(&parts->dead, true);
		wrep_parts_queued(db, parts);
		pthread_mutex_unlock(&db->lock);
		wrep_install_queue(c, parts);
		return;
	}
	wrep_commit_detach(db);
	if (!rc) { /* else a durable point would count on what is not there */
		assert(db->local_version == c->base_version &&
		       db->state.version == c->base_version + 1);
		db->local_version = db->state.version;
		db->local_index = db->state.index;
		db->local_wal_mode = db->state.wal_mode;
	}
	pthread_mutex_unlock(&db->lock);
	if (rc < 0)
		wrep_fatalf(w,
			    "cannot write a committed transaction into the -wal database=%s "
			    "error=%s; free the disk and mount again",
			    db->name, strerror(-rc));
	/* The transaction is committed, whatever became of this copy of it. */
	op->done(op, 0);
	wrep_commit_free(c);
	drop_parts(w, parts);
}

/* The transaction of an application here changes nothing in the files that it has open: it takes no
 * effect (-EIO), or the database was retired meanwhile, and it is applied to what has taken its place
 * like any other node's (0). No lock held. */
static void end_own(struct wrep_commit *c, int result)
{
	struct wrep_db *db = c->db;

	pthread_mutex_lock(&db->lock);
	assert(db->pending == c);
	wrep_commit_detach(db);
	if (c->mode == WREP_COMMIT_WAL)
		wrep_capture_refused(db->capture);
	wrep_db_settled(db);
	pthread_mutex_unlock(&db->lock);
	wrep_commit_end(c, result);
}

/* Does the checksum that the entry leads to hold here? Until a restored database is proven, what its
 * pages count is not known (restore.c): it is taken from the entry. db->lock held. */
static bool checksum_holds(struct wrep *w, struct wrep_db *db, uint64_t index, uint64_t got,
			   uint64_t expected)
{
	if (db->state.unverified && index <= w->redo_until)
		return true;
	/* The redo was over with the entry before: now they must add up. */
	return wrep_prove(db) && got == expected;
}

/* What a COMMIT, or one of those in a GROUP, is about to do to its database. */
struct change {
	struct wrep_entry e;
	struct wrep_db *db;	  /* a reference; NULL: there is none (any more) */
	struct wrep_commit *own;  /* of an application here, or NULL */
	bool past;		  /* the database has it already: it was restored with it */
	bool nothing;		  /* it changes nothing but the version */
	bool holds;		  /* it may take effect, as far as this database goes */
	struct wrep_parts *parts; /* a reference, or NULL */
	struct pages pages;
	uint64_t sum;
};

/* In ascending order of the ids. */
static void lock_all(struct change *changes, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (changes[i].db)
			pthread_mutex_lock(&changes[i].db->lock);
}

static void unlock_all(struct change *changes, uint32_t count)
{
	for (uint32_t i = count; i-- > 0;)
		if (changes[i].db)
			pthread_mutex_unlock(&changes[i].db->lock);
}

/* Nothing comes of them (any more). No lock held. */
static void drop_all(struct wrep *w, struct change *changes, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		drop_parts(w, changes[i].parts);
		free(changes[i].pages.owned);
		changes[i].parts = NULL;
		changes[i].pages.owned = NULL;
	}
}

/* db->lock held. */
static void judge(struct change *c, uint64_t term)
{
	bool complete = wrep_parts_complete(c->db->state.parts, &c->e, term);

	c->parts = take_parts(c->db);
	c->holds = !c->db->removed && c->e.base_version == c->db->state.version && complete;
}

/* Its pages, and the checksum that they lead to. db->lock held. */
static int reckon(struct change *c)
{
	const struct wrep_entry *e = &c->e;
	int rc = 0;

	if (c->own)
		c->pages = (struct pages){
			.changes = c->own->changes,
			.count = c->own->change_count,
			.sets_wal_mode = c->own->sets_wal_mode,
			.wal_mode = c->own->wal_mode,
		};
	else if (e->part)
		rc = complete_parts(e, c->parts, &c->pages);
	else
		rc = hash_images(e, &c->pages);
	if (!rc)
		c->sum = wrep_pagesum_preview(&c->db->state.sum, e->page_size, e->page_count,
					      c->pages.changes, c->pages.count);
	return rc;
}

/* db->lock held. */
static int take_effect(struct change *c, uint64_t index)
{
	struct wrep_db *db = c->db;
	const struct wrep_entry *e = &c->e;
	int rc;

	c->nothing = !c->pages.count && e->page_size == db->state.sum.page_size &&
		     e->page_count == db->state.sum.page_count;
	rc = wrep_pagesum_apply(&db->state.sum, e->page_size, e->page_count, c->pages.changes,
				c->pages.count);

	if (rc < 0)
		return rc;
	db->state.sum.sum = e->checksum;
	db->state.version++;
	db->state.index = index;
	db->touched = db->unsynced = true;
	if (c->pages.sets_wal_mode)
		db->state.wal_mode = c->pages.wal_mode;
	return 0;
}

static bool concerns(const struct change *c)
{
	return c->db && !c->past;
}

/* It did not, though it has to: this node's copy differs. No lock held. */
static void tell_damage(struct wrep *w, const struct change *c)
{
	wrep_damagef(w,
		     "checksum mismatch: this node's copy differs database=%s version=%llu "
		     "expected=%016llx got=%016llx",
		     c->db->name, (unsigned long long)c->e.base_version + 1,
		     (unsigned long long)c->e.checksum, (unsigned long long)c->sum);
	wrep_fetch_wanted(w, "the database is damaged", c->db);
}

enum verdict { TO_BE_JUDGED, TOOK_EFFECT, REFUSED };

/* All `changes` or none. The verdict is known where the manifest has it (txn/multi_commit.c). 1: they took effect, and
 * all locks are held; else none is: 0, no effect; -EAGAIN, nothing has happened, and this node's files are
 * unfit. */
static int apply_changes(struct wrep *w, uint64_t index, uint64_t term, enum verdict verdict,
			 struct change *changes, uint32_t count)
{
	const struct change *bad = NULL;
	bool effect = true;
	int rc = 0;

	lock_all(changes, count);
	for (uint32_t i = 0; i < count; i++) {
		if (concerns(&changes[i]))
			judge(&changes[i], term);
		effect = effect && changes[i].holds;
	}
	if (verdict != TO_BE_JUDGED)
		effect = verdict == TOOK_EFFECT;
	if (!effect) {
		unlock_all(changes, count);
		for (uint32_t i = 0; i < count; i++)
			if (concerns(&changes[i]) && !changes[i].own)
				wrep_logf(w, 'I',
					  "transaction refused database=%s base_version=%llu "
					  "version=%llu",
					  changes[i].db->name,
					  (unsigned long long)changes[i].e.base_version,
					  (unsigned long long)changes[i].db->state.version);
		drop_all(w, changes, count);
		return 0;
	}
	for (uint32_t i = 0; i < count && !rc && !bad; i++) {
		struct change *c = &changes[i];

		if (!concerns(c))
			continue;
		if (c->holds)
			rc = reckon(c);
		if (!rc && (!c->holds || !checksum_holds(w, c->db, index, c->sum, c->e.checksum)))
			bad = c;
	}
	if (rc < 0 || bad) {
		unlock_all(changes, count);
		drop_all(w, changes, count); /* they come again, after the fetch */
		if (bad) {
			tell_damage(w, bad);
			return -EAGAIN;
		}
		wrep_fatalf(w,
			    "an entry of the log cannot be understood index=%llu error=%s; run the "
			    "same dqlitefs version on all nodes",
			    (unsigned long long)index, strerror(-rc));
		return 0;
	}
	for (uint32_t i = 0; i < count && !rc; i++)
		if (concerns(&changes[i]))
			rc = take_effect(&changes[i], index);
	if (rc < 0) {
		unlock_all(changes, count);
		drop_all(w, changes, count);
		wrep_fatalf(w, "out of memory for page checksums index=%llu",
			    (unsigned long long)index);
		return 0;
	}
	return 1;
}

/* The parts of a transaction that the COMMIT shows to be given up, for drop_parts(). */
static struct wrep_parts *take_given_up(struct change *c)
{
	struct wrep_parts *parts = c->e.part ? NULL : c->parts;

	if (parts)
		c->parts = NULL;
	return parts;
}

/* 1: it took effect; 0: it has none; -EAGAIN: nothing has happened, and this node's files are unfit. */
static int apply_commit(struct wrep *w, struct wrep_db *db, uint64_t index, uint64_t term,
			const struct wrep_entry *e, struct rlog_buf *buf, struct rlog_request *req)
{
	struct wrep_commit *own = (struct wrep_commit *)req;
	struct change c = {.e = *e, .db = db, .own = own};
	struct wrep_parts *dead;
	int rc = apply_changes(w, index, term, TO_BE_JUDGED, &c, 1);

	if (rc == 0 && own) {
		wrep_commit_log_refused(db, WREP_REFUSED_TOO_LATE);
		end_own(own, -EIO);
	}
	if (rc <= 0)
		return rc;
	free(c.pages.owned);
	dead = take_given_up(&c);
	if (own) {
		own->index = index;
		finish_own(w, db, own, c.parts); /* unlocks */
		drop_parts(w, dead);
		return 1;
	}
	wrep_parts_queued(db, c.parts);
	pthread_mutex_unlock(&db->lock);
	drop_parts(w, dead);
	wrep_apply_queue(db, index, buf, c.parts, c.nothing);
	return 1;
}

/* The group took effect: what the applier has to do for it. All locks held, released. */
static void queue_group(struct wrep *w, uint64_t index, struct change *changes, uint32_t count,
			struct rlog_buf *buf, struct wrep_group *own)
{
	struct wrep_multi *multi =
		wrep_multi_new(own ? &wrep_install_multi_ops : &wrep_apply_multi_ops, count);
	struct wrep_parts **dead = calloc(count, sizeof(*dead));

	if (!dead)
		abort(); /* as wrep_work_make() */
	for (uint32_t i = 0; i < count; i++) {
		struct change *c = &changes[i];
		struct wrep_part *part = &multi->members[multi->count];

		free(c->pages.owned);
		if (!concerns(c))
			continue;
		dead[i] = take_given_up(c);
		part->db = wrep_db_ref(c->db);
		part->parts = c->parts;
		part->commit = c->own;
		part->entry = c->e;
		part->changes_nothing = c->nothing;
		if (c->own)
			c->own->index = index;
		if (c->own && c->parts)
			atomic_store(&c->parts->dead, true); /* its pages are in the overlay */
		wrep_parts_queued(c->db, c->parts);
		multi->count++;
	}
	unlock_all(changes, count);
	for (uint32_t i = 0; i < count; i++)
		drop_parts(w, dead[i]);
	free(dead);
	multi->group = own;
	multi->index = index;
	if (!own) {
		multi->buf = rlog_buf_ref(buf);
		multi->work.bytes = buf->len;
	}
	wrep_multi_push(w, multi);
}

/* The files that an application here has open are about to be given up (names/rename.c). */
static bool is_moving(struct wrep_db *db)
{
	bool moving;

	pthread_mutex_lock(&db->lock);
	moving = db->moving > 0;
	pthread_mutex_unlock(&db->lock);
	return moving;
}

/* As apply_commit(), for several databases: all or none. */
static int apply_group(struct wrep *w, uint64_t index, uint64_t term, const struct wrep_entry *e,
		       struct rlog_buf *buf, struct rlog_request *req)
{
	struct wrep_group *own = (struct wrep_group *)req, *retired = NULL;
	struct change *changes = calloc(e->member_count, sizeof *changes);
	enum verdict verdict = TO_BE_JUDGED;
	uint32_t count = 0;
	size_t at = 0;
	int rc;

	if (!changes) {
		wrep_fatalf(w, "out of memory index=%llu", (unsigned long long)index);
		return 0;
	}
	assert(!own || own->count == e->member_count);
	while (wrep_entry_member(buf, &at, &changes[count].e)) {
		struct change *c = &changes[count];

		c->db = wrep_db_by_id(w, c->e.db_id);
		if (own && (own->members[count]->db != c->db || is_moving(c->db)))
			retired = own;
		/* Only this thread moves it, and a restart. */
		c->past = c->db && index <= c->db->state.index;
		count++;
		if (count == e->member_count)
			break;
	}
	for (uint32_t i = 0; i < count && own && !retired; i++)
		changes[i].own = own->members[i];
	if (index <= w->groups.judged_until)
		verdict = wrep_manifest_has_group(&w->groups, index) ? TOOK_EFFECT : REFUSED;
	rc = apply_changes(w, index, term, verdict, changes, count);
	if (rc == 1) {
		queue_group(w, index, changes, count, buf, retired ? NULL : own);
		if (wrep_groups_add(w, index) < 0)
			wrep_fatalf(w, "out of memory index=%llu", (unsigned long long)index);
		if (retired) /* it is applied to what has taken the place of its files */
			wrep_group_end(retired, 0);
	} else if (rc == 0 && own) {
		wrep_group_end(own, -EIO);
	}
	for (uint32_t i = 0; i < count; i++)
		wrep_db_unref(changes[i].db);
	free(changes);
	return rc;
}

/* The entry changes nothing any more. `req`, if there is one, is told so: of a transaction -EIO, which
 * leaves open whether it was committed. */
static void pass_over(struct rlog_request *req, const struct wrep_entry *e, uint64_t term,
		      int meta_result)
{
	if (!req)
		return;
	if (e->type == WREP_ENTRY_COMMIT)
		end_own((struct wrep_commit *)req, -EIO);
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
		rc = apply_group(w, index, term, &e, buf, req);
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
		if (req && (((struct wrep_commit *)req)->db != db || is_moving(db))) {
			retired = (struct wrep_commit *)req;
			req = NULL;
		}
		rc = apply_commit(w, db, index, term, &e, buf, req);
		if (retired && rc >= 0)
			end_own(retired, rc == 1 ? 0 : -EIO);
		break;
	case WREP_ENTRY_CREATE:
	case WREP_ENTRY_GROUP:
	case WREP_ENTRY_MKDIR:
		break;
	}
	wrep_db_unref(db);
	return rc < 0 ? rc : 0;
}

static int on_apply(void *ctx, uint64_t index, uint64_t term, struct rlog_buf *buf,
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

/* ---- snapshots ----------------------------------------------------------------------------------- */

static int on_restore(void *ctx, uint64_t index, struct rlog_buf *payload, uint64_t last_index)
{
	struct wrep *w = ctx;
	struct wrep_manifest m;
	int rc;

	if (wrep_fetch_marked(w))
		return 0; /* the files are not what it says */
	rc = wrep_manifest_decode(payload, &m);
	if (!rc && !m.names_index)
		m.names_index = index; /* of an earlier version */
	if (!rc)
		rc = wrep_restore(w, &m, last_index);
	if (rc) {
		wrep_logf(w, 'E', "cannot take up the databases error=\"%s\"", strerror(-rc));
	} else {
		atomic_store(&w->delivered, index);
		wrep_keeper_adopt(w, &m, index);
		w->restored = true;
	}
	wrep_manifest_clear(&m);
	return rc;
}

static void on_needs_state(void *ctx, uint64_t leader_id, const char *leader_address)
{
	struct wrep *w = ctx;

	(void)leader_id;
	(void)leader_address; /* asked for again when it is fetched */
	if (wrep_opened(w))   /* else it is told again */
		wrep_fetch_wanted(w, "the log of the leader no longer holds what this node lacks",
				  NULL);
}

static void on_stream(void *ctx, int fd, uint64_t from_id)
{
	wrep_offer(ctx, fd, from_id);
}

/* The view decides who may write here. Losing it to another leader takes effect at once; gaining it
 * only when the applier has come to this point of the queue, so when everything before the barrier
 * is in the files. Without any known leader nothing changes: writers wait in rlog_submit(). */
static void on_view(void *ctx, const struct rlog_view *view)
{
	struct wrep *w = ctx;
	uint64_t sequence;
	bool other;

	pthread_mutex_lock(&w->lock);
	other = view->role != RLOG_LEADER || view->term != w->view.term;
	w->view = *view;
	if (view->leader_id)
		w->led_term = view->term;
	sequence = ++w->view_sequence;
	if (view->leader_id && view->leader_id != w->node_id)
		atomic_store(&w->may_write, false);
	pthread_mutex_unlock(&w->lock);
	wrep_view_queue(w, sequence);
	if (other)
		wrep_ahead_look(w, true); /* a COMMIT of this term could not complete them */
	discard_dead(w);
	w->config.host.view(w->config.host_ctx, view);
}

/* The applier has taken something from a queue that was full. */
static void on_room(void *ctx)
{
	struct wrep *w = ctx;

	pthread_mutex_lock(&w->lock); /* wrep_close() frees the log */
	if (w->resumable)
		rlog_resume(w->log);
	pthread_mutex_unlock(&w->lock);
}

static void on_caught_up(void *ctx)
{
	wrep_caught_up_queue(ctx);
}

static void on_fatal(void *ctx, const char *msg)
{
	wrep_fatalf(ctx, "%s", msg);
}

static void on_log(void *ctx, char level, const char *line)
{
	wrep_logf(ctx, level, "%s", line);
}

/* ---- opening and closing ------------------------------------------------------------------------- */

/* Free what never had a thread, or no longer has. */
static void release(struct wrep *w)
{
	wrep_idle_clear(w);
	wrep_keeper_free(w);
	wrep_manifest_clear(&w->groups);
	wrep_idle_destroy(w);
	wrep_tree_free(w->tree);
	pthread_cond_destroy(&w->peers_gone);
	pthread_mutex_destroy(&w->delivery);
	pthread_mutex_destroy(&w->stray_lock);
	wrep_phase_destroy(&w->phase);
	wrep_queue_free(w->queue);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

/* Stop everything, in the order of who calls whom. */
static void stop(struct wrep *w)
{
	atomic_store(&w->may_write, false);
	pthread_mutex_lock(&w->lock);
	w->resumable = false;
	pthread_mutex_unlock(&w->lock);
	wrep_phase_close(w);
	wrep_queue_close(w->queue);
	wrep_departures_look(w);
	wrep_scrub_stop(w);
	wrep_exclusive_stop(w);
	wrep_offers_stop(w);
	wrep_fetch_stop(w);
	wrep_keeper_stop(w);
	if (w->log)
		rlog_close(w->log); /* pending commits end as unknown */
	wrep_applier_stop(w);
}

static void end(struct wrep *w)
{
	struct wrep_db **all;
	size_t count;

	if (w->applier_running)
		stop(w);
	wrep_applier_end_rest(w);
	if (wrep_db_all(w, &all, &count) == 0) {
		for (size_t i = 0; i < count; i++) {
			pthread_mutex_lock(&all[i]->lock);
			wrep_ahead_forget(all[i]);
			for (int k = 0; k < 4; k++)
				wrep_db_forget_file(all[i], k);
			pthread_mutex_unlock(&all[i]->lock);
			wrep_db_hide(all[i], 0);
			wrep_db_remove(all[i]);
			wrep_db_unref(all[i]);
		}
		free(all);
	}
	wrep_super_forget_all(w);
	wrep_strays_forget_all(w);
	wrep_dirs_retire(w);
	wrep_dirs_release(w);
	release(w);
}

int wrep_open(struct wrep **out, const struct wrep_config *config, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct wrep *w = calloc(1, sizeof *w);
	struct rlog_config log;
	bool marked = false;
	int rc;

	if (!w)
		return -ENOMEM;
	w->config = *config;
	if (!w->config.max_transaction_bytes)
		w->config.max_transaction_bytes = WREP_TRANSACTION_BYTES_DEFAULT;
	w->damaged = wrep_fetch_wanted;
	w->node_id = config->log.id;
	TAILQ_INIT(&w->waiters);
	wrep_idle_init(w);
	pthread_mutex_init(&w->lock, NULL);
	wrep_phase_init(&w->phase);
	pthread_cond_init(&w->peers_gone, NULL);
	pthread_mutex_init(&w->delivery, NULL);
	pthread_mutex_init(&w->stray_lock, NULL);
	w->fetch_fd = -1;
	w->tree = wrep_tree_new();
	w->queue = wrep_queue_new(wrep_queue_in_log_order, on_room, w);
	rc = w->tree && w->queue ? wrep_conn_init() : -ENOMEM;
	if (!rc && getrandom(&w->origin, sizeof w->origin, 0) != sizeof w->origin)
		rc = -EIO;
	if (!rc)
		rc = wrep_keeper_new(w);
	if (rc) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot prepare to replicate: %s",
			 strerror(-rc));
		goto fail;
	}
	rc = wrep_applier_start(w);
	if (rc) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot start a thread: %s", strerror(-rc));
		goto fail;
	}
	log = config->log;
	log.cb = (struct rlog_callbacks){
		.apply = on_apply,
		.view = on_view,
		.caught_up = on_caught_up,
		.fatal = on_fatal,
		.log = on_log,
		.restore = on_restore,
		.needs_state = on_needs_state,
		.stream = on_stream,
	};
	log.ctx = w;
	rc = rlog_open(&w->log, &log, errmsg);
	if (!rc) {
		/* Nothing is delivered yet. */
		marked = wrep_fetch_marked(w);
		if (!marked && !w->restored)
			rc = wrep_restore_nothing(w);
		if (!rc)
			rc = wrep_strays_load(w);
		if (!rc)
			rc = wrep_keeper_start(w);
		if (!rc)
			rc = wrep_scrub_start(w);
		if (!rc)
			rc = wrep_exclusive_start(w, wrep_direct_look);
		if (rc)
			snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot prepare the data directory: %s",
				 strerror(-rc));
	}
	if (rc) {
		end(w);
		return rc;
	}
	if (marked)
		wrep_fetch_wanted(w, "getting the databases from the leader was not finished",
				  NULL);
	pthread_mutex_lock(&w->lock);
	w->resumable = true;
	pthread_mutex_unlock(&w->lock);
	wrep_phase_opened(w);
	/* What could not be done before w->log was known. */
	rlog_resume(w->log);
	discard_dead(w);
	*out = w;
	return 0;
fail:
	release(w);
	return rc;
}

void wrep_stop(struct wrep *w)
{
	wrep_direct_end_all(w);
	if (wrep_is_ready(w))
		wrep_keeper_point(w, CLOSE_POINT_MS); /* the next start has less to do */
	stop(w);
}

void wrep_close(struct wrep *w)
{
	if (w->applier_running)
		wrep_stop(w);
	end(w);
}

struct rlog *wrep_log(struct wrep *w)
{
	return w->log;
}

pid_t wrep_applier_tid(const struct wrep *w)
{
	return atomic_load(&w->applier_tid);
}

int wrep_databases(struct wrep *w, struct wrep_db_status **out, size_t *count)
{
	struct wrep_db **all;
	struct wrep_db_status *list;
	size_t n, living = 0;
	int rc = wrep_db_all(w, &all, &n);

	if (rc < 0)
		return rc;
	list = calloc(n + 1, sizeof *list);
	for (size_t i = 0; i < n; i++) {
		struct wrep_db *db = all[i];

		pthread_mutex_lock(&db->lock);
		if (list && !db->removed) {
			struct wrep_db_status *s = &list[living++];

			snprintf(s->name, sizeof s->name, "%s", db->name);
			s->version = db->state.version;
			s->checksum = db->state.sum.sum;
			s->page_size = db->state.sum.page_size;
			s->page_count = db->state.sum.page_count;
			s->damaged = db->damaged;
			s->uncommitted = db->direct.active && !db->direct.alone;
			s->mode = !db->state.sum.page_count ? "empty"
				  : db->state.wal_mode	    ? "wal"
							    : "delete";
		}
		pthread_mutex_unlock(&db->lock);
		wrep_db_unref(db);
	}
	free(all);
	if (!list)
		return -ENOMEM;
	*out = list;
	*count = living;
	return 0;
}
