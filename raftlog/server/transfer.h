/* Handing leadership over. */
#ifndef RAFTLOG_TRANSFER_H
#define RAFTLOG_TRANSFER_H

#include "server/base.h"

/* Begin, go on with, or end a transfer. */
void rlog_server_transfer_turn(struct rlog_server *s);
uint64_t rlog_server_transfer_deadline(const struct rlog_server *s); /* of one under way */
bool rlog_server_holds_submissions(const struct rlog_server *s);

#endif
