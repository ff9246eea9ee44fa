/* Requests from submission to their outcome.
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
 */
#include "server/requests.h"

#include <errno.h>
#include "log/segments.h"
#include "server/peers.h"
#include "server/step.h"
#include "server/transfer.h"
#include "server/write.h"

#define SUBMIT_MAX 1024 /* entries of one step */

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

void rlog_server_put_back(struct queue *q, struct rlog_request *prev, struct rlog_request *req)
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

/* ---- what a delivered entry says of them ---------------------------------------------------- */

/* The request that made entry (index, term), unlinked, or NULL. `*behind` is where it was. */
struct rlog_request *rlog_server_take(struct rlog_server *s, uint64_t index, uint64_t term,
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
void rlog_server_refuse_dead(struct rlog_server *s, uint64_t index, uint64_t term)
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
