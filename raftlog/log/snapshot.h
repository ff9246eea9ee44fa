/* The snapshot: up to which entry the owner has everything in its own durable state, and what it says
 * of that state. Private to raftlog; one thread.
 *
 * A small file beside the segments, written aside and renamed, so that it is either the old one or the
 * new one. Its bytes, without the padding, are also what rlog_snapshot_image() hands to other nodes:
 *
 *    0: "dqlS" | 4: u32 version | 8: u64 cluster id | 16: u64 index | 24: u64 term
 *   32: u64 term in which it was taken | 40: u64 index of the membership
 *   48: u32 the membership's bytes | 52: u32 the payload's bytes
 *   56: u64 XXH3-64 of what follows | 64: u64 XXH3-64 of the 64 bytes before
 *   72: the membership in force at `index`, as libraft encodes it; the payload
 *
 * Version history: 1, the first.
 */
#ifndef RAFTLOG_SNAPSHOT_H
#define RAFTLOG_SNAPSHOT_H

#include "log/disk.h"
#include "raftlog.h"

#define RLOG_SNAPSHOT_NAME "snapshot"

/* Of an image: what names and hashes of a million databases do not fill. */
#define RLOG_SNAPSHOT_MAX (512u << 20)

struct rlog_snapshot {
	uint64_t index, term;
	/* The node that took it was in this term: the entry at `index` has been committed in it or before,
	 * so the leader of any later term has it. */
	uint64_t taken_term;
	uint64_t conf_index;
	const uint8_t *conf, *payload; /* in `image` */
	size_t conf_len, payload_len;
	struct rlog_buf *image; /* a reference; NULL: there is no snapshot */
};

/* The image of `s`, whose own image does not matter. NULL with errno: ENOMEM, or EFBIG (more than
 * RLOG_SNAPSHOT_MAX). */
struct rlog_buf *rlog_snapshot_encode(uint64_t cluster_id, const struct rlog_snapshot *s);
/* Check and decode; takes a reference. 0, -EBADMSG, -ENOTSUP (of a later version), -EXDEV. */
int rlog_snapshot_decode(struct rlog_buf *image, uint64_t cluster_id, struct rlog_snapshot *out);
void rlog_snapshot_clear(struct rlog_snapshot *s);

/* Make the image the snapshot of the log in `d`. Durable on return. 0 or -errno: then it is the old one
 * or this one. [any thread, one at a time] */
int rlog_snapshot_store(struct rlog_disk *d, const struct rlog_buf *image);
/* 0 (with out->image NULL when there is none), or -errno with a line in `errmsg`. */
int rlog_snapshot_load(struct rlog_disk *d, uint64_t cluster_id, struct rlog_snapshot *out,
		       char errmsg[RLOG_ERRMSG_SIZE]);

#endif
