/* Delivery of what is committed, and the view of the cluster. */
#ifndef RAFTLOG_DELIVER_H
#define RAFTLOG_DELIVER_H

#include "server/base.h"

/* Tell the owner the view, when it is another one. */
void rlog_server_view(struct rlog_server *s);

#endif
