/* Levels of formats in greetings (format.h). */
#ifndef RAFTLOG_NET_LEVELS_H
#define RAFTLOG_NET_LEVELS_H

#include "net/net.h"

/* Put this node's levels into a message of its own. */
void rlog_net_stamp(const struct rlog_net *net, struct rlog_message *m);
/* Does the sender of a greeting read what this node's log needs? */
bool rlog_net_reads_enough(const struct rlog_net *net, const struct rlog_message *m);
/* The line about a node at `address` that does not, and about one that says so of this node. */
void rlog_net_line_older(struct rlog_net *net, uint64_t id, const char *address,
			 const struct rlog_message *m);
void rlog_net_line_too_old(struct rlog_net *net, uint64_t id, const char *address,
			   const struct rlog_message *m);

#endif
