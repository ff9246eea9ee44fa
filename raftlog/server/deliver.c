/* Delivery of what is committed, and the view of the cluster.
 *
 * Entries are delivered up to min(commit index, own durable index): a majority of others may
 * commit an entry before this disk has it, and an application that saw it must not find it gone
 * after a crash of this node.
 */
#include "server/base.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include "log/read.h"
#include "server/peers.h"
#include "server/requests.h"

#define DELIVER_MAX 1024 /* entries of one turn: heartbeats go on during a long catch-up */

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
			req = rlog_server_take(s, index, rec.term, &behind);
			rv = s->cb.apply(s->ctx, index, rec.term, rec.buf, req);
			rlog_buf_unref(rec.buf);
			if (rv == -EAGAIN) {
				if (req != NULL)
					rlog_server_put_back(s, behind, req);
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
	rlog_server_refuse_dead(s, index, rec.term);
	return 0;
}

static void tell_view(struct rlog_server *s)
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
	tell_view(s);
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
	tell_view(s);
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

bool rlog_server_has_deliveries(const struct rlog_server *s)
{
	return !s->stalled && s->applied < s->raft.commit_index &&
	       s->applied < rlog_log_durable(s->log);
}
