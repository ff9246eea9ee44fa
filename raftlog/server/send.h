/* What goes to the peers. */
#ifndef RAFTLOG_SEND_H
#define RAFTLOG_SEND_H

#include "server/base.h"

/* A message of libraft's, to be sent now. */
void rlog_server_send(struct rlog_server *s, const struct raft_message *message);
/* Tell the leader, `from`, that this node lives, and take it for a sign of life too. */
void rlog_server_keepalive(struct rlog_server *s, uint64_t from, const char *address);

#endif
