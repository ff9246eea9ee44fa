/* A -wal that the manifest in force needs, and the requests that wait for it. */
#ifndef WALREPL_SNAPSHOT_WAL_HOLD_H
#define WALREPL_SNAPSHOT_WAL_HOLD_H

#include "db/db.h"

/* The -wal of those that the manifest does not say to need it may go. point_lock held. */
void wrep_wal_hold_end(struct wrep_snapshotter *k, struct wrep_db *db);
/* The manifest no longer counts on the -wal of `db`, and its file is durable with all that the -wal
 * held. 0, -EBUSY (the file does not hold all of it), -errno. Blocks on the disk. db->lock not held;
 * not on raftlog's thread nor on one that serves requests. */
int wrep_snapshotter_release(struct wrep_db *db);
/* What an application asked for must wait until the -wal may go; then `again` does it. */
struct wrep_deferred {
	struct wrep_deferred *next;
	int (*again)(struct wrep_deferred
			     *d); /* as the function that put it off; no lock held [snapshotter] */
	struct wrep_file *file;	  /* a reference */
	struct wrep_op *op;
	uint64_t off; /* of a write; of a truncation: the size */
	size_t len;   /* of `bytes` */
	uint8_t bytes[];
};
/* Takes what `like` says, and a reference to `f`; copies its `len` bytes. WREP_PENDING or -ENOMEM. No lock held. */
int wrep_snapshotter_defer(struct wrep_file *f, const struct wrep_deferred *like, const void *bytes,
			   struct wrep_op *op);
/* Do, or while the node stops fail, the first of what was put off. k->lock held, let go meanwhile. [snapshotter] */
void wrep_deferred_settle_next(struct wrep_snapshotter *k);

#endif
