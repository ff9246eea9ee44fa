/* Levels of formats in greetings: a node that reads less than what the log needs is not talked to. */
#include "net/levels.h"

#include "net/inside.h"
#include "net/line.h"

static unsigned needs(const struct rlog_net *net)
{
	return net->config.owner.needs(net->config.owner.ctx);
}

void rlog_net_stamp(const struct rlog_net *net, struct rlog_message *m)
{
	m->reads = net->config.self.format_reads;
	m->needs = needs(net);
}

bool rlog_net_reads_enough(const struct rlog_net *net, const struct rlog_message *m)
{
	return rlog_format_or_first(m->reads) >= needs(net);
}

void rlog_net_line_older(struct rlog_net *net, uint64_t id, const char *address,
			 const struct rlog_message *m)
{
	if (rlog_net_may_log(net, &net->older_logged_ms))
		rlog_net_line(net, 'W',
			      "refused a node of an older version, which does not read this log: "
			      "upgrade that node node=%08llx address=%s reads=%u level=%u",
			      (unsigned long long)id, address, rlog_format_or_first(m->reads),
			      needs(net));
}

void rlog_net_line_too_old(struct rlog_net *net, uint64_t id, const char *address,
			   const struct rlog_message *m)
{
	if (rlog_net_may_log(net, &net->older_logged_ms))
		rlog_net_line(
			net, 'W',
			"refused by a member: its log has entries of a newer format than this "
			"version reads: upgrade this node node=%08llx address=%s reads=%u "
			"level=%u",
			(unsigned long long)id, address, net->config.self.format_reads, m->needs);
}
