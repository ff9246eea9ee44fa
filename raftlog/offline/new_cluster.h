/* Making the log of a new cluster from that of a survivor, on any disk: for tests. */
#ifndef RAFTLOG_NEW_CLUSTER_H
#define RAFTLOG_NEW_CLUSTER_H

#include "log/disk.h"
#include "raftlog.h"

/* From the log in `from` to the empty directory `to`: as rlog_new_cluster_prepare(). Names in `to` are
 * durable on return. */
int rlog_new_cluster_copy(struct rlog_disk *from, struct rlog_disk *to,
			  const struct rlog_new_cluster_options *opt,
			  char errmsg[RLOG_ERRMSG_SIZE]);

#endif
