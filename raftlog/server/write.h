/* The log write. */
#ifndef RAFTLOG_WRITE_H
#define RAFTLOG_WRITE_H

#include "server/base.h"

void rlog_server_start_write(struct rlog_server *s);
/* The disk is full: somebody with space should lead. */
void rlog_server_disk_full(struct rlog_server *s);

#endif
