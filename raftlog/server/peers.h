/* Other nodes: those that this one talks to, and the members. */
#ifndef RAFTLOG_PEERS_H
#define RAFTLOG_PEERS_H

#include "server/base.h"

/* The peer `id`, made when it is not known; its address follows `address`. NULL when there is no
 * room for one more, which only strangers can bring about. */
struct peer *rlog_server_peer(struct rlog_server *s, uint64_t id, const char *address);
/* How much of the log it has; 0 where this node does not lead. */
uint64_t rlog_server_match(const struct rlog_server *s, uint64_t id);
/* Within the election timeout. */
bool rlog_server_heard(const struct rlog_server *s, uint64_t id);
bool rlog_server_sole_voter(const struct rlog_server *s);
/* Called after every step: notices a membership that came with an entry, or left with one. */
void rlog_server_members_changed(struct rlog_server *s);

#endif
