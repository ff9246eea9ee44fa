/* The snapshot that the log has, and what it allows: letting go of the front, and beginning anew. */
#ifndef RAFTLOG_COMPACT_H
#define RAFTLOG_COMPACT_H

#include "log/log.h"
#include "log/snapshot.h"

/* NULL when there is none. */
const struct rlog_snapshot *rlog_log_snapshot(const struct rlog_log *l);
/* `image` has been stored (rlog_snapshot_store()) and is the snapshot from now on; a reference is taken.
 * 0, or -errno when it is not one of this cluster. */
int rlog_log_set_snapshot(struct rlog_log *l, struct rlog_buf *image);
/* Let go of segments from the front, of which the snapshot has all entries, as long as more than
 * `keep_bytes` of segments stay. A file that cannot be removed stays, with those behind it, until this is
 * called again. */
void rlog_log_compact(struct rlog_log *l, uint64_t keep_bytes);
/* Begin anew behind the snapshot: all entries, staged or durable, are gone. No write is in flight. 0, or
 * as rlog_log_write_begin(): then nothing has changed here, and opening does it. */
int rlog_log_replace(struct rlog_log *l);
uint64_t rlog_log_cluster(const struct rlog_log *l);	 /* its id */
uint64_t rlog_log_bytes(const struct rlog_log *l);	 /* of all segments */
uint64_t rlog_log_bytes_since(const struct rlog_log *l); /* of records behind the snapshot, about */

/* For the files of the log: the files in front of `seq` go, oldest first, up to one that cannot be removed. */
void rlog_log_remove_before(struct rlog_log *l, uint64_t seq);

#endif
