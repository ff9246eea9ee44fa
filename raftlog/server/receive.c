/* Messages in. */
#include "server/base.h"

#include "base/configuration.h"
#include "log/compact.h"
#include "log/snapshot.h"
#include "server/format.h"
#include "server/peers.h"
#include "server/send.h"
#include "server/snapshot.h"
#include "server/step.h"

/* Give libraft entries [from, to) of an AppendEntries message; `message` has its sender. */
static void receive_part(struct rlog_server *s, struct raft_message message,
			 const struct rlog_message *m, unsigned from, unsigned to)
{
	struct rlog_record *records = m->append.records;
	struct raft_event event = {.type = RAFT_RECEIVE};
	bool took = false;
	char *token = NULL;
	int rv;

	if (to > from) {
		token = raft_malloc(1);
		if (token == NULL) {
			rlog_server_fail(s, "out of memory");
			return;
		}
	}
	for (unsigned i = from; i < to; i++) {
		s->entries[i].term = records[i].term;
		s->entries[i].type = (enum raft_entry_type)records[i].type;
		s->entries[i].buf.base = records[i].buf->data;
		s->entries[i].buf.len = records[i].buf->len;
		s->entries[i].batch = token;
	}
	message.append_entries = (struct raft_append_entries){
		.term = m->append.term,
		.prev_log_index = m->append.prev_index + from,
		.prev_log_term = from == 0 ? m->append.prev_term : records[from - 1].term,
		.leader_commit = m->append.leader_commit,
		.entries = s->entries + from,
		.n_entries = to - from,
	};
	event.receive.message = &message;
	rv = rlog_server_step(s, &event, s->entries, records, &took);
	if (rv != 0) /* the token is gone already */
		rlog_server_fail(
			s,
			"raft cannot go on after a message of node %08llx: %s; if this node's "
			"data directory was restored from a copy, remove it and join again",
			(unsigned long long)message.server_id, raft_strerror(rv));
	else if (took)
		raft_free(token);
}

/* The part of an AppendEntries message that is behind the snapshot, when it begins in front of the log. Its
 * leader is in the term in which the snapshot was taken or a later one, so it has the snapshot's entries:
 * an empty message that says so stands for one that ends in front of it. */
static void step_over(const struct rlog_server *s, struct rlog_message *m)
{
	const struct rlog_snapshot *snapshot = rlog_log_snapshot(s->log);
	const uint64_t prev = m->append.prev_index;
	uint64_t skip;

	if (snapshot == NULL || prev >= snapshot->index ||
	    (prev == 0 ? rlog_log_first(s->log) == 1 : rlog_server_term_of(s, prev) != 0))
		return;
	skip = snapshot->index - prev;
	m->append.prev_index = snapshot->index;
	m->append.prev_term = snapshot->term;
	if (skip > m->append.count) {
		m->append.count = 0;
		return;
	}
	m->append.prev_term = m->append.records[skip - 1].term; /* which libraft compares */
	m->append.records += skip;
	m->append.count -= (unsigned)skip;
}

static void receive_append(struct rlog_server *s, uint64_t from_id, const char *address,
			   const struct rlog_message *whole)
{
	struct rlog_message part = *whole; /* its records stay those of the whole */
	const struct rlog_message *m = &part;
	const struct raft_message message = {.type = RAFT_APPEND_ENTRIES,
					     .server_id = from_id,
					     .server_address = address};
	const struct raft *r = &s->raft;
	unsigned from = 0, count;

	step_over(s, &part);
	count = m->append.count;
	if (r->state == RAFT_LEADER && m->append.term == r->current_term) {
		rlog_server_fail(
			s,
			"node %08llx leads term %llu too: a node runs twice or was restored from "
			"an old copy; stop it, remove its data directory and join it again",
			(unsigned long long)from_id, (unsigned long long)m->append.term);
		return;
	}
	if (rlog_server_scratch(s, count) != 0) {
		rlog_server_fail(s, "out of memory");
		return;
	}
	do {
		unsigned to = from;

		if (count > 0) {
			to = from + 1;
			while (to < count && m->append.records[to].type != RAFT_CHANGE)
				to++;
			if (m->append.records[from].type == RAFT_CHANGE &&
			    r->configuration_uncommitted_index != 0)
				receive_part(s, message, m, from, from);
		}
		if (!rlog_server_failed(s))
			receive_part(s, message, m, from, to);
		from = to;
	} while (from < count && !rlog_server_failed(s));

	/* What a node must have applied to serve what its leader had committed. */
	if (!rlog_server_failed(s) && r->state == RAFT_FOLLOWER &&
	    r->current_term == m->append.term && r->follower_state.match > 0 &&
	    s->catch_up_term != m->append.term &&
	    r->follower_state.match >= m->append.prev_index + count) {
		s->catch_up_term = m->append.term;
		s->catch_up_index = m->append.leader_commit;
	}
}

/* The leader is silent, or is the one that asks for the vote: a standby, which has no election timer
 * that would do this, forgets it. */
static void forget_silent_leader(struct rlog_server *s, uint64_t candidate)
{
	struct raft *r = &s->raft;
	const uint64_t leader = r->follower_state.current_leader.id;

	if (leader == 0 || (leader != candidate && rlog_server_heard(s, leader)))
		return;
	raft_free(r->follower_state.current_leader.address);
	r->follower_state.current_leader.address = NULL;
	r->follower_state.current_leader.id = 0;
}

static int step_vote(struct rlog_server *s, struct raft_event *event, uint64_t candidate)
{
	struct raft_server *self = rlog_configuration_find(&s->raft.configuration, s->raft.id);
	int role, rv;

	if (self == NULL || self->role == RAFT_VOTER || s->raft.state != RAFT_FOLLOWER)
		return rlog_server_step(s, event, NULL, NULL, NULL);
	forget_silent_leader(s, candidate);
	role = self->role;
	self->role = RAFT_VOTER;
	rv = rlog_server_step(s, event, NULL, NULL, NULL);
	self = rlog_configuration_find(&s->raft.configuration, s->raft.id);
	if (self != NULL)
		self->role = role;
	return rv;
}

/* Would libraft misread this message in its present state? */
static bool unwelcome(const struct rlog_server *s, uint64_t from_id, const struct rlog_message *m)
{
	const struct raft *r = &s->raft;

	switch (m->type) {
	case RLOG_MSG_VOTE:
		return m->vote.candidate_id != from_id;
	case RLOG_MSG_VOTE_RESULT:
		return r->state != RAFT_CANDIDATE ||
		       (m->vote_result.pre_vote && !r->candidate_state.in_pre_vote);
	case RLOG_MSG_APPEND_RESULT:
		return r->state != RAFT_LEADER;
	case RLOG_MSG_TIMEOUT_NOW:
		/* The only voter would lead without a vote, so without a new term. */
		return rlog_server_sole_voter(s);
	default:
		return false;
	}
}

void rlog_server_receive(struct rlog_server *s, uint64_t from, const char *address,
			 struct rlog_message *m)
{
	struct raft_message message = {.server_id = from, .server_address = address};
	struct raft_event event = {.type = RAFT_RECEIVE};
	struct peer *p;
	int rv;

	if (rlog_server_failed(s) || from == 0 || from == s->raft.id)
		goto out;
	p = rlog_server_peer(s, from, address);
	if (p == NULL || !rlog_server_format_receive(s, p, m))
		goto out;
	p->heard_ms = s->now;
	if (unwelcome(s, from, m))
		goto out;
	switch (m->type) {
	case RLOG_MSG_APPEND:
		receive_append(s, from, address, m);
		goto out;
	case RLOG_MSG_APPEND_RESULT:
		message.type = RAFT_APPEND_ENTRIES_RESULT;
		message.append_entries_result = m->append_result;
		break;
	case RLOG_MSG_VOTE:
		message.type = RAFT_REQUEST_VOTE;
		message.request_vote = m->vote;
		break;
	case RLOG_MSG_VOTE_RESULT:
		message.type = RAFT_REQUEST_VOTE_RESULT;
		message.request_vote_result = m->vote_result;
		break;
	case RLOG_MSG_TIMEOUT_NOW:
		message.type = RAFT_TIMEOUT_NOW;
		message.timeout_now = m->timeout_now;
		break;
	case RLOG_MSG_NEEDS_STATE:
		rlog_server_needs_state(s, from, address, m);
		goto out;
	default:
		goto out;
	}
	event.receive.message = &message;
	rv = m->type == RLOG_MSG_VOTE ? step_vote(s, &event, from)
				      : rlog_server_step(s, &event, NULL, NULL, NULL);
	if (rv != 0)
		rlog_server_fail(s, "raft cannot go on after a message of node %08llx: %s",
				 (unsigned long long)from, raft_strerror(rv));
out:
	rlog_message_clear(m);
}

void rlog_server_hears(struct rlog_server *s, uint64_t from, const char *address)
{
	if (!rlog_server_failed(s) && s->raft.state == RAFT_FOLLOWER &&
	    s->raft.follower_state.current_leader.id == from)
		rlog_server_keepalive(s, from, address);
}
