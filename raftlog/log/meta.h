/* Term and vote on disk: the file `meta`. */
#ifndef RAFTLOG_META_H
#define RAFTLOG_META_H

#include "log/disk.h"
#include "raftlog.h"

#define RLOG_META_NAME "meta"

struct rlog_meta {
	uint64_t cluster_id, node_id;
	uint64_t epoch;	  /* of the log this belongs to */
	uint64_t counter; /* of the update; chooses the slot */
	uint64_t term, voted_for;
	uint64_t durable_batch; /* a write to the log known to have been durable by then */
	unsigned format;	/* the level that the log needs (format.h); 0 is 1 */
};

/* Make the file, both slots valid. The directory entry is not synced. */
int rlog_meta_create(struct rlog_disk *d, const struct rlog_meta *m);
/* Open the file and take its newest valid slot; `*bad_slots` says how many (0 or 1) were not valid.
 * Returns the handle, or -EBADMSG, -ENOTSUP, ... with a line in `errmsg`. */
int rlog_meta_open(struct rlog_disk *d, struct rlog_meta *m, int *bad_slots,
		   char errmsg[RLOG_ERRMSG_SIZE]);
/* Does a build that reads up to level `reads` read the log? 0, or -ENOTSUP with a line in `errmsg`. */
int rlog_meta_readable(const struct rlog_meta *m, unsigned reads, char errmsg[RLOG_ERRMSG_SIZE]);
/* Write `m` with the next counter; durable on return, and `m->counter` is then the new one. */
int rlog_meta_store(struct rlog_disk *d, int handle, struct rlog_meta *m);

#endif
