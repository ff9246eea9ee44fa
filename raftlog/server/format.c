/* Levels of formats: what the members read, what the log needs. format.h tells the rules.
 *
 * In the good case all members read the same level, messages say so, and nothing here does anything. During an
 * upgrade the lowest of them counts, as far as this node has heard: from greetings (rlog_server_reads()) and
 * from each message. The first entry of a higher level raises what the log needs, here and, ahead of the
 * entry, on each node that gets it: a leader's messages say what its log needs, and a follower notes that
 * before it looks at the entries. So whoever has an entry has noted its level, and so has the leader of any
 * later term if the entry was committed.
 *
 * What a leader noted and never got to send may be more than the cluster needs. That refuses nodes that could
 * have stayed, which an upgrade of these mends; the other way round would let a node meet an entry that it
 * does not read.
 */
#include "server/format.h"

#include <string.h>
#include "server/peers.h"

#define LOG_INTERVAL_MS 10000

unsigned rlog_server_needs(const struct rlog_server *s)
{
	return rlog_log_format(s->log);
}

unsigned rlog_server_format(const struct rlog_server *s)
{
	const struct raft_configuration *conf = &s->raft.configuration;
	const unsigned needs = rlog_server_needs(s);
	unsigned levels[RLOG_MEMBERS_MAX], count = 0, lowest;

	if (!rlog_server_leads(s))
		return needs;
	for (unsigned i = 0; i < conf->n && count < RLOG_MEMBERS_MAX; i++)
		levels[count++] = rlog_server_format_of(s, conf->servers[i].id);
	lowest = rlog_format_lowest(s->reads, levels, count);
	return lowest > needs ? lowest : needs;
}

void rlog_server_reads(struct rlog_server *s, uint64_t id, const char *address, unsigned level)
{
	struct peer *p;

	if (rlog_server_failed(s) || id == 0 || id == s->id)
		return;
	p = rlog_server_peer(s, id, address);
	if (p != NULL)
		p->reads = level;
}

bool rlog_server_format_allowed(const struct rlog_server *s, unsigned level)
{
	return level <= rlog_server_needs(s) ||
	       (level <= rlog_server_format(s) && level <= s->reads);
}

bool rlog_server_format_raise(struct rlog_server *s, unsigned level)
{
	int rv;

	if (level <= rlog_server_needs(s))
		return true;
	rv = rlog_log_raise_format(s->log, level);
	if (rv != 0) {
		rlog_server_fail(
			s,
			"cannot store the log's format level: %s; check the disk under the data "
			"directory, then start this node again",
			strerror(-rv));
		return false;
	}
	rlog_server_log(s, 'I',
			"the log has entries of a newer format now: nodes of versions before that "
			"are refused level=%u",
			level);
	return true;
}

void rlog_server_format_stamp(const struct rlog_server *s, struct rlog_message *m)
{
	m->reads = s->reads;
	m->needs = rlog_server_needs(s);
}

bool rlog_server_format_may_send(const struct rlog_server *s, const struct peer *p)
{
	return rlog_format_or_first(p->reads) >= rlog_server_needs(s);
}

/* What a leader says of its log is so of this one as soon as it follows. */
static bool is_of_a_leader(const struct rlog_server *s, const struct rlog_message *m)
{
	return (m->type == RLOG_MSG_APPEND && m->append.term >= s->raft.current_term) ||
	       (m->type == RLOG_MSG_NEEDS_STATE && m->needs_state.term == s->raft.current_term);
}

bool rlog_server_format_receive(struct rlog_server *s, struct peer *p, const struct rlog_message *m)
{
	p->reads = m->reads;
	if (m->needs > s->reads) {
		if (s->now < s->too_old_ms)
			return false;
		s->too_old_ms = s->now + LOG_INTERVAL_MS;
		rlog_server_log(s, 'W',
				"the log of another member has entries of a newer format than this "
				"version reads: upgrade this node node=%08llx level=%u reads=%u",
				(unsigned long long)p->id, m->needs, s->reads);
		return false;
	}
	return !is_of_a_leader(s, m) || rlog_server_format_raise(s, m->needs);
}
