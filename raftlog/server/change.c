/* Changes of who belongs to the cluster: adding and promoting.
 *
 * A node that asks to join is made a standby: it gets the log and counts for nothing. The leader
 * watches how far each standby is; one that has (nearly) all of the log and was heard within the
 * election timeout is made a voter. One change at a time, and none before this leadership's barrier
 * is committed: Raft's single-server changes are unsafe before that.
 */
#include "server/change.h"

#include <errno.h>
#include <string.h>
#include "base/configuration.h"
#include "server/peers.h"
#include "server/step.h"

#define PROMOTE_INTERVAL_MS 50
#define PROMOTE_BEHIND 16 /* entries a standby may lack */
#define MARK_MS 1000

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
	struct rlog_buf *buf = NULL;
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
		buf = rlog_configuration_encode(&conf);
	raft_configuration_close(&conf);
	if (rv == RAFT_DUPLICATEADDRESS)
		return -EADDRINUSE;
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
	server = rlog_configuration_find(conf, id);
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
		match = rlog_server_match(s, server->id);
		/* It must know itself that it is a member: see the votes of standbys in step.c. */
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

int rlog_server_outcome_of(const struct rlog_server *s, uint64_t index, uint64_t term)
{
	uint64_t there = rlog_server_term_of(s, index);

	if (s->raft.commit_index < index)
		return 0;
	return there == term ? 1 : -ECANCELED;
}
