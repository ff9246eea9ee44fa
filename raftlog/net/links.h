/* Links: the connections that this node makes. */
#ifndef RAFTLOG_LINKS_H
#define RAFTLOG_LINKS_H

#include "net/net.h"

/* Dial what is due, free what is dropped and used no more. */
void rlog_links_tick(struct rlog_net *net);
uint64_t rlog_links_deadline(const struct rlog_net *net);
void rlog_links_drop_all(struct rlog_net *net);
void rlog_links_free(struct rlog_net *net);

#endif
