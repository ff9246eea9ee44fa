/* Changes of who belongs to the cluster. */
#ifndef RAFTLOG_CHANGE_H
#define RAFTLOG_CHANGE_H

#include "server/base.h"

/* Promote a standby, or follow this node's own new address. */
void rlog_server_members_tick(struct rlog_server *s);

#endif
