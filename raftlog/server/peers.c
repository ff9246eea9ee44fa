/* Other nodes: those that this one talks to, and the members. */
#include "server/peers.h"

#include <string.h>

static bool is_member(const struct rlog_server *s, uint64_t id)
{
	const struct raft_configuration *conf = &s->raft.configuration;

	for (unsigned i = 0; i < conf->n; i++)
		if (conf->servers[i].id == id)
			return true;
	return false;
}

/* The peer `id`, made when it is not known; its address follows `address`. NULL when there is no
 * room for one more, which only strangers can bring about. */
struct peer *rlog_server_peer(struct rlog_server *s, uint64_t id, const char *address)
{
	struct peer *p = NULL;

	if (strlen(address) >= RLOG_ADDRESS_MAX)
		return NULL;
	for (unsigned i = 0; i < s->peer_count && p == NULL; i++)
		if (s->peers[i].id == id)
			p = &s->peers[i];
	if (p == NULL) {
		if (s->peer_count == sizeof s->peers / sizeof s->peers[0]) {
			/* Whoever is not a member makes place. */
			for (unsigned i = 0; i < s->peer_count && p == NULL; i++)
				if (!is_member(s, s->peers[i].id))
					p = &s->peers[i];
			if (p == NULL)
				return NULL;
		} else {
			p = &s->peers[s->peer_count++];
		}
		memset(p, 0, sizeof *p);
		p->id = id;
	}
	if (strcmp(p->address, address) != 0)
		memmove(p->address, address, strlen(address) + 1);
	return p;
}

const struct raft_server *rlog_server_member(const struct rlog_server *s, uint64_t id)
{
	const struct raft_configuration *conf = &s->raft.configuration;

	for (unsigned i = 0; i < conf->n; i++)
		if (conf->servers[i].id == id)
			return &conf->servers[i];
	return NULL;
}

uint64_t rlog_server_match(const struct rlog_server *s, uint64_t id)
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
		const struct raft_server *server = rlog_server_member(s, s->peers[i].id);
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
		member->match_index = rlog_server_match(s, server->id);
		member->connected =
			server->id == s->raft.id ||
			(s->io.connected != NULL && s->io.connected(s->io.ctx, server->id));
	}
	return count;
}

uint64_t rlog_server_leader(const struct rlog_server *s, const char **address)
{
	const struct raft *r = &s->raft;

	*address = "";
	if (r->state == RAFT_LEADER) {
		*address = s->address;
		return r->id;
	}
	if (r->state == RAFT_FOLLOWER && r->follower_state.current_leader.id != 0) {
		if (r->follower_state.current_leader.address != NULL)
			*address = r->follower_state.current_leader.address;
		return r->follower_state.current_leader.id;
	}
	return 0;
}
