/* One thread at a time submits, so that the entries of a database are submitted in their order. What others
 * bring about meanwhile it sees when it looks again.
 *
 * Parts that are given up wait until none of them is in flight; then a DISCARD goes behind them.
 */
#include "txn/sender.h"

#include <errno.h>
#include <stdlib.h>
#include "base/wrep.h"
#include "db/db.h"
#include "db/spool.h"
#include "db/table.h"
#include "record/entry.h"

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
	struct wrep_spool *spool = wrep_spool_of(db->state.parts);

	if (wrep_spool_is_of(spool, db->w->origin, out->sequence))
		atomic_store(&spool->dead, true);
}

struct wrep_outgoing *wrep_outgoing_new(struct wrep *w, const struct wrep_source *source)
{
	struct wrep_outgoing *out = calloc(1, sizeof *out);

	if (out) {
		out->source = source;
		out->sequence = atomic_fetch_add(&w->sequence, 1);
	}
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
	out->next = db->to_discard;
	db->to_discard = out;
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

/* The next parts that nobody owns any more, or NULL. db->lock held. */
static struct wrep_outgoing *take_discarded(struct wrep_db *db)
{
	struct wrep_outgoing *out = db->to_discard;

	if (out)
		db->to_discard = out->next;
	return out;
}

/* No lock held. */
static void discard(struct wrep_db *db, struct wrep_outgoing *out)
{
	if (out->next_part > 0)
		wrep_submit_discard(db->w, db->id, db->w->origin, out->sequence);
	free(out);
}

/* db->lock held. */
static struct rlog_request *next_request(struct wrep_db *db)
{
	const struct wrep_source *source =
		db->commit_source ? db->commit_source : db->stream_source;

	return source ? source->next(db) : NULL;
}

void wrep_txn_unlock(struct wrep_db *db)
{
	struct wrep_due *due = NULL;

	if (db->sending) {
		pthread_mutex_unlock(&db->lock);
		return;
	}
	db->sending = true;
	wrep_db_ref(db);
	for (;;) {
		struct wrep_outgoing *discarded = take_discarded(db);
		struct rlog_request *req = discarded ? NULL : next_request(db);

		/* Where the source gives up its parts, it returns no entry. */
		if (!discarded && !req && !db->to_discard)
			break;
		pthread_mutex_unlock(&db->lock);
		if (discarded)
			discard(db, discarded);
		else if (req)
			rlog_submit(db->w->log, req);
		pthread_mutex_lock(&db->lock);
	}
	db->sending = false;
	if (db->commit_source)
		due = db->commit_source->drained(db);
	pthread_mutex_unlock(&db->lock);
	if (due)
		due->run(due);
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
		out->source->part_failed(db, out, error);
	}
	wrep_txn_unlock(db);
	wrep_db_unref(db);
}

/* raftlog: refused, or unknown, which for a part comes to the same. */
static void part_done(struct rlog_request *req, enum rlog_outcome outcome)
{
	part_ended(req, 0, wrep_request_error(req, outcome));
}

void wrep_part_delivered(struct rlog_request *req, uint64_t term, bool counts)
{
	part_ended(req, term, counts ? 0 : -EIO);
}

/* Its parts, if they are these. db->lock held. */
static struct wrep_outgoing *outgoing_of(struct wrep_db *db, const struct wrep_source *source,
					 const struct wrep_spool *spool)
{
	struct wrep_outgoing *out = source ? source->outgoing(db) : NULL;

	return out && wrep_spool_is_of(spool, db->w->origin, out->sequence) ? out : NULL;
}

bool wrep_part_not_kept(struct wrep_db *db, const struct wrep_spool *spool, int error)
{
	struct wrep_outgoing *out;

	pthread_mutex_lock(&db->lock);
	out = outgoing_of(db, db->commit_source, spool);
	if (!out)
		out = outgoing_of(db, db->stream_source, spool);
	if (out)
		out->source->part_failed(db, out, error);
	wrep_txn_unlock(db);
	return out != NULL;
}

void wrep_sender_free(struct wrep_db *db)
{
	struct wrep_outgoing *out;

	while ((out = take_discarded(db)))
		free(out);
}
