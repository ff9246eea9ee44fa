/* Requests from submission to their outcome, and delivery of what is committed.
 *
 * A request waits in `waiting` until libraft takes it; from then on it is the entry (index, term) and
 * stands in `in_flight`. When the entry committed at its index is delivered and has its term, the
 * request goes along with it. Everything else is about saying REFUSED only when that is certain.
 *
 * When is (i, t) certain never to commit? Not when it leaves the local log: another node may still
 * hold it, and win an election with it. But once an entry (j, u) is *committed*, every future leader
 * has it, and terms never fall along a log. So with j == i and u != t the place of ours is taken for
 * good; and with j <= i and u > t no log that contains (j, u) can have an entry of the smaller term t
 * behind it. The second rule ends, with the new leader's first committed entry, all requests of the
 * old one that did not survive. Whatever neither rule decides before the commit timeout is UNKNOWN:
 * the request is taken off, and if its entry is committed after all, it is delivered without one.
 *
 * Entries are delivered up to min(commit index, own durable index): a majority of others may
 * commit an entry before this disk has it, and an application that saw it must not find it gone
 * after a crash of this node.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "server/server_internal.h"

#define DELIVER_MAX 1024 /* entries of one turn: heartbeats go on during a long catch-up */
#define SUBMIT_MAX 1024	 /* entries of one step */

/* ---- queues ------------------------------------------------------------------------------- */

static void push(struct queue *q, struct rlog_request *req)
{
	req->next = NULL;
	if (q->tail == NULL)
		q->head = req;
	else
		q->tail->next = req;
	q->tail = req;
}

/* Unlink the request behind `prev` (NULL: the head). */
static struct rlog_request *unlink_after(struct queue *q, struct rlog_request *prev)
{
	struct rlog_request *req = prev == NULL ? q->head : prev->next;

	if (prev == NULL)
		q->head = req->next;
	else
		prev->next = req->next;
	if (q->tail == req)
		q->tail = prev;
	req->next = NULL;
	return req;
}

static void relink_after(struct queue *q, struct rlog_request *prev, struct rlog_request *req)
{
	req->next = prev == NULL ? q->head : prev->next;
	if (prev == NULL)
		q->head = req;
	else
		prev->next = req;
	if (q->tail == prev)
		q->tail = req;
}

static void end(struct rlog_request *req, enum rlog_outcome outcome)
{
	rlog_buf_unref(req->buf);
	req->buf = NULL;
	req->done(req, outcome);
}

/* The first of those that wait, which nobody has seen, finds no room in the log. */
static void refuse_full(struct rlog_server *s)
{
	struct rlog_request *req = unlink_after(&s->waiting, NULL);

	req->error = -ENOSPC;
	end(req, RLOG_REFUSED);
}

/* ---- submission --------------------------------------------------------------------------- */

void rlog_server_submit(struct rlog_server *s, struct rlog_request *req)
{
	req->deadline_ms = s->now + s->commit_timeout_ms;
	req->error = 0;
	if (rlog_server_failed(s)) {
		end(req, RLOG_REFUSED);
		return;
	}
	push(&s->waiting, req);
}

static bool can_submit(const struct rlog_server *s)
{
	return rlog_server_leads(s) && !s->disk_full && !rlog_server_holds_submissions(s) &&
	       s->raft.leader_state.transferee == 0;
}

/* The first of those that wait, as one step; what would find no room in the log is not even begun. False:
 * none can be taken now. After a failure in the middle of the step a follower may have been sent them:
 * they are in flight, and end as UNKNOWN. */
static bool submit_some(struct rlog_server *s)
{
	struct rlog_request *first = s->waiting.head, *last = NULL;
	struct rlog_log_room room;
	uint64_t first_index, bytes = 0;
	size_t count = 0;
	int rv;

	rlog_log_room(s->log, &room);
	for (struct rlog_request *req = first; req != NULL && count < SUBMIT_MAX; req = req->next) {
		bytes += rlog_log_record_bytes(req->buf->len);
		/* What is larger than a segment gets one of its own. */
		if (bytes > room.bytes && room.beyond != 0 &&
		    (count > 0 || !room.idle || !room.spare))
			break;
		s->records[count++] = (struct rlog_record){.type = RAFT_COMMAND, .buf = req->buf};
		last = req;
	}
	if (count == 0) {
		if (room.beyond != -ENOSPC)
			return false;
		rlog_server_disk_full(s);
		s->refusing = true;
		refuse_full(s);
		return true;
	}
	if (s->refusing && room.spare) {
		s->refusing = false;
		rlog_server_log(s, 'I', "the log can grow again");
	}
	rv = rlog_server_submit_records(s, count, &first_index);
	if (rv == -EAGAIN)
		return false;
	s->waiting.head = last->next;
	if (s->waiting.head == NULL)
		s->waiting.tail = NULL;
	last->next = NULL;
	for (struct rlog_request *req = first, *next; req != NULL; req = next) {
		next = req->next;
		req->index = first_index++;
		req->term = s->records[0].term;
		rlog_buf_unref(req->buf); /* the log has its own */
		req->buf = NULL;
		push(&s->in_flight, req);
	}
	return true;
}

/* Those that wait go to libraft, or to whoever knows better, or stay until there is a leader. */
void rlog_server_submit_waiting(struct rlog_server *s)
{
	const char *address;

	while (s->waiting.head != NULL && !rlog_server_failed(s) && can_submit(s)) {
		if (rlog_server_scratch(s, SUBMIT_MAX) != 0) {
			rlog_server_fail(s, "out of memory");
			return;
		}
		if (!submit_some(s))
			break;
	}
	while (s->waiting.head != NULL && rlog_server_leads(s) && s->disk_full &&
	       !rlog_server_failed(s))
		refuse_full(s);
	if (rlog_server_failed(s) || rlog_server_leads(s) || rlog_server_leader(s, &address) == 0)
		return;
	while (s->waiting.head != NULL)
		end(unlink_after(&s->waiting, NULL), RLOG_REFUSED);
}

/* Deadlines never fall along either queue: all requests have the same timeout. */
void rlog_server_expire(struct rlog_server *s)
{
	while (s->waiting.head != NULL && s->waiting.head->deadline_ms <= s->now)
		end(unlink_after(&s->waiting, NULL), RLOG_REFUSED);
	while (s->in_flight.head != NULL && s->in_flight.head->deadline_ms <= s->now)
		end(unlink_after(&s->in_flight, NULL), RLOG_UNKNOWN);
}

void rlog_server_end_passed_over(struct rlog_server *s, uint64_t index)
{
	struct rlog_request *prev = NULL, *req = s->in_flight.head;

	while (req != NULL) {
		struct rlog_request *next = req->next;

		if (req->index <= index)
			end(unlink_after(&s->in_flight, prev), RLOG_UNKNOWN);
		else
			prev = req;
		req = next;
	}
}

void rlog_server_end_all(struct rlog_server *s)
{
	while (s->in_flight.head != NULL)
		end(unlink_after(&s->in_flight, NULL), RLOG_UNKNOWN);
	while (s->waiting.head != NULL)
		end(unlink_after(&s->waiting, NULL), RLOG_REFUSED);
}

/* ---- delivery ----------------------------------------------------------------------------- */

/* The request that made entry (index, term), unlinked, or NULL. `*behind` is where it was. */
static struct rlog_request *take(struct rlog_server *s, uint64_t index, uint64_t term,
				 struct rlog_request **behind)
{
	struct rlog_request *prev = NULL;

	for (struct rlog_request *req = s->in_flight.head; req != NULL;
	     prev = req, req = req->next) {
		if (req->index == index && req->term == term) {
			*behind = prev;
			return unlink_after(&s->in_flight, prev);
		}
		/* Indexes rise within one term: the common case ends at the head. */
		if (req->term > term || (req->term == term && req->index > index))
			break;
	}
	return NULL;
}

/* Entry (index, term) is committed and delivered: end what can never commit any more. */
static void refuse_dead(struct rlog_server *s, uint64_t index, uint64_t term)
{
	struct rlog_request *prev = NULL, *req = s->in_flight.head;

	if (req == NULL ||
	    (req->term == term && s->in_flight.tail->term == term && req->index > index))
		return;
	while (req != NULL) {
		struct rlog_request *next = req->next;

		if (req->index <= index || req->term < term)
			end(unlink_after(&s->in_flight, prev), RLOG_REFUSED);
		else
			prev = req;
		req = next;
	}
}

static int deliver_one(struct rlog_server *s, uint64_t index)
{
	struct rlog_request *req, *behind = NULL;
	struct rlog_record rec;
	size_t len;
	int rv;

	rv = rlog_log_describe(s->log, index, &rec.term, &rec.type, &len);
	if (rv == 0 && rec.type == RAFT_COMMAND) {
		rv = rlog_log_read(s->log, index, &rec);
		if (rv == 0) {
			req = take(s, index, rec.term, &behind);
			rv = s->cb.apply(s->ctx, index, rec.term, rec.buf, req);
			rlog_buf_unref(rec.buf);
			if (rv == -EAGAIN) {
				if (req != NULL)
					relink_after(&s->in_flight, behind, req);
				return rv;
			}
			assert(rv == 0);
		}
	}
	if (rv != 0) {
		rlog_server_fail(s, "cannot read the log: %s index=%llu", strerror(-rv),
				 (unsigned long long)index);
		return rv;
	}
	s->applied = index;
	refuse_dead(s, index, rec.term);
	return 0;
}

void rlog_server_view(struct rlog_server *s)
{
	struct rlog_view view = {.term = s->raft.current_term, .ready = rlog_server_ready(s)};
	const char *address;

	view.leader_id = rlog_server_leader(s, &address);
	view.role = s->raft.state == RAFT_LEADER      ? RLOG_LEADER
		    : s->raft.state == RAFT_CANDIDATE ? RLOG_CANDIDATE
						      : RLOG_FOLLOWER;
	if (view.role == s->view.role && view.ready == s->view.ready && view.term == s->view.term &&
	    view.leader_id == s->view.leader_id)
		return;
	if (view.role == RLOG_FOLLOWER && view.leader_id != 0 &&
	    (view.leader_id != s->view.leader_id || s->view.role != RLOG_FOLLOWER))
		rlog_server_log(s, 'I', "following node=%08llx address=%s term=%llu",
				(unsigned long long)view.leader_id, address,
				(unsigned long long)view.term);
	else if (view.role != RLOG_LEADER && s->view.role == RLOG_LEADER)
		rlog_server_log(s, 'W', "this node no longer leads term=%llu",
				(unsigned long long)view.term);
	s->view = view;
	s->cb.view(s->ctx, &view);
}

static bool is_caught_up(const struct rlog_server *s)
{
	if (rlog_server_leads(s))
		return rlog_server_ready(s);
	/* An entry of the leader's own term is committed after everything that earlier leaders
	 * committed, also what this leader did not yet know to be when it first spoke. */
	return s->catch_up_term == s->raft.current_term && s->catch_up_term != 0 &&
	       s->applied >= s->catch_up_index && s->applied > 0 &&
	       rlog_server_term_of(s, s->applied) == s->raft.current_term;
}

void rlog_server_deliver(struct rlog_server *s)
{
	const uint64_t before = s->applied;

	if (rlog_server_failed(s))
		return;
	rlog_server_view(s);
	for (unsigned i = 0; i < DELIVER_MAX && !s->stalled; i++) {
		uint64_t durable = rlog_log_durable(s->log);

		if (s->applied >= s->raft.commit_index || s->applied >= durable)
			break;
		if (deliver_one(s, s->applied + 1) == -EAGAIN)
			s->stalled = true;
		if (rlog_server_failed(s))
			return;
	}
	if (s->applied == before && s->caught_up)
		return;
	rlog_log_applied(s->log, s->applied);
	rlog_server_view(s);
	if (!s->caught_up && is_caught_up(s)) {
		s->caught_up = true;
		if (s->cb.caught_up != NULL)
			s->cb.caught_up(s->ctx);
	}
}

void rlog_server_resume(struct rlog_server *s)
{
	s->stalled = false;
}

int rlog_server_outcome_of(const struct rlog_server *s, uint64_t index, uint64_t term)
{
	uint64_t there = rlog_server_term_of(s, index);

	if (s->raft.commit_index < index)
		return 0;
	return there == term ? 1 : -ECANCELED;
}
