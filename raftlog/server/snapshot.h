/* Snapshots, as the server sees them: besides what server.h tells, the notice that this node needs one. */
#ifndef RAFTLOG_SERVER_SNAPSHOT_H
#define RAFTLOG_SERVER_SNAPSHOT_H

#include "server/base.h"

void rlog_server_needs_state(struct rlog_server *s, uint64_t from, const char *address,
			     const struct rlog_message *m);

#endif
