/* From what is on disk to a running server. */
#ifndef RAFTLOG_START_H
#define RAFTLOG_START_H

#include "server/base.h"

int rlog_server_core(struct rlog_server *s,
		     char errmsg[RLOG_ERRMSG_SIZE]); /* libraft, before its start */
int rlog_server_start(struct rlog_server *s, char errmsg[RLOG_ERRMSG_SIZE]);

#endif
