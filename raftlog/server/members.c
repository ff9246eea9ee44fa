/* Who belongs to the cluster: adding, promoting, and handing leadership over.
 *
 * A node that asks to join is made a standby: it gets the log and counts for nothing. The leader
 * watches how far each standby is; one that has (nearly) all of the log and was heard within the
 * election timeout is made a voter. One change at a time, and none before this leadership's barrier
 * is committed: Raft's single-server changes are unsafe before that.
 *
 * A hand-over keeps new submissions back once the target is close, waits until it has everything,
 * and only then lets libraft send it on its way: libraft itself would send it when it has what it
 * had acknowledged, and the target ignores that when there is more. Only a target that was heard within
 * the election timeout is worth that: nobody writes meanwhile.
 */
#include <errno.h>
#include <string.h>
#include "server/server_internal.h"

#define PROMOTE_INTERVAL_MS 50
#define PROMOTE_BEHIND 16 /* entries a standby may lack */
#define MARK_MS 1000
#define HOLD_BEHIND 256 /* entries a transfer's target may lack when submissions stop */

static const struct raft_server *find(const struct rlog_server *s, uint64_t id)
{
	const struct raft_configuration *conf = &s->raft.configuration;

	for (unsigned i = 0; i < conf->n; i++)
		if (conf->servers[i].id == id)
			return &conf->servers[i];
	return NULL;
}

static uint64_t match_of(const struct rlog_server *s, uint64_t id)
{
	raft_index index;

	return raft_match_index(&s->raft, id, &index) == 0 ? index : 0;
}

/* Within the election timeout. */
bool rlog_server_heard(const struct rlog_server *s, uint64_t id)
{
	for (unsigned i = 0; i < s->peer_count; i++)
		if (s->peers[i].id == id)
			return s->peers[i].heard_ms != 0 &&
			       s->now - s->peers[i].heard_ms < s->raft.election_timeout;
	return false;
}

bool rlog_server_sole_voter(const struct rlog_server *s)
{
	const struct raft_configuration *conf = &s->raft.configuration;
	unsigned voters = 0;
	bool self = false;

	for (unsigned i = 0; i < conf->n; i++) {
		if (conf->servers[i].role != RAFT_VOTER)
			continue;
		voters++;
		self = self || conf->servers[i].id == s->raft.id;
	}
	return self && voters == 1;
}

/* Called after every step: notices a membership that came with an entry, or left with one. */
void rlog_server_members_changed(struct rlog_server *s)
{
	const struct raft *r = &s->raft;

	if (s->conf_uncommitted == r->configuration_uncommitted_index &&
	    s->conf_committed == r->configuration_committed_index)
		return;
	s->conf_uncommitted = r->configuration_uncommitted_index;
	s->conf_committed = r->configuration_committed_index;
	for (unsigned i = 0; i < s->peer_count;) {
		const struct raft_server *server = find(s, s->peers[i].id);
		const char *leader;

		if (server == NULL && s->peers[i].id != rlog_server_leader(s, &leader)) {
			s->peers[i] = s->peers[--s->peer_count];
			continue;
		}
		i++;
	}
	s->promote_ms = s->now;
	s->io.members(s->io.ctx);
}

unsigned rlog_server_members(const struct rlog_server *s, struct rlog_member out[RLOG_MEMBERS_MAX])
{
	const struct raft_configuration *conf = &s->raft.configuration;
	unsigned count = 0;

	for (unsigned i = 0; i < conf->n && count < RLOG_MEMBERS_MAX; i++) {
		const struct raft_server *server = &conf->servers[i];
		struct rlog_member *member = &out[count++];

		memset(member, 0, sizeof *member);
		member->id = server->id;
		strncpy(member->address, server->address, sizeof member->address - 1);
		member->role = server->role == RAFT_VOTER     ? RLOG_VOTER
			       : server->role == RAFT_STANDBY ? RLOG_STANDBY
							      : RLOG_SPARE;
		member->match_index = match_of(s, server->id);
		member->connected =
			server->id == s->raft.id ||
			(s->io.connected != NULL && s->io.connected(s->io.ctx, server->id));
	}
	return count;
}

/* ---- changes ------------------------------------------------------------------------------ */

static bool can_change(const struct rlog_server *s)
{
	return rlog_server_ready(s) && !s->transferring && !s->disk_full &&
	       s->raft.leader_state.transferee == 0 && s->raft.configuration_uncommitted_index == 0;
}

/* Submit the present membership with node `id` set to `role` and `address`. */
static int change(struct rlog_server *s, uint64_t id, const char *address, int role,
		  uint64_t *index)
{
	struct raft_configuration conf;
	struct raft_buffer encoded;
	struct rlog_buf *buf;
	bool found = false;
	int rv = 0;

	raft_configuration_init(&conf);
	for (unsigned i = 0; i < s->raft.configuration.n && rv == 0; i++) {
		const struct raft_server *server = &s->raft.configuration.servers[i];
		bool it = server->id == id;

		found = found || it;
		rv = raft_configuration_add(&conf, server->id, it ? address : server->address,
					    it ? role : server->role);
	}
	if (rv == 0 && !found)
		rv = raft_configuration_add(&conf, id, address, role);
	if (rv == 0)
		rv = raft_configuration_encode(&conf, &encoded);
	raft_configuration_close(&conf);
	if (rv != 0)
		return rv == RAFT_DUPLICATEADDRESS ? -EADDRINUSE : -ENOMEM;

	buf = rlog_buf_new(encoded.len);
	if (buf != NULL)
		memcpy(buf->data, encoded.base, encoded.len);
	raft_free(encoded.base);
	if (buf == NULL || rlog_server_scratch(s, 1) != 0) {
		rlog_buf_unref(buf);
		return -ENOMEM;
	}
	s->records[0] = (struct rlog_record){.type = RAFT_CHANGE, .buf = buf};
	rv = rlog_server_submit_records(s, 1, index);
	rlog_buf_unref(buf);
	return rv;
}

int rlog_server_add(struct rlog_server *s, uint64_t id, const char *address, uint64_t *index,
		    uint64_t *term)
{
	const struct raft_configuration *conf = &s->raft.configuration;
	const struct raft_server *server;
	int rv;

	if (rlog_server_failed(s) || !rlog_server_ready(s))
		return -EAGAIN;
	for (unsigned i = 0; i < conf->n; i++)
		if (conf->servers[i].id != id && strcmp(conf->servers[i].address, address) == 0)
			return -EADDRINUSE;
	if (!can_change(s))
		return -EAGAIN;
	server = find(s, id);
	if (server != NULL && strcmp(server->address, address) == 0)
		return -EALREADY;
	if (server == NULL && conf->n >= RLOG_MEMBERS_MAX)
		return -ENFILE;
	rv = change(s, id, address, server != NULL ? server->role : RAFT_STANDBY, index);
	*term = s->raft.current_term;
	if (rv == 0)
		rlog_server_log(s, 'I', "adding node=%08llx address=%s", (unsigned long long)id,
				address);
	return rv;
}

/* Promote a standby, or follow this node's own new address. */
void rlog_server_members_tick(struct rlog_server *s)
{
	const struct raft_configuration *conf = &s->raft.configuration;
	const uint64_t last = rlog_log_last(s->log);
	uint64_t index;
	bool waiting = false;

	if (s->now < s->promote_ms)
		return;
	s->promote_ms = NEVER;
	if (!rlog_server_leads(s))
		return; /* becoming the leader changes led_term, and rlog_server_step() asks again */
	if (s->now - s->mark_ms >= MARK_MS) {
		s->marks[1] = s->marks[0] != 0 ? s->marks[0] : last;
		s->marks[0] = last;
		s->mark_ms = s->now;
	}
	for (unsigned i = 0; i < conf->n; i++) {
		const struct raft_server *server = &conf->servers[i];
		uint64_t match;

		if (server->id == s->raft.id && strcmp(server->address, s->address) != 0) {
			waiting = true;
			if (can_change(s)) {
				change(s, server->id, s->address, server->role, &index);
				break;
			}
		}
		if (server->role != RAFT_STANDBY)
			continue;
		waiting = true;
		match = match_of(s, server->id);
		/* It must know itself that it is a member: see the votes of standbys in server.c. */
		if (!can_change(s) || match < s->raft.configuration_committed_index ||
		    !rlog_server_heard(s, server->id) ||
		    (match + PROMOTE_BEHIND < last && match < s->marks[1]))
			continue;
		rlog_server_log(s, 'I', "promoting node=%08llx to voter match_index=%llu",
				(unsigned long long)server->id, (unsigned long long)match);
		change(s, server->id, server->address, RAFT_VOTER, &index);
		break; /* `conf` is another one now */
	}
	if (waiting)
		s->promote_ms = s->now + PROMOTE_INTERVAL_MS;
}

/* ---- transfer ----------------------------------------------------------------------------- */

/* Whom to hand over to, of the voters that answer: the one asked for, else that which has most of the log.
 * 0: none. */
static uint64_t transfer_target(const struct rlog_server *s)
{
	const struct raft_configuration *conf = &s->raft.configuration;
	uint64_t best = 0, best_match = 0;

	for (unsigned i = 0; i < conf->n; i++) {
		const struct raft_server *server = &conf->servers[i];
		uint64_t match = match_of(s, server->id);

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

	if (s->raft.leader_state.transferee != 0 || match_of(s, target) != rlog_log_last(s->log))
		return;
	event.transfer.server_id = target;
	s->transfer_fired = rlog_server_step(s, &event, NULL, NULL, NULL, NULL) == 0;
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
	if (s->hold_until_ms == 0 && match_of(s, target) + HOLD_BEHIND >= rlog_log_last(s->log))
		s->hold_until_ms = s->now + s->raft.election_timeout;
	if (!s->transfer_fired)
		fire(s, target);
}
