/* Handing leadership over.
 *
 * A hand-over keeps new submissions back once the target is close, waits until it has everything,
 * and only then lets libraft send it on its way: libraft itself would send it when it has what it
 * had acknowledged, and the target ignores that when there is more. Only a target that was heard within
 * the election timeout is worth that: nobody writes meanwhile.
 */
#include "server/transfer.h"

#include <errno.h>
#include "server/peers.h"
#include "server/step.h"

#define HOLD_BEHIND 256 /* entries a transfer's target may lack when submissions stop */

/* Whom to hand over to, of the voters that answer: the one asked for, else that which has most of the log.
 * 0: none. */
static uint64_t transfer_target(const struct rlog_server *s)
{
	const struct raft_configuration *conf = &s->raft.configuration;
	uint64_t best = 0, best_match = 0;

	for (unsigned i = 0; i < conf->n; i++) {
		const struct raft_server *server = &conf->servers[i];
		uint64_t match = rlog_server_match(s, server->id);

		if (server->id == s->raft.id || server->role != RAFT_VOTER ||
		    (s->transfer_to != 0 && server->id != s->transfer_to) ||
		    !rlog_server_heard(s, server->id))
			continue;
		if (best == 0 || match > best_match) {
			best = server->id;
			best_match = match;
		}
	}
	return best;
}

/* Has this node led for so long that whoever answers its heartbeats was heard? */
static bool knows_who_answers(const struct rlog_server *s)
{
	return s->now - s->led_since_ms >= s->raft.election_timeout;
}

/* Submissions go on. What the target was sent already it may still heed: it becomes a candidate then, as any
 * node may at any time. */
static void end_hold(struct rlog_server *s)
{
	if (s->raft.state == RAFT_LEADER) {
		s->raft.leader_state.transferee = 0;
		s->raft.leader_state.transferring = false;
	}
	s->transfer_fired = false;
	s->hold_until_ms = 0;
	s->rest_until_ms = s->now + s->raft.election_timeout;
}

static void end_transfer(struct rlog_server *s, int result)
{
	end_hold(s);
	s->transferring = false;
	s->transfer_result = result;
	if (result != 0)
		rlog_server_log(s, 'W', "leadership stays here: %s node=%08llx",
				result == -EHOSTUNREACH ? "no other node answers"
							: "no other node took it in time",
				(unsigned long long)s->transfer_to);
}

int rlog_server_transfer(struct rlog_server *s, uint64_t id, unsigned timeout_ms)
{
	const struct raft_configuration *conf = &s->raft.configuration;
	bool found = false;

	if (rlog_server_failed(s) || !rlog_server_leads(s))
		return -EALREADY;
	for (unsigned i = 0; i < conf->n; i++)
		if (conf->servers[i].role == RAFT_VOTER && conf->servers[i].id != s->raft.id &&
		    (id == 0 || conf->servers[i].id == id))
			found = true;
	if (!found)
		return -ENOENT;
	if (s->transferring)
		return -EBUSY;
	s->transfer_to = id;
	if (transfer_target(s) == 0 && knows_who_answers(s))
		return -EHOSTUNREACH;
	s->transferring = true;
	s->transfer_fired = false;
	s->hold_until_ms = s->rest_until_ms = 0;
	s->transfer_until_ms = s->now + timeout_ms;
	s->transfer_result = 0;
	return 0;
}

int rlog_server_transfer_result(const struct rlog_server *s)
{
	return s->transferring || !rlog_server_leads(s) ? 0 : s->transfer_result;
}

bool rlog_server_holds_submissions(const struct rlog_server *s)
{
	return s->transferring && s->hold_until_ms != 0;
}

uint64_t rlog_server_transfer_deadline(const struct rlog_server *s)
{
	uint64_t at = s->transfer_until_ms;

	if (s->hold_until_ms != 0 && s->hold_until_ms < at)
		at = s->hold_until_ms;
	if (s->rest_until_ms > s->now && s->rest_until_ms < at)
		at = s->rest_until_ms;
	return at;
}

/* Send the target on its way, once it has everything. */
static void fire(struct rlog_server *s, uint64_t target)
{
	struct raft_event event = {.type = RAFT_TRANSFER};

	if (s->raft.leader_state.transferee != 0 ||
	    rlog_server_match(s, target) != rlog_log_last(s->log))
		return;
	event.transfer.server_id = target;
	s->transfer_fired = rlog_server_step(s, &event, NULL, NULL, NULL) == 0;
	rlog_server_log(s, 'I', "handing leadership over node=%08llx", (unsigned long long)target);
}

/* An attempt holds submissions back for an election timeout at most: whoever lives has taken over by then.
 * After it they go on for as long, and then, until the transfer's time is over, comes the next. A target
 * that falls silent ends all at once. */
void rlog_server_transfer_turn(struct rlog_server *s)
{
	uint64_t target;

	if (!s->transferring)
		return;
	if (!rlog_server_leads(s)) {
		end_transfer(s, 0);
		return;
	}
	target = transfer_target(s);
	if (target == 0 && knows_who_answers(s)) {
		end_transfer(s, -EHOSTUNREACH);
		return;
	}
	if (s->now >= s->transfer_until_ms) {
		end_transfer(s, -ETIMEDOUT);
		return;
	}
	if (s->hold_until_ms != 0 && s->now >= s->hold_until_ms)
		end_hold(s);
	if (target == 0 || s->now < s->rest_until_ms)
		return;
	if (s->hold_until_ms == 0 &&
	    rlog_server_match(s, target) + HOLD_BEHIND >= rlog_log_last(s->log))
		s->hold_until_ms = s->now + s->raft.election_timeout;
	if (!s->transfer_fired)
		fire(s, target);
}
