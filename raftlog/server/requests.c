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
#include "server/format.h"
#include "server/peers.h"
#include "server/step.h"
#include "server/transfer.h"
#include "server/write.h"

#define SUBMIT_MAX 1024 /* entries of one step */

static void end(struct queue *q, struct rlog_request *req, enum rlog_outcome outcome)
{
	TAILQ_REMOVE(q, req, entry);
	rlog_buf_unref(req->buf);
	req->buf = NULL;
	req->done(req, outcome);
}

/* The first of those that wait, which nobody has seen, finds no room in the log (-ENOSPC), or is of a format
 * that a member does not read (-ENOTSUP). */
static void refuse_first(struct rlog_server *s, int error)
{
	TAILQ_FIRST(&s->waiting)->error = error;
	end(&s->waiting, TAILQ_FIRST(&s->waiting), RLOG_REFUSED);
}

/* ---- submission --------------------------------------------------------------------------- */

void rlog_server_submit(struct rlog_server *s, struct rlog_request *req)
{
	req->deadline_ms = s->now + s->commit_timeout_ms;
	req->error = 0;
	TAILQ_INSERT_TAIL(&s->waiting, req, entry);
	if (rlog_server_failed(s))
		end(&s->waiting, req, RLOG_REFUSED);
}

static bool can_submit(const struct rlog_server *s)
{
	return rlog_server_leads(s) && !s->disk_full && !rlog_server_holds_submissions(s) &&
	       s->raft.leader_state.transferee == 0;
}

static bool is_readable(const struct rlog_server *s, const struct rlog_request *req)
{
	return rlog_server_format_allowed(s, rlog_format_or_first(req->format));
}

/* Those at the front that go into one step, as records in the scratch; `*level` is the highest of theirs. */
static size_t gather(struct rlog_server *s, const struct rlog_log_room *room, unsigned *level)
{
	struct rlog_request *req;
	uint64_t bytes = 0;
	size_t count = 0;

	TAILQ_FOREACH (req, &s->waiting, entry) {
		if (count == SUBMIT_MAX || !is_readable(s, req))
			break;
		bytes += rlog_log_record_bytes(req->buf->len);
		/* What is larger than a segment gets one of its own. */
		if (bytes > room->bytes && room->beyond != 0 &&
		    (count > 0 || !room->idle || !room->spare))
			break;
		if (req->format > *level)
			*level = req->format;
		s->records[count++] = (struct rlog_record){.type = RAFT_COMMAND, .buf = req->buf};
	}
	return count;
}

/* The first of those that wait, as one step; what would find no room in the log is not even begun. False:
 * none can be taken now. After a failure in the middle of the step a follower may have been sent them:
 * they are in flight, and end as UNKNOWN. */
static bool submit_some(struct rlog_server *s)
{
	struct rlog_request *req;
	struct rlog_log_room room;
	unsigned level = 1;
	uint64_t first_index;
	size_t count;
	int rv;

	if (!is_readable(s, TAILQ_FIRST(&s->waiting))) {
		refuse_first(s, -ENOTSUP);
		return true;
	}
	rlog_log_room(s->log, &room);
	count = gather(s, &room, &level);
	if (count == 0) {
		if (room.beyond != -ENOSPC)
			return false;
		rlog_server_disk_full(s);
		s->refusing = true;
		refuse_first(s, -ENOSPC);
		return true;
	}
	if (!rlog_server_format_raise(s, level))
		return false;
	if (s->refusing && room.spare) {
		s->refusing = false;
		rlog_server_log(s, 'I', "the log can grow again");
	}
	rv = rlog_server_submit_records(s, count, &first_index);
	if (rv == -EAGAIN)
		return false;
	while (count-- > 0) {
		req = TAILQ_FIRST(&s->waiting);
		TAILQ_REMOVE(&s->waiting, req, entry);
		req->index = first_index++;
		req->term = s->records[0].term;
		rlog_buf_unref(req->buf); /* the log has its own */
		req->buf = NULL;
		TAILQ_INSERT_TAIL(&s->in_flight, req, entry);
	}
	return true;
}

/* Those that wait go to libraft, or to whoever knows better, or stay until there is a leader. */
void rlog_server_submit_waiting(struct rlog_server *s)
{
	const char *address;

	while (!TAILQ_EMPTY(&s->waiting) && !rlog_server_failed(s) && can_submit(s)) {
		if (rlog_server_scratch(s, SUBMIT_MAX) != 0) {
			rlog_server_fail(s, "out of memory");
			return;
		}
		if (!submit_some(s))
			break;
	}
	while (!TAILQ_EMPTY(&s->waiting) && rlog_server_leads(s) && s->disk_full &&
	       !rlog_server_failed(s))
		refuse_first(s, -ENOSPC);
	if (rlog_server_failed(s) || rlog_server_leads(s) || rlog_server_leader(s, &address) == 0)
		return;
	while (!TAILQ_EMPTY(&s->waiting))
		end(&s->waiting, TAILQ_FIRST(&s->waiting), RLOG_REFUSED);
}

/* Deadlines never fall along either queue: all requests have the same timeout. */
static void expire(struct rlog_server *s, struct queue *q, enum rlog_outcome outcome)
{
	while (!TAILQ_EMPTY(q) && TAILQ_FIRST(q)->deadline_ms <= s->now)
		end(q, TAILQ_FIRST(q), outcome);
}

void rlog_server_expire(struct rlog_server *s)
{
	expire(s, &s->waiting, RLOG_REFUSED);
	expire(s, &s->in_flight, RLOG_UNKNOWN);
}

void rlog_server_end_passed_over(struct rlog_server *s, uint64_t index)
{
	struct rlog_request *req, *next;

	for (req = TAILQ_FIRST(&s->in_flight); req != NULL; req = next) {
		next = TAILQ_NEXT(req, entry);
		if (req->index <= index)
			end(&s->in_flight, req, RLOG_UNKNOWN);
	}
}

void rlog_server_end_all(struct rlog_server *s)
{
	while (!TAILQ_EMPTY(&s->in_flight))
		end(&s->in_flight, TAILQ_FIRST(&s->in_flight), RLOG_UNKNOWN);
	while (!TAILQ_EMPTY(&s->waiting))
		end(&s->waiting, TAILQ_FIRST(&s->waiting), RLOG_REFUSED);
}

/* ---- what a delivered entry says of them ---------------------------------------------------- */

/* The request that made entry (index, term), unlinked, or NULL. `*behind` is where it was. */
struct rlog_request *rlog_server_take(struct rlog_server *s, uint64_t index, uint64_t term,
				      struct rlog_request **behind)
{
	struct rlog_request *req;

	TAILQ_FOREACH (req, &s->in_flight, entry) {
		if (req->index == index && req->term == term) {
			*behind = TAILQ_PREV(req, queue, entry);
			TAILQ_REMOVE(&s->in_flight, req, entry);
			return req;
		}
		/* Indexes rise within one term: the common case ends at the head. */
		if (req->term > term || (req->term == term && req->index > index))
			break;
	}
	return NULL;
}

void rlog_server_put_back(struct rlog_server *s, struct rlog_request *behind,
			  struct rlog_request *req)
{
	if (behind == NULL)
		TAILQ_INSERT_HEAD(&s->in_flight, req, entry);
	else
		TAILQ_INSERT_AFTER(&s->in_flight, behind, req, entry);
}

void rlog_server_refuse_dead(struct rlog_server *s, uint64_t index, uint64_t term)
{
	struct rlog_request *req = TAILQ_FIRST(&s->in_flight), *next;

	if (req == NULL || (req->term == term && TAILQ_LAST(&s->in_flight, queue)->term == term &&
			    req->index > index))
		return;
	for (; req != NULL; req = next) {
		next = TAILQ_NEXT(req, entry);
		if (req->index <= index || req->term < term)
			end(&s->in_flight, req, RLOG_REFUSED);
	}
}
