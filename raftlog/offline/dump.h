/* rlog_dump() on any disk: for tests. */
#ifndef RAFTLOG_DUMP_H
#define RAFTLOG_DUMP_H

#include "log/disk.h"
#include "raftlog.h"

int rlog_dump_disk(struct rlog_disk *d, const struct rlog_dump_ops *ops, void *arg,
		   struct rlog_dump_end *end, char errmsg[RLOG_ERRMSG_SIZE]);

#endif
