/* The connections between nodes, together: links.c for those that this node makes, accept.c for those that
 * others make, conn.c for what both are. */
#include "net/net.h"

#include <stdlib.h>
#include "net/accept.h"
#include "net/inside.h"
#include "net/join.h"
#include "net/links.h"

struct rlog_net *rlog_net_new(const struct rlog_net_config *config)
{
	struct rlog_net *net = calloc(1, sizeof *net);

	if (net != NULL)
		net->config = *config;
	return net;
}

void rlog_net_free(struct rlog_net *net)
{
	if (net == NULL)
		return;
	rlog_links_free(net);
	free(net);
}

void rlog_net_start(struct rlog_net *net, uint64_t now_ms)
{
	net->now = now_ms;
	rlog_accept_start(net);
}

void rlog_net_stop(struct rlog_net *net)
{
	struct rlog_conn *c;

	rlog_accept_stop(net);
	LIST_FOREACH (c, &net->conns, entry)
		rlog_conn_close(c);
	rlog_links_drop_all(net);
}

bool rlog_net_idle(const struct rlog_net *net)
{
	return LIST_EMPTY(&net->conns) && !net->accepting;
}

/* ---- time --------------------------------------------------------------------------------- */

void rlog_net_now(struct rlog_net *net, uint64_t now_ms)
{
	net->now = now_ms;
}

/* Is there something that it has to do by greet_until_ms? */
static bool is_timed(const struct rlog_conn *c)
{
	return !c->closing && c->state != CONN_SENDING && c->state != CONN_MEMBER;
}

uint64_t rlog_net_deadline(const struct rlog_net *net)
{
	uint64_t at = rlog_links_deadline(net);
	const struct rlog_conn *c;

	if (net->accept_ms != 0 && net->accept_ms < at)
		at = net->accept_ms;
	LIST_FOREACH (c, &net->conns, entry)
		if (is_timed(c) && c->greet_until_ms < at)
			at = c->greet_until_ms;
	return at;
}

void rlog_net_tick(struct rlog_net *net)
{
	struct rlog_conn *c;

	rlog_accept_tick(net);
	LIST_FOREACH (c, &net->conns, entry)
		if (is_timed(c) && c->greet_until_ms <= net->now)
			rlog_conn_close(c);
	rlog_links_tick(net);
}

void rlog_net_flush(struct rlog_net *net)
{
	struct rlog_conn *c;

	LIST_FOREACH (c, &net->conns, entry)
		rlog_conn_flush(c);
}

void rlog_net_answer_joiners(struct rlog_net *net)
{
	struct rlog_conn *c;

	LIST_FOREACH (c, &net->conns, entry)
		rlog_join_look(c);
}
