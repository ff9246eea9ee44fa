/* Connections that others make: accepted, and greeted. */
#ifndef RAFTLOG_ACCEPT_H
#define RAFTLOG_ACCEPT_H

#include "net/net.h"

void rlog_accept_start(struct rlog_net *net);
void rlog_accept_stop(struct rlog_net *net);
/* Accept again, after there were no descriptors. */
void rlog_accept_tick(struct rlog_net *net);

#endif
