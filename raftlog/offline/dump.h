/* rlog_walk() on any disk: for tests. */
#ifndef RAFTLOG_WALK_H
#define RAFTLOG_WALK_H

#include "log/disk.h"
#include "raftlog.h"

int rlog_walk_disk(struct rlog_disk *d, const struct rlog_walk_ops *ops, void *arg,
		   struct rlog_walk_end *end, char errmsg[RLOG_ERRMSG_SIZE]);

#endif
