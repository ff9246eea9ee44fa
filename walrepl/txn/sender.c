/* Submits the entries of a database. */
#include "txn/sender.h"

#include <errno.h>
#include <stdlib.h>
#include "base/wrep.h"
#include "db/db.h"
#include "db/table.h"
#include "record/entry.h"
#include "state/parts.h"
#include "txn/commit.h"
#include "txn/streaming.h"

static void part_done(struct rlog_request *req, enum rlog_outcome outcome);

static void discard_done(struct rlog_request *req, enum rlog_outcome outcome)
{
	(void)outcome; /* the next leader submits another */
	rlog_buf_unref(req->buf);
	free(req);
}

void wrep_submit_discard(struct wrep *w, uint64_t db_id, uint64_t origin, uint64_t sequence)
{
	struct wrep_entry e = {
		.type = WREP_ENTRY_DISCARD,
		.db_id = db_id,
		.origin = origin,
		.sequence = sequence,
	};
	struct rlog_request *req = calloc(1, sizeof *req);

	if (!req)
		return;
	req->buf = wrep_entry_encode(&e);
	req->done = discard_done;
	pthread_mutex_lock(&w->lock); /* any thread may be here: wrep_close() frees the log */
	if (req->buf && w->resumable)
		rlog_submit(w->log, req);
	else
		discard_done(req, RLOG_REFUSED);
	pthread_mutex_unlock(&w->lock);
}

/* Their COMMIT will never commit: the images of the parts need not be kept here. The replicated state
 * goes on to count them, until the log says otherwise. db->lock held. */
void wrep_outgoing_forget(struct wrep_db *db, const struct wrep_outgoing *out)
{
	if (wrep_parts_same(db->state.parts, db->w->origin, out->sequence))
		atomic_store(&db->state.parts->dead, true);
}

struct wrep_outgoing *wrep_outgoing_new(struct wrep *w)
{
	struct wrep_outgoing *out = calloc(1, sizeof *out);

	if (out)
		out->sequence = atomic_fetch_add(&w->sequence, 1);
	return out;
}

struct rlog_request *wrep_outgoing_part(struct wrep_db *db, struct wrep_outgoing *out,
					struct rlog_buf *buf)
{
	struct wrep_part_request *r = calloc(1, sizeof *r);

	if (!r) {
		rlog_buf_unref(buf);
		return NULL;
	}
	r->request.buf = buf;
	r->request.done = part_done;
	r->db = wrep_db_ref(db);
	r->out = out;
	out->next_part++;
	out->in_flight++;
	return &r->request;
}

/* Nobody owns them any more, and none is in flight. */
static void retire(struct wrep_db *db, struct wrep_outgoing *out)
{
	out->next = db->spent;
	db->spent = out;
}

/* Give them up before their COMMIT is submitted. db->lock held. */
void wrep_outgoing_fail(struct wrep_db *db, struct wrep_outgoing *out, int error)
{
	if (!out->failed)
		out->failed = error;
	wrep_outgoing_forget(db, out);
}

void wrep_outgoing_give_up(struct wrep_db *db, struct wrep_outgoing *out, int error)
{
	wrep_outgoing_fail(db, out, error);
	out->given_up = true;
	if (!out->in_flight)
		retire(db, out);
}

/* Have discarded what nobody owns any more. False: there is nothing. db->lock held, let go meanwhile. */
static bool discard_spent(struct wrep_db *db)
{
	struct wrep_outgoing *out = db->spent;

	if (!out)
		return false;
	db->spent = out->next;
	pthread_mutex_unlock(&db->lock);
	if (out->next_part > 0)
		wrep_submit_discard(db->w, db->id, db->w->origin, out->sequence);
	free(out);
	pthread_mutex_lock(&db->lock);
	return true;
}

/* Submit what the window has room for. One thread at a time does it, so that the entries of a database
 * are submitted in their order; what others bring about meanwhile it sees when it looks again. db->lock
 * held, released; the pending transaction may be gone afterwards. */
void wrep_commit_feed(struct wrep_db *db)
{
	struct rlog_request *req;
	struct wrep_commit *c;

	if (db->feeding) {
		pthread_mutex_unlock(&db->lock);
		return;
	}
	db->feeding = true;
	wrep_db_ref(db);
	for (;;) {
		if (discard_spent(db))
			continue;
		req = wrep_commit_next(db);
		if (!req && !db->spent)
			break;
		if (!req)
			continue;
		pthread_mutex_unlock(&db->lock);
		rlog_submit(db->w->log, req);
		pthread_mutex_lock(&db->lock);
	}
	db->feeding = false;
	c = db->pending;
	if (c && c->group)
		wrep_commit_arrive(c); /* unlocks */
	else if (c && !c->sent && c->out->failed && c->out->in_flight == 0) {
		/* (No space, and the like, say so themselves.) */
		if (c->out->failed == -EIO)
			wrep_commit_log_refused(db, WREP_REFUSED_NO_LEADER);
		wrep_commit_end_refused(c, c->out->failed); /* unlocks */
	} else
		pthread_mutex_unlock(&db->lock);
	wrep_db_unref(db);
}

/* What the application is told of a request that raftlog has ended. */
int wrep_request_error(const struct rlog_request *req, enum rlog_outcome outcome)
{
	return outcome == RLOG_REFUSED && req->error ? req->error : -EIO;
}

/* A part ended: delivered in `term`, or by an error. */
static void part_ended(struct rlog_request *req, uint64_t term, int error)
{
	struct wrep_part_request *r = (struct wrep_part_request *)req;
	struct wrep_outgoing *out = r->out;
	struct wrep_db *db = r->db;

	free(r);
	pthread_mutex_lock(&db->lock);
	out->in_flight--;
	if (!out->term)
		out->term = term;
	if (!error && (db->removed || out->term != term))
		error = -EIO;
	if (out->given_up) {
		if (!out->in_flight)
			retire(db, out);
	} else if (error) {
		wrep_outgoing_fail(db, out, error);
		if (out == wrep_ahead_outgoing(db))
			wrep_ahead_stop(db);
	}
	wrep_commit_feed(db); /* unlocks */
	wrep_db_unref(db);
}

/* raftlog: refused, or unknown, which for a part comes to the same. */
static void part_done(struct rlog_request *req, enum rlog_outcome outcome)
{
	part_ended(req, 0, wrep_request_error(req, outcome));
}

void wrep_commit_part_delivered(struct rlog_request *req, uint64_t term, bool counts)
{
	part_ended(req, term, counts ? 0 : -EIO);
}

bool wrep_commit_give_up(struct wrep_db *db, const struct wrep_parts *parts, int error)
{
	struct wrep_outgoing *ahead, *out;

	pthread_mutex_lock(&db->lock);
	ahead = wrep_ahead_outgoing(db);
	out = db->pending && !db->pending->sent ? db->pending->out : ahead;
	if (!out || !wrep_parts_same(parts, db->w->origin, out->sequence)) {
		pthread_mutex_unlock(&db->lock);
		return false;
	}
	if (out == ahead)
		wrep_ahead_stop(db);
	else
		wrep_outgoing_fail(db, out, error);
	wrep_commit_feed(db); /* unlocks */
	return true;
}
