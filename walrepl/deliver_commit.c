/* Committed transactions: lock the databases, ask the rules, carry out what they say.
 *
 * In the good case an application's commit arrives here together with the request that submitted it: its
 * pages are already in the backing -wal, all but the write that was held back. That write is let through,
 * the version moves, the application gets its reply. A transaction of another node moves the same version
 * and is then queued for the applier, which brings the files up to date.
 *
 * Whether it takes effect, state/state.c says.
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
#include "base/wrep.h"
#include "db/db.h"
#include "db/pin.h"
#include "db/spool.h"
#include "db/table.h"
#include "pages/capture.h"
#include "record/entry.h"
#include "repair/fetch.h"
#include "state/parts.h"
#include "state/state.h"
#include "state/version.h"
#include "txn/commit.h"
#include "txn/multi_commit.h"

/* ---- what an entry does to its databases --------------------------------------------------------- */

/* The databases that an entry is about, in ascending order of their ids. */
struct members {
	struct wrep *w;
	uint32_t count;
	struct wrep_change *changes;
	struct member {
		struct wrep_db *db;	 /* a reference; NULL: there is none (any more) */
		struct wrep_commit *own; /* of an application here, or NULL */
	} * of;
};

static void lock_all(const struct members *m)
{
	for (uint32_t i = 0; i < m->count; i++)
		if (m->of[i].db)
			pthread_mutex_lock(&m->of[i].db->lock);
}

static void unlock_all(const struct members *m)
{
	for (uint32_t i = m->count; i-- > 0;)
		if (m->of[i].db)
			pthread_mutex_unlock(&m->of[i].db->lock);
}

/* Nothing comes of the parts (any more). No lock held. */
static void drop_all(const struct members *m)
{
	for (uint32_t i = 0; i < m->count; i++) {
		wrep_apply_queue_drop(m->w, wrep_spool_take(m->changes[i].parts));
		m->changes[i].parts = NULL;
	}
}

/* It did not lead to its checksum, though it has to: this node's copy differs. No lock held. */
static void tell_damage(const struct members *m, const struct wrep_change *c)
{
	struct wrep_db *db = m->of[c - m->changes].db;

	wrep_damagef(m->w,
		     "checksum mismatch: this node's copy differs database=%s version=%llu "
		     "expected=%016llx got=%016llx",
		     db->name, (unsigned long long)c->e.base_version + 1,
		     (unsigned long long)c->e.checksum, (unsigned long long)c->sum);
	wrep_fetch_wanted(m->w, "the database is damaged", db);
}

/* What the state needs to know of the databases. All locks held. */
static void prepare(const struct members *m)
{
	for (uint32_t i = 0; i < m->count; i++) {
		struct wrep_change *c = &m->changes[i];
		const struct wrep_commit *own = m->of[i].own;

		if (!m->of[i].db)
			continue;
		c->v = &m->of[i].db->state;
		c->lost = m->of[i].db->lost;
		if (own)
			c->pages = (struct wrep_pages){
				.known = true,
				.changes = own->changes,
				.count = own->change_count,
				.sets_wal_mode = own->sets_wal_mode,
				.wal_mode = own->wal_mode,
			};
	}
}

static void log_refused(const struct members *m)
{
	for (uint32_t i = 0; i < m->count; i++)
		if (wrep_change_concerns(&m->changes[i]) && !m->of[i].own)
			wrep_logf(m->w, 'I',
				  "transaction refused database=%s base_version=%llu version=%llu",
				  m->of[i].db->name,
				  (unsigned long long)m->changes[i].e.base_version,
				  (unsigned long long)m->of[i].db->state.version);
}

/* It took no effect. No lock held. 0 or -EAGAIN. */
static int end_without(const struct members *m, uint64_t index, int rc,
		       const struct wrep_change *bad)
{
	if (rc == WREP_REFUSED)
		log_refused(m);
	drop_all(m); /* after a fetch they come again */
	if (rc == -EUCLEAN) {
		tell_damage(m, bad);
		return -EAGAIN;
	}
	if (rc == -ENOMEM)
		wrep_fatalf(m->w, "out of memory for page checksums index=%llu",
			    (unsigned long long)index);
	else if (rc < 0)
		wrep_fatalf(m->w,
			    "an entry of the log cannot be understood index=%llu error=%s; run the "
			    "same dqlitefs version on all nodes",
			    (unsigned long long)index, strerror(-rc));
	return 0;
}

/* All of them or none. WREP_TAKES_EFFECT: all locks are held; else none is: WREP_REFUSED; WREP_PAST; -EAGAIN:
 * nothing has happened, and this node's files are unfit. */
static int change_all(const struct members *m, struct wrep_log_position at)
{
	const struct wrep_change *bad = m->changes;
	int rc;

	lock_all(m);
	prepare(m);
	rc = m->count == 1 ? wrep_state_commit(m->w->state, at, m->changes)
			   : wrep_state_multi_commit(m->w->state, at, m->changes, m->count, &bad);
	for (uint32_t i = 0; i < m->count; i++) {
		wrep_change_clear(&m->changes[i]);
		if (rc == WREP_TAKES_EFFECT && wrep_change_concerns(&m->changes[i]))
			m->of[i].db->touched = m->of[i].db->unsynced = true;
	}
	if (rc == WREP_TAKES_EFFECT)
		return rc;
	unlock_all(m);
	if (rc == WREP_PAST)
		return rc;
	return end_without(m, at.index, rc, bad);
}

/* The parts of a transaction that the COMMIT shows to be given up, for wrep_apply_queue_drop(). */
static struct wrep_spool *take_given_up(struct wrep_change *c)
{
	struct wrep_parts *parts = c->e.part ? NULL : c->parts;

	if (parts)
		c->parts = NULL;
	return wrep_spool_take(parts);
}

/* The files that an application here has open are about to be given up (names/rename.c). */
static bool is_moving(struct wrep_db *db)
{
	bool moving;

	pthread_mutex_lock(&db->lock);
	moving = db->renames_pending > 0;
	pthread_mutex_unlock(&db->lock);
	return moving;
}

/* ---- one database -------------------------------------------------------------------------------- */

/* The commit of an application of this node: `c` holds what was computed when it was captured. Its
 * parts are not needed, its pages being in the -wal or in the overlay; but until the latter is in the
 * file, a restart must find them in the log. db->lock held, released. */
static void finish_own(struct wrep *w, struct wrep_db *db, struct wrep_commit *c,
		       struct wrep_spool *spool)
{
	struct wrep_op *op = c->op;
	int rc = 0;

	assert(db->pending == c);
	if (c->mode == WREP_COMMIT_WAL)
		rc = wrep_capture_committed(db->capture);
	/* The overlay may be large, and a full disk is waited for: that is for the applier. */
	if (c->mode != WREP_COMMIT_WAL || rc == -ENOSPC) {
		if (spool)
			atomic_store(&spool->dead, true);
		wrep_spool_queued(db, spool);
		pthread_mutex_unlock(&db->lock);
		wrep_install_queue(c, spool);
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
	wrep_apply_queue_drop(w, spool);
}

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

/* It took effect: into the files with it. db->lock held, released. */
static void carry_out(struct wrep_delivery *d, struct wrep_db *db, struct wrep_change *c,
		      struct wrep_commit *own)
{
	struct wrep_spool *dead = take_given_up(c), *spool = wrep_spool_take(c->parts);

	if (own) {
		own->index = d->at.index;
		finish_own(d->w, db, own, spool); /* unlocks */
		wrep_apply_queue_drop(d->w, dead);
		return;
	}
	wrep_spool_queued(db, spool);
	pthread_mutex_unlock(&db->lock);
	wrep_apply_queue_drop(d->w, dead);
	wrep_apply_queue(db, d->at.index, d->buf, spool, c->nothing);
}

int wrep_deliver_commit(struct wrep_delivery *d, struct wrep_db *db)
{
	struct wrep_commit *own = (struct wrep_commit *)d->req;
	/* One that was written to files which are gone is applied to what has taken their place. */
	bool retired = own && (own->db != db || is_moving(db));
	struct wrep_change c = {.e = d->e};
	struct member of = {.db = db, .own = retired ? NULL : own};
	const struct members m = {.w = d->w, .count = 1, .changes = &c, .of = &of};
	int rc = change_all(&m, d->at);

	if (rc < 0)
		return rc;
	if (rc == WREP_TAKES_EFFECT) {
		carry_out(d, db, &c, of.own); /* unlocks */
		if (retired)
			wrep_deliver_end_own(own, 0);
		return 0;
	}
	if (rc == WREP_REFUSED && of.own)
		wrep_commit_log_refused(db, WREP_REFUSED_TOO_LATE);
	if (own)
		wrep_deliver_end_own(own, -EIO);
	return 0;
}

/* ---- several databases --------------------------------------------------------------------------- */

/* It took effect: what the applier has to do for it. All locks held, released. */
static void carry_out_all(struct wrep_delivery *d, const struct members *m,
			  struct wrep_multi_commit *own)
{
	struct wrep_multi *multi =
		wrep_multi_new(own ? &wrep_install_multi_ops : &wrep_apply_multi_ops, m->count);
	struct wrep_spool **dead = calloc(m->count, sizeof(*dead));

	if (!dead)
		abort(); /* as wrep_work_make() */
	for (uint32_t i = 0; i < m->count; i++) {
		struct wrep_change *c = &m->changes[i];
		struct wrep_part *part = &multi->members[multi->count];

		if (!wrep_change_concerns(c))
			continue;
		dead[i] = take_given_up(c);
		part->db = wrep_db_ref(m->of[i].db);
		part->spool = wrep_spool_take(c->parts);
		part->commit = m->of[i].own;
		part->entry = c->e;
		part->changes_nothing = c->nothing;
		if (part->commit)
			part->commit->index = d->at.index;
		if (part->commit && part->spool)
			atomic_store(&part->spool->dead, true); /* its pages are in the overlay */
		wrep_spool_queued(part->db, part->spool);
		multi->count++;
	}
	unlock_all(m);
	for (uint32_t i = 0; i < m->count; i++)
		wrep_apply_queue_drop(d->w, dead[i]);
	free(dead);
	multi->group = own;
	multi->index = d->at.index;
	if (!own) {
		multi->buf = rlog_buf_ref(d->buf);
		multi->work.bytes = d->buf->len;
	}
	wrep_multi_push(d->w, multi);
}

/* Find the databases. True: an application's own is to be applied to what has taken the place of its files. */
static bool find_members(struct wrep_delivery *d, struct members *m,
			 const struct wrep_multi_commit *own)
{
	bool retired = false;
	size_t at = 0;

	while (wrep_entry_member(d->buf, &at, &m->changes[m->count].e)) {
		struct member *of = &m->of[m->count];

		of->db = wrep_db_by_id(d->w, m->changes[m->count].e.db_id);
		if (own && (own->members[m->count]->db != of->db || is_moving(of->db)))
			retired = true;
		if (++m->count == d->e.member_count)
			break;
	}
	for (uint32_t i = 0; i < m->count && own && !retired; i++)
		m->of[i].own = own->members[i];
	return retired;
}

int wrep_deliver_multi_commit(struct wrep_delivery *d)
{
	struct wrep_multi_commit *own = (struct wrep_multi_commit *)d->req;
	struct members m = {.w = d->w,
			    .changes = calloc(d->e.member_count, sizeof *m.changes),
			    .of = calloc(d->e.member_count, sizeof *m.of)};
	bool retired;
	int rc;

	if (!m.changes || !m.of) {
		wrep_fatalf(d->w, "out of memory index=%llu", (unsigned long long)d->at.index);
		free(m.changes);
		free(m.of);
		return 0;
	}
	assert(!own || own->count == d->e.member_count);
	retired = find_members(d, &m, own);
	rc = change_all(&m, d->at);
	if (rc == WREP_TAKES_EFFECT) {
		carry_out_all(d, &m, retired ? NULL : own); /* unlocks */
		if (retired)
			wrep_multi_commit_end(own, 0);
	} else if (rc >= 0 && own) {
		wrep_multi_commit_end(own, -EIO);
	}
	for (uint32_t i = 0; i < m.count; i++)
		wrep_db_unref(m.of[i].db);
	free(m.changes);
	free(m.of);
	return rc < 0 ? rc : 0;
}
