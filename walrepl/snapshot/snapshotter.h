/* The durable point. */
#ifndef WALREPL_SNAPSHOT_SNAPSHOTTER_H
#define WALREPL_SNAPSHOT_SNAPSHOTTER_H

#include "base/work.h"
#include "db/db.h"

int wrep_keeper_new(struct wrep *w);   /* before raftlog opens */
int wrep_keeper_start(struct wrep *w); /* and after */
void wrep_keeper_stop(struct wrep *w); /* no manifest is written after it */
void wrep_keeper_free(struct wrep *w);
void wrep_keeper_wake(
	struct wrep *w); /* to trim the idle ones; any lock but the keeper's may be held */
/* An entry of that many bytes has been delivered. */
void wrep_keeper_delivered(struct wrep *w, size_t bytes);
/* The manifest no longer counts on the -wal of `db`, and its file is durable with all that the -wal
 * held. 0, -EBUSY (the file does not hold all of it), -errno. Blocks on the disk. db->lock not held;
 * not on raftlog's thread nor on one that serves requests. */
int wrep_keeper_release(struct wrep_db *db);
/* What an application asked for must wait until the -wal may go; then `again` does it. */
struct wrep_deferred {
	struct wrep_deferred *next;
	int (*again)(struct wrep_deferred
			     *d); /* as the function that put it off; no lock held [keeper] */
	struct wrep_file *file;	  /* a reference */
	struct wrep_op *op;
	uint64_t off; /* of a write; of a truncation: the size */
	size_t len;   /* of `bytes` */
	uint8_t bytes[];
};
/* Takes what `like` says, and a reference to `f`; copies its `len` bytes. WREP_PENDING or -ENOMEM. No lock held. */
int wrep_keeper_defer(struct wrep_file *f, const struct wrep_deferred *like, const void *bytes,
		      struct wrep_op *op);
/* Take a durable point now; waits until it is taken. 0, -EAGAIN (this node is not whole itself),
 * -ETIMEDOUT, -errno. */
int wrep_keeper_point(struct wrep *w, unsigned timeout_ms);
/* A peer is about to be given the snapshot, which from now on stays the newest, but for points asked for,
 * until wrep_keeper_unhold(), whatever is returned. A fresh one is taken for it, so that little is to be
 * applied again; but where another peer is at it, or was until shortly, that one needs the log from its
 * own on, so both get the same. Waits, and returns, as wrep_keeper_point(). */
int wrep_keeper_hold(struct wrep *w, unsigned timeout_ms);
void wrep_keeper_unhold(struct wrep *w);
/* The databases are about to be replaced: a point that is under way is dropped. */
void wrep_keeper_void(struct wrep *w);
/* The same for names that change at once with the manifest: between the two no manifest is written.
 * wrep_keeper_rename() writes one that says what the last one says, but calls `db` by its new name, says
 * that it needs no -wal, and has all other names as they are, without `replaced`. 0, -EBUSY (none is
 * written any more), -errno. [applier] */
void wrep_keeper_lock(struct wrep *w);
void wrep_keeper_unlock(struct wrep *w);
int wrep_keeper_rename(struct wrep_db *db, const char *name, const struct wrep_db *replaced,
		       uint64_t index);
/* What the manifest says from now on (after a restart, or a fetch). Takes `m`'s content. */
void wrep_keeper_adopt(struct wrep *w, struct wrep_manifest *m, uint64_t index);

#endif
