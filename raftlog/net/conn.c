/* A socket's frames. */
#include "net/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUFFER_BYTES (64u << 10)

static struct rlog_conn *conn_of(struct rlog_op *op, size_t offset)
{
	return (struct rlog_conn *)((char *)op - offset);
}

#define CONN_OF(op, member) conn_of(op, offsetof(struct rlog_conn, member))

static struct io_uring_sqe *conn_sqe(struct rlog_conn *c, struct rlog_op *op)
{
	c->ops_count++;
	return rlog_ring_sqe(c->ring, op);
}

/* Count an operation down; true: the connection is on its way out, stop. */
static bool conn_done(struct rlog_conn *c)
{
	c->ops_count--;
	if (!c->closing)
		return false;
	if (c->ops_count > 0)
		return true;
	LIST_REMOVE(c, entry);
	while (c->out != NULL) {
		struct rlog_frame *next = c->out->next;

		rlog_frame_free(c->out);
		c->out = next;
	}
	close(c->fd);
	free(c->in);
	free(c);
	return true;
}

static void cancel_done(struct rlog_op *op, int result)
{
	(void)result;
	conn_done(CONN_OF(op, cancel_op));
}

static void close_with(struct rlog_conn *c, int error)
{
	struct io_uring_sqe *sqe;

	if (c->closing)
		return;
	c->closing = true;
	c->ops->closed(c, error);
	if (!c->detached)
		shutdown(c->fd, SHUT_RDWR);
	/* A connect() in flight does not mind the shutdown everywhere. */
	c->cancel_op.done = cancel_done;
	sqe = conn_sqe(c, &c->cancel_op);
	io_uring_prep_cancel(sqe, &c->connect_op, 0);
}

void rlog_conn_close(struct rlog_conn *c)
{
	close_with(c, 0);
}

int rlog_conn_detach(struct rlog_conn *c)
{
	int fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0);

	c->detached = fd >= 0;
	rlog_conn_close(c);
	return fd;
}

/* ---- sending ------------------------------------------------------------------------------ */

static void send_queued(struct rlog_conn *c)
{
	struct io_uring_sqe *sqe;
	unsigned count = 0;
	size_t skip = c->out_skip;

	for (struct rlog_frame *f = c->out; f != NULL && count < RLOG_CONN_IOV_MAX; f = f->next) {
		for (unsigned i = 0; i < f->iov_count && count < RLOG_CONN_IOV_MAX; i++) {
			size_t len = f->iov[i].iov_len;

			if (skip >= len) {
				skip -= len;
				continue;
			}
			c->iov[count].iov_base = (uint8_t *)f->iov[i].iov_base + skip;
			c->iov[count++].iov_len = len - skip;
			skip = 0;
		}
	}
	c->msg = (struct msghdr){.msg_iov = c->iov, .msg_iovlen = count};
	c->sending = true;
	sqe = conn_sqe(c, &c->send_op);
	io_uring_prep_sendmsg(sqe, c->fd, &c->msg, MSG_NOSIGNAL);
}

static void send_done(struct rlog_op *op, int result)
{
	struct rlog_conn *c = CONN_OF(op, send_op);
	size_t sent;

	c->sending = false;
	if (conn_done(c))
		return;
	if (result == -EINTR || result == -EAGAIN)
		return; /* the next flush sends it */
	if (result <= 0) {
		rlog_conn_close(c);
		return;
	}
	c->out_bytes -= (size_t)result;
	for (sent = c->out_skip + (size_t)result; c->out != NULL && sent >= c->out->bytes;) {
		struct rlog_frame *f = c->out;

		sent -= f->bytes;
		c->out = f->next;
		if (c->out == NULL)
			c->out_tail = &c->out;
		rlog_frame_free(f);
	}
	c->out_skip = sent;
	c->ops->sent(c);
}

void rlog_conn_send(struct rlog_conn *c, const struct rlog_message *m)
{
	struct rlog_frame *f = rlog_frame_new(m);

	if (f == NULL || c->closing) {
		rlog_frame_free(f);
		return;
	}
	f->next = NULL;
	*c->out_tail = f;
	c->out_tail = &f->next;
	c->out_bytes += f->bytes;
}

void rlog_conn_flush(struct rlog_conn *c)
{
	if (c->out != NULL && !c->sending && !c->closing && !c->dialing)
		send_queued(c);
}

/* ---- receiving ---------------------------------------------------------------------------- */

/* Handle all whole messages in the buffer. 0, or -errno: the connection is of no use. */
static int parse(struct rlog_conn *c)
{
	size_t need = BUFFER_BYTES;

	while (!c->closing && c->in_end - c->in_begin >= RLOG_FRAME_HEADER) {
		const uint8_t *at = c->in + c->in_begin;
		struct rlog_frame_header h;
		struct rlog_message m;
		int rv = rlog_frame_header_read(at, &h);

		if (rv != 0)
			return rv;
		if (h.body_bytes > BUFFER_BYTES / 2 && !c->trusted)
			return -EPROTO;
		need = RLOG_FRAME_HEADER + (size_t)h.body_bytes;
		if (c->in_end - c->in_begin < need)
			break;
		rv = rlog_message_read(&h, at + RLOG_FRAME_HEADER, &m);
		if (rv != 0)
			return rv;
		c->in_begin += need;
		need = BUFFER_BYTES;
		if (!c->ops->message(c, &m)) {
			rlog_message_clear(&m);
			return -EPROTO;
		}
	}
	if (c->in_begin == c->in_end)
		c->in_begin = c->in_end = 0;
	if (c->in_begin > 0 &&
	    (c->in_size - c->in_end < BUFFER_BYTES / 4 || c->in_begin + need > c->in_size)) {
		memmove(c->in, c->in + c->in_begin, c->in_end - c->in_begin);
		c->in_end -= c->in_begin;
		c->in_begin = 0;
	}
	/* A large message: grow as its bytes come, so that a length alone costs nothing. */
	if (c->in_end == c->in_size || c->in_size == 0) {
		size_t size = c->in_size == 0 ? BUFFER_BYTES : c->in_size * 2;
		uint8_t *in = realloc(c->in, size);

		if (in == NULL)
			return -ENOMEM;
		c->in = in;
		c->in_size = size;
	} else if (c->in_end == 0 && c->in_size > 16 * BUFFER_BYTES) {
		uint8_t *in = realloc(c->in, BUFFER_BYTES);

		if (in != NULL) {
			c->in = in;
			c->in_size = BUFFER_BYTES;
		}
	}
	return 0;
}

static void receive(struct rlog_conn *c)
{
	struct io_uring_sqe *sqe = conn_sqe(c, &c->recv_op);

	io_uring_prep_recv(sqe, c->fd, c->in + c->in_end, c->in_size - c->in_end, 0);
}

static void recv_done(struct rlog_op *op, int result)
{
	struct rlog_conn *c = CONN_OF(op, recv_op);
	int rv;

	if (conn_done(c))
		return;
	if (result == -EINTR || result == -EAGAIN) {
		receive(c);
		return;
	}
	if (result <= 0) {
		rlog_conn_close(c);
		return;
	}
	c->in_end += (size_t)result;
	rv = parse(c);
	if (rv != 0) {
		close_with(c, rv);
		return;
	}
	if (!c->closing && c->in_end > c->in_begin)
		c->ops->partial(c);
	if (!c->closing && !c->silent)
		receive(c);
}

bool rlog_conn_receive(struct rlog_conn *c)
{
	c->recv_op.done = recv_done;
	if (parse(c) != 0) { /* makes the buffer */
		rlog_conn_close(c);
		return false;
	}
	receive(c);
	return true;
}

/* ---- life --------------------------------------------------------------------------------- */

struct rlog_conn *rlog_conn_new(struct rlog_conns *conns, struct rlog_ring *ring, int fd,
				const struct rlog_conn_ops *ops)
{
	struct rlog_conn *c = calloc(1, sizeof *c);
	int one = 1;

	if (c == NULL)
		return NULL;
	c->ring = ring;
	c->fd = fd;
	c->ops = ops;
	c->out_tail = &c->out;
	c->send_op.done = send_done;
	LIST_INSERT_HEAD(conns, c, entry);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return c;
}

static void connect_done(struct rlog_op *op, int result)
{
	struct rlog_conn *c = CONN_OF(op, connect_op);

	c->dialing = false;
	if (conn_done(c))
		return;
	c->ops->connected(c, result);
	if (result != 0)
		rlog_conn_close(c);
}

void rlog_conn_dial(struct rlog_conn *c, const struct sockaddr_storage *to, socklen_t len)
{
	struct io_uring_sqe *sqe = conn_sqe(c, &c->connect_op);

	c->dialing = true;
	c->peer = *to;
	c->connect_op.done = connect_done;
	io_uring_prep_connect(sqe, c->fd, (struct sockaddr *)&c->peer, len);
}
