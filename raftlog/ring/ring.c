/* The io_uring of a loop. */
#include "ring/ring.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define RING_ENTRIES 256
#define WAIT_MAX_MS 60000

struct rlog_ring {
	struct io_uring uring;
	unsigned prepared; /* entries put into the ring and not yet submitted */
};

int rlog_ring_open(struct rlog_ring **out)
{
	struct rlog_ring *ring = calloc(1, sizeof *ring);
	int rv;

	if (ring == NULL)
		return -ENOMEM;
	rv = io_uring_queue_init(RING_ENTRIES, &ring->uring,
				 IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	if (rv == -EINVAL) /* a kernel before 6.1 */
		rv = io_uring_queue_init(RING_ENTRIES, &ring->uring, 0);
	if (rv != 0) {
		free(ring);
		return rv;
	}
	*out = ring;
	return 0;
}

void rlog_ring_close(struct rlog_ring *ring)
{
	if (ring == NULL)
		return;
	io_uring_queue_exit(&ring->uring);
	free(ring);
}

struct io_uring_sqe *rlog_ring_sqe(struct rlog_ring *ring, struct rlog_op *op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	while (sqe == NULL) {
		int rv = io_uring_submit(&ring->uring);

		assert(rv > 0 || rv == -EINTR || rv == -EAGAIN || rv == -EBUSY);
		sqe = io_uring_get_sqe(&ring->uring);
	}
	io_uring_sqe_set_data(sqe, op); /* the io_uring_prep_ functions leave it alone */
	ring->prepared++;
	return sqe;
}

void rlog_ring_submit(struct rlog_ring *ring)
{
	if (ring->prepared == 0)
		return;
	io_uring_submit(&ring->uring);
	ring->prepared = 0;
}

int rlog_ring_enter(struct rlog_ring *ring, uint64_t wait_ms)
{
	struct __kernel_timespec ts = {0};
	struct io_uring_cqe *cqe;
	int rv;

	if (wait_ms > WAIT_MAX_MS)
		wait_ms = WAIT_MAX_MS;
	ts.tv_sec = (long long)(wait_ms / 1000);
	ts.tv_nsec = (long long)(wait_ms % 1000) * 1000000;
	rv = io_uring_submit_and_wait_timeout(&ring->uring, &cqe, 1, &ts, NULL);
	ring->prepared = 0;
	if (rv < 0 && rv != -ETIME && rv != -EINTR && rv != -EAGAIN && rv != -EBUSY)
		return rv;
	return 0;
}

void rlog_ring_complete(struct rlog_ring *ring)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
		struct rlog_op *op = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&ring->uring, cqe);
		if (op != NULL)
			op->done(op, result);
	}
}
