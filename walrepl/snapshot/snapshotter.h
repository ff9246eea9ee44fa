/* The durable point. */
#ifndef WALREPL_SNAPSHOT_SNAPSHOTTER_H
#define WALREPL_SNAPSHOT_SNAPSHOTTER_H

#include "base/work.h"
#include "db/db.h"

int wrep_snapshotter_new(struct wrep *w);   /* before raftlog opens */
int wrep_snapshotter_start(struct wrep *w); /* and after */
void wrep_snapshotter_stop(struct wrep *w); /* no manifest is written after it */
void wrep_snapshotter_free(struct wrep *w);
void wrep_snapshotter_wake(
	struct wrep *w); /* to trim the idle ones; any lock but the snapshotter's may be held */
/* An entry of that many bytes has been delivered. */
void wrep_snapshotter_delivered(struct wrep *w, size_t bytes);
/* Take a durable point now; waits until it is taken. 0, -EAGAIN (this node is not whole itself),
 * -ETIMEDOUT, -errno. */
int wrep_snapshotter_take(struct wrep *w, unsigned timeout_ms);
/* A peer is about to be given the snapshot, which from now on stays the newest, but for points asked for,
 * until wrep_snapshotter_unhold(), whatever is returned. A fresh one is taken for it, so that little is to be
 * applied again; but where another peer is at it, or was until shortly, that one needs the log from its
 * own on, so both get the same. Waits, and returns, as wrep_snapshotter_take(). */
int wrep_snapshotter_hold(struct wrep *w, unsigned timeout_ms);
void wrep_snapshotter_unhold(struct wrep *w);
/* The databases are about to be replaced: a point that is under way is dropped. */
void wrep_snapshotter_void(struct wrep *w);

#endif
