/* The io_uring of a loop, and what it was asked to do.
 *
 * All of it belongs to one thread, which makes the ring, too (the kernel sees to that).
 */
#ifndef RAFTLOG_RING_H
#define RAFTLOG_RING_H

#include <liburing.h>
#include <stdint.h>

struct rlog_ring;

/* Something the kernel was asked to do; `done` is called by rlog_ring_complete(). It stays where it is until
 * then. */
struct rlog_op {
	void (*done)(struct rlog_op *op, int result);
};

/* 0 or -errno. */
int rlog_ring_open(struct rlog_ring **out);
/* The kernel has nothing of its users' any more. NULL is allowed. */
void rlog_ring_close(struct rlog_ring *ring);

/* A free slot of the ring, whose completion will be `op`'s (NULL: nobody's). It is the caller's to fill in, and
 * is begun by the next of the two below. */
struct io_uring_sqe *rlog_ring_sqe(struct rlog_ring *ring, struct rlog_op *op);
/* Begin what was put into the ring, if anything was. */
void rlog_ring_submit(struct rlog_ring *ring);
/* The same; then wait until something is done, `wait_ms` at most. 0, or -errno: the ring is of no use any more. */
int rlog_ring_enter(struct rlog_ring *ring, uint64_t wait_ms);
/* Call `done` of all that is done. */
void rlog_ring_complete(struct rlog_ring *ring);

#endif
