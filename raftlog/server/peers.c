/* Other nodes: those that this one talks to, and the members. */
#include "server/peers.h"

#include <string.h>
#include "base/configuration.h"

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
				if (rlog_configuration_find(&s->raft.configuration,
							    s->peers[i].id) == NULL)
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
	return rlog_configuration_sole_voter(&s->raft.configuration, s->raft.id);
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
		const uint64_t id = s->peers[i].id;
		const char *leader;

		if (rlog_configuration_find(&r->configuration, id) == NULL &&
		    id != rlog_server_leader(s, &leader)) {
			s->peers[i] = s->peers[--s->peer_count];
			continue;
		}
		i++;
	}
	s->promote_ms = s->now;
	s->io.members(s->io.ctx);
}

unsigned rlog_server_format_of(const struct rlog_server *s, uint64_t id)
{
	if (id == s->id)
		return s->reads;
	for (unsigned i = 0; i < s->peer_count; i++)
		if (s->peers[i].id == id)
			return rlog_format_or_first(s->peers[i].reads);
	return 1;
}

unsigned rlog_server_members(const struct rlog_server *s, struct rlog_member out[RLOG_MEMBERS_MAX])
{
	const unsigned count = rlog_configuration_members(&s->raft.configuration, out);

	for (unsigned i = 0; i < count; i++) {
		out[i].match_index = rlog_server_match(s, out[i].id);
		out[i].format_reads = rlog_server_format_of(s, out[i].id);
		out[i].connected =
			out[i].id == s->raft.id ||
			(s->io.connected != NULL && s->io.connected(s->io.ctx, out[i].id));
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
