/* Log lines of the connections. */
#ifndef RAFTLOG_NET_LINE_H
#define RAFTLOG_NET_LINE_H

#include "net/net.h"

void rlog_net_line(const struct rlog_net *net, char level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* One line now and then, not one per attempt: may there be one, when the last was at `*logged_ms` (0: none
 * was)? It is now, then. */
bool rlog_net_may_log(const struct rlog_net *net, uint64_t *logged_ms);
/* A connection to or of node `id` is closed with `error`: why what came on it is of no use, or 0 (no line). */
void rlog_net_line_closed(struct rlog_net *net, uint64_t id, const char *address, int error);

#endif
