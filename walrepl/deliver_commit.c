/* Committed transactions: lock the databases, ask the rules, carry out what they say.
 *
 * In the good case an application's commit arrives here together with the request that submitted it: its
 * pages are already in the backing -wal, all but the write that was held back. That write is let through,
 * the version moves, the application gets its reply. A transaction of another node moves the same version
 * and is then queued for the applier, which brings the files up to date.
 *
 * Whether it takes effect depends on nothing but the log (state/state.c).
 */
#include "deliver_commit.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "apply/apply.h"
#include "apply/apply_multi.h"
#include "apply/install.h"
#include "base/report.h"
#include "base/work.h"
#include "db/db.h"
#include "db/spool.h"
#include "db/table.h"
#include "pages/capture.h"
#include "pages/pagesum.h"
#include "record/entry.h"
#include "record/manifest.h"
#include "repair/fetch.h"
#include "snapshot/restore.h"
#include "sqlite/file_format.h"
#include "state/parts.h"
#include "txn/commit.h"
#include "txn/multi_commit.h"
#include "txn/sender.h"

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
	wrep_apply_queue_drop(w, parts);
}

/* The transaction of an application here changes nothing in the files that it has open: it takes no
 * effect (-EIO), or the database was retired meanwhile, and it is applied to what has taken its place
 * like any other node's (0). No lock held. */
void wrep_deliver_end_own(struct wrep_commit *c, int result)
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
		wrep_apply_queue_drop(w, changes[i].parts);
		free(changes[i].pages.owned);
		changes[i].parts = NULL;
		changes[i].pages.owned = NULL;
	}
}

/* db->lock held. */
static void judge(struct change *c, uint64_t term)
{
	bool complete = wrep_parts_complete(c->db->state.parts, &c->e, term);

	c->parts = wrep_parts_take(c->db);
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

/* The parts of a transaction that the COMMIT shows to be given up, for wrep_apply_queue_drop(). */
static struct wrep_parts *take_given_up(struct change *c)
{
	struct wrep_parts *parts = c->e.part ? NULL : c->parts;

	if (parts)
		c->parts = NULL;
	return parts;
}

/* 1: it took effect; 0: it has none; -EAGAIN: nothing has happened, and this node's files are unfit. */
int wrep_deliver_commit(struct wrep *w, struct wrep_db *db, uint64_t index, uint64_t term,
			const struct wrep_entry *e, struct rlog_buf *buf, struct rlog_request *req)
{
	struct wrep_commit *own = (struct wrep_commit *)req;
	struct change c = {.e = *e, .db = db, .own = own};
	struct wrep_parts *dead;
	int rc = apply_changes(w, index, term, TO_BE_JUDGED, &c, 1);

	if (rc == 0 && own) {
		wrep_commit_log_refused(db, WREP_REFUSED_TOO_LATE);
		wrep_deliver_end_own(own, -EIO);
	}
	if (rc <= 0)
		return rc;
	free(c.pages.owned);
	dead = take_given_up(&c);
	if (own) {
		own->index = index;
		finish_own(w, db, own, c.parts); /* unlocks */
		wrep_apply_queue_drop(w, dead);
		return 1;
	}
	wrep_parts_queued(db, c.parts);
	pthread_mutex_unlock(&db->lock);
	wrep_apply_queue_drop(w, dead);
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
		wrep_apply_queue_drop(w, dead[i]);
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
bool wrep_deliver_is_moving(struct wrep_db *db)
{
	bool moving;

	pthread_mutex_lock(&db->lock);
	moving = db->moving > 0;
	pthread_mutex_unlock(&db->lock);
	return moving;
}

/* As wrep_deliver_commit(), for several databases: all or none. */
int wrep_deliver_group(struct wrep *w, uint64_t index, uint64_t term, const struct wrep_entry *e,
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
		if (own && (own->members[count]->db != c->db || wrep_deliver_is_moving(c->db)))
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
