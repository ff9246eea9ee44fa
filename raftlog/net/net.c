/* The connections between nodes.
 *
 * Every node dials every other member, and sends on the connection it made; what others send
 * arrives on connections that they made. So between two nodes there are two, one per direction, and
 * no tie to break when both dial at once. A connection begins with HELLO (cluster, who, whom, where
 * the dialler listens) and WELCOME; then messages flow one way. It can also begin with JOIN (join.c),
 * or with STREAM, which is answered like HELLO: the dialler says nothing before it has the answer, and
 * with that sent the socket is taken out of the ring and becomes the owner's.
 *
 * A connection that breaks is dialled again after 50 ms, then twice as long, up to a second. What
 * was queued is dropped: Raft notices and sends again. What is queued is bounded: above
 * QUEUE_BYTES rlog_net_room() says 0, and the server keeps the rest as an index range.
 *
 * An object that the kernel may still write to is not freed: a connection counts its operations in
 * the ring, and goes when it is closing and none is left.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "loop/loop.h"

#define QUEUE_BYTES (8u << 20)
#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 1000
#define GREETING_MS 3000 /* from connect or accept to the end of the greeting */
#define JOIN_MS 10000	 /* for the change that lets a node join */
#define ACCEPTED_MAX 256 /* incoming connections */
#define LOG_INTERVAL_MS 10000
#define BUFFER_BYTES (64u << 10)
#define SHORTAGE_MS 100 /* between attempts to accept, when there are no descriptors */
#define IOV_MAX_SEND 64

enum conn_state {
	CONN_DIALING,  /* ours: connect() is on its way */
	CONN_GREETING, /* ours: HELLO sent, WELCOME awaited */
	CONN_SENDING,  /* ours: up */
	CONN_ACCEPTED, /* theirs: HELLO or JOIN awaited */
	CONN_MEMBER,   /* theirs: messages come */
	CONN_JOINER,   /* theirs: JOIN has come, the answer is due */
	CONN_STREAM,   /* theirs: STREAM has come; the owner's once the answer is sent */
};

struct rlog_conn {
	struct rlog_op connect_op, recv_op, send_op, cancel_op;
	struct rlog_conn *next;
	int fd;
	enum conn_state state;
	bool closing;
	bool detached; /* the socket lives on elsewhere */
	bool last;     /* close once everything is sent */
	unsigned ops;
	bool sending;
	struct rlog_link *link; /* ours: whom it leads to */
	uint64_t from;		/* theirs: who sends */
	char address[RLOG_ADDRESS_MAX];
	uint64_t greet_until_ms;
	struct rlog_join_wait join;

	struct sockaddr_storage peer;
	uint8_t *in; /* [in_begin, in_end) is not parsed yet */
	size_t in_begin, in_end, in_size;
	struct rlog_frame *out, **out_tail;
	size_t out_bytes, out_skip; /* of the first frame, already sent */
	struct msghdr msg;
	struct iovec iov[IOV_MAX_SEND];
};

static void conn_close(struct rlog *l, struct rlog_conn *c);

/* ---- a connection ------------------------------------------------------------------------- */

static struct rlog_conn *conn_of(struct rlog_op *op, size_t offset)
{
	return (struct rlog_conn *)((char *)op - offset);
}

#define CONN_OF(op, member) conn_of(op, offsetof(struct rlog_conn, member))

static struct io_uring_sqe *conn_sqe(struct rlog *l, struct rlog_conn *c, struct rlog_op *op)
{
	c->ops++;
	return rlog_loop_sqe(l, op);
}

/* Count an operation down; true: the connection is on its way out, stop. */
static bool conn_done(struct rlog *l, struct rlog_conn *c)
{
	struct rlog_conn **at = &l->net.conns;

	c->ops--;
	if (!c->closing)
		return false;
	if (c->ops > 0)
		return true;
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	if (c->link == NULL)
		l->net.accepted_count--;
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

static void cancel_done(struct rlog *l, struct rlog_op *op, int result)
{
	(void)result;
	conn_done(l, CONN_OF(op, cancel_op));
}

static struct rlog_conn *conn_new(struct rlog *l, int fd, enum conn_state state)
{
	struct rlog_conn *c = calloc(1, sizeof *c);
	int one = 1;

	if (c == NULL)
		return NULL;
	c->fd = fd;
	c->state = state;
	c->out_tail = &c->out;
	c->greet_until_ms = l->now + GREETING_MS;
	c->next = l->net.conns;
	l->net.conns = c;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return c;
}

static void link_down(struct rlog *l, struct rlog_link *link)
{
	link->conn = NULL;
	link->up = false;
	link->starved = false;
	link->dial_ms = l->now + link->backoff_ms;
	link->backoff_ms =
		link->backoff_ms * 2 < BACKOFF_MAX_MS ? link->backoff_ms * 2 : BACKOFF_MAX_MS;
	l->status_due = true;
}

static void conn_close(struct rlog *l, struct rlog_conn *c)
{
	struct io_uring_sqe *sqe;

	if (c->closing)
		return;
	c->closing = true;
	if (c->link != NULL && c->link->conn == c)
		link_down(l, c->link);
	if (!c->detached)
		shutdown(c->fd, SHUT_RDWR);
	/* A connect() in flight does not mind the shutdown everywhere. */
	c->cancel_op.done = cancel_done;
	sqe = conn_sqe(l, c, &c->cancel_op);
	io_uring_prep_cancel(sqe, &c->connect_op, 0);
}

/* One line now and then, not one per attempt. */
static bool may_log(struct rlog *l, uint64_t *logged_ms)
{
	if (*logged_ms != 0 && l->now - *logged_ms < LOG_INTERVAL_MS)
		return false;
	*logged_ms = l->now;
	return true;
}

/* ---- sending ------------------------------------------------------------------------------ */

static void send_queued(struct rlog *l, struct rlog_conn *c)
{
	struct io_uring_sqe *sqe;
	unsigned count = 0;
	size_t skip = c->out_skip;

	for (struct rlog_frame *f = c->out; f != NULL && count < IOV_MAX_SEND; f = f->next) {
		for (unsigned i = 0; i < f->iov_count && count < IOV_MAX_SEND; i++) {
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
	sqe = conn_sqe(l, c, &c->send_op);
	io_uring_prep_sendmsg(sqe, c->fd, &c->msg, MSG_NOSIGNAL);
}

/* The answer to STREAM is sent. Nothing is being received: see recv_done(). */
static void hand_over(struct rlog *l, struct rlog_conn *c)
{
	int fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0);
	uint64_t from = c->from;

	c->detached = fd >= 0;
	conn_close(l, c);
	if (fd >= 0)
		l->cb.stream(l->ctx, fd, from);
}

static void send_done(struct rlog *l, struct rlog_op *op, int result)
{
	struct rlog_conn *c = CONN_OF(op, send_op);
	size_t sent;

	c->sending = false;
	if (conn_done(l, c))
		return;
	if (result == -EINTR || result == -EAGAIN)
		return; /* the next flush sends it */
	if (result <= 0) {
		conn_close(l, c);
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
	if (c->out == NULL && c->state == CONN_STREAM) {
		hand_over(l, c);
		return;
	}
	if (c->out == NULL && c->last) {
		/* Let the other side read it: it closes. */
		shutdown(c->fd, SHUT_WR);
		c->greet_until_ms = l->now + GREETING_MS;
		c->state = CONN_ACCEPTED;
		return;
	}
	if (c->link != NULL && c->link->starved && c->out_bytes < QUEUE_BYTES / 2) {
		c->link->starved = false;
		rlog_server_room(l->server, c->link->id);
	}
}

static void conn_queue(struct rlog_conn *c, struct rlog_frame *f)
{
	f->next = NULL;
	*c->out_tail = f;
	c->out_tail = &f->next;
	c->out_bytes += f->bytes;
}

void rlog_conn_send(struct rlog_conn *c, const struct rlog_message *m, bool last)
{
	struct rlog_frame *f = rlog_frame_new(m);

	if (f == NULL || c->closing) {
		rlog_frame_free(f);
		return; /* the greeting's time runs out */
	}
	conn_queue(c, f);
	c->last = last;
}

/* Put what is queued anywhere into the ring. */
void rlog_net_flush(struct rlog *l)
{
	for (struct rlog_conn *c = l->net.conns; c != NULL; c = c->next)
		if (c->out != NULL && !c->sending && !c->closing && c->state != CONN_DIALING)
			send_queued(l, c);
}

/* ---- receiving ---------------------------------------------------------------------------- */

static bool is_member(struct rlog *l, uint64_t id)
{
	struct rlog_member members[RLOG_MEMBERS_MAX];
	unsigned count = rlog_server_members(l->server, members);

	for (unsigned i = 0; i < count; i++)
		if (members[i].id == id)
			return true;
	return false;
}

static void greet(struct rlog *l, struct rlog_conn *c, const struct rlog_message *m)
{
	struct rlog_message answer = {.type = RLOG_MSG_WELCOME};

	answer.welcome.cluster_id = l->cluster_id;
	answer.welcome.from = l->id;
	if (m->hello.cluster_id != l->cluster_id)
		answer.welcome.answer = RLOG_ANSWER_OTHER_CLUSTER;
	else if (m->hello.to != l->id || m->hello.from == l->id)
		answer.welcome.answer = RLOG_ANSWER_OTHER_NODE;
	else if (m->type == RLOG_MSG_STREAM && !is_member(l, m->hello.from))
		answer.welcome.answer = RLOG_ANSWER_NO_MEMBER;
	if (answer.welcome.answer != RLOG_ANSWER_OK) {
		if (may_log(l, &l->net.logged_ms))
			rlog_loop_log(
				l, 'W',
				"refused a connection %s node=%08llx address=%s cluster=%016llx",
				answer.welcome.answer == RLOG_ANSWER_OTHER_CLUSTER
					? "of another cluster: if that node was a member before this "
					  "cluster was recovered, empty its data directory and join it "
					  "again"
					: "for another node, or of no member",
				(unsigned long long)m->hello.from, m->hello.address,
				(unsigned long long)m->hello.cluster_id);
		rlog_conn_send(c, &answer, true);
		return;
	}
	/* A node that dials again has given up its older connection. */
	for (struct rlog_conn *o = l->net.conns; o != NULL && m->type == RLOG_MSG_HELLO;
	     o = o->next)
		if (o != c && o->state == CONN_MEMBER && o->from == m->hello.from)
			conn_close(l, o);
	c->from = m->hello.from;
	memcpy(c->address, m->hello.address, sizeof c->address);
	c->state = m->type == RLOG_MSG_STREAM ? CONN_STREAM : CONN_MEMBER;
	rlog_conn_send(c, &answer, false);
}

static void welcomed(struct rlog *l, struct rlog_conn *c, const struct rlog_message *m)
{
	struct rlog_link *link = c->link;

	if (m->welcome.answer != RLOG_ANSWER_OK || m->welcome.from != link->id) {
		if (may_log(l, &link->logged_ms))
			rlog_loop_log(
				l, 'W',
				"%s address=%s expected=%08llx found=%08llx cluster=%016llx",
				m->welcome.cluster_id != l->cluster_id &&
						m->welcome.from == link->id
					? "a member belongs to another cluster now: if that was "
					  "recovered without this node, empty this node's data "
					  "directory and join it again"
					: "the node at an address is not the one expected, or of "
					  "another cluster: if it was set up anew, remove the old "
					  "member",
				link->address, (unsigned long long)link->id,
				(unsigned long long)m->welcome.from,
				(unsigned long long)m->welcome.cluster_id);
		link->backoff_ms = BACKOFF_MAX_MS;
		conn_close(l, c);
		return;
	}
	c->state = CONN_SENDING;
	link->up = true;
	link->backoff_ms = BACKOFF_MIN_MS;
	link->logged_ms = 0;
	l->status_due = true;
	rlog_server_room(l->server, link->id);
}

/* A message has come. False: it does not belong here. */
static bool dispatch(struct rlog *l, struct rlog_conn *c, struct rlog_message *m)
{
	switch (c->state) {
	case CONN_ACCEPTED:
		if (c->last)
			return false;
		if (m->type == RLOG_MSG_HELLO ||
		    (m->type == RLOG_MSG_STREAM && l->cb.stream != NULL)) {
			greet(l, c, m);
			return true;
		}
		if (m->type == RLOG_MSG_JOIN) {
			c->state = CONN_JOINER;
			c->greet_until_ms = l->now + JOIN_MS;
			rlog_join_request(l, c, m);
			return true;
		}
		return false;
	case CONN_GREETING:
		if (m->type != RLOG_MSG_WELCOME)
			return false;
		welcomed(l, c, m);
		return true;
	case CONN_MEMBER:
		if (m->type < RLOG_MSG_APPEND || m->type > RLOG_MSG_NEEDS_STATE)
			return false;
		rlog_server_receive(l->server, c->from, c->address, m);
		return true;
	default:
		return false;
	}
}

/* Handle all whole messages in the buffer. 0, or -errno: the connection is of no use. */
static int parse(struct rlog *l, struct rlog_conn *c)
{
	size_t need = BUFFER_BYTES;

	while (!c->closing && c->in_end - c->in_begin >= RLOG_FRAME_HEADER) {
		const uint8_t *at = c->in + c->in_begin;
		struct rlog_frame_header h;
		struct rlog_message m;
		int rv = rlog_frame_header_read(at, &h);

		if (rv != 0)
			return rv;
		/* Before the greeting nobody gets to fill our memory. */
		if (h.body_bytes > BUFFER_BYTES / 2 && c->state != CONN_MEMBER)
			return -EPROTO;
		need = RLOG_FRAME_HEADER + (size_t)h.body_bytes;
		if (c->in_end - c->in_begin < need)
			break;
		rv = rlog_message_read(&h, at + RLOG_FRAME_HEADER, &m);
		if (rv != 0)
			return rv;
		c->in_begin += need;
		need = BUFFER_BYTES;
		if (!dispatch(l, c, &m)) {
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

static void receive(struct rlog *l, struct rlog_conn *c)
{
	struct io_uring_sqe *sqe = conn_sqe(l, c, &c->recv_op);

	io_uring_prep_recv(sqe, c->fd, c->in + c->in_end, c->in_size - c->in_end, 0);
}

static void recv_done(struct rlog *l, struct rlog_op *op, int result)
{
	struct rlog_conn *c = CONN_OF(op, recv_op);
	int rv;

	if (conn_done(l, c))
		return;
	if (result == -EINTR || result == -EAGAIN) {
		receive(l, c);
		return;
	}
	if (result <= 0) {
		conn_close(l, c);
		return;
	}
	c->in_end += (size_t)result;
	rv = parse(l, c);
	if (rv != 0) {
		if (may_log(l, &l->net.logged_ms))
			rlog_loop_log(l, 'W', "closed a connection: %s node=%08llx address=%s",
				      rv == -ENOMEM   ? "out of memory"
				      : rv == -EPROTO ? "it speaks something else"
						      : "damaged message",
				      (unsigned long long)(c->link != NULL ? c->link->id : c->from),
				      c->link != NULL ? c->link->address : c->address);
		conn_close(l, c);
		return;
	}
	if (c->state == CONN_MEMBER && !c->closing && c->in_end > c->in_begin)
		rlog_server_hears(l->server, c->from, c->address);
	if (!c->closing && c->state != CONN_STREAM)
		receive(l, c);
}

static bool begin_receiving(struct rlog *l, struct rlog_conn *c)
{
	c->recv_op.done = recv_done;
	c->send_op.done = send_done;
	if (parse(l, c) != 0) { /* makes the buffer */
		conn_close(l, c);
		return false;
	}
	receive(l, c);
	return true;
}

/* ---- accepting ---------------------------------------------------------------------------- */

static void accept_next(struct rlog *l)
{
	struct io_uring_sqe *sqe = rlog_loop_sqe(l, &l->net.accept_op);

	l->net.accepting = true;
	io_uring_prep_accept(sqe, l->net.listen_fd, NULL, NULL, SOCK_CLOEXEC);
}

static void accept_done(struct rlog *l, struct rlog_op *op, int result)
{
	struct rlog_conn *c = NULL;

	(void)op;
	l->net.accepting = false;
	if (result == -ECANCELED || result == -EBADF || result == -EINVAL || l->net.stopping) {
		if (result >= 0)
			close(result);
		return;
	}
	if (result < 0 && result != -ECONNABORTED && result != -EINTR && result != -EAGAIN) {
		/* The kernel keeps who waits, and would say the same again at once. */
		l->net.accept_ms = l->now + SHORTAGE_MS;
		if (may_log(l, &l->net.shortage_logged_ms))
			rlog_loop_log(
				l, 'W',
				"cannot take connections of other nodes error=\"%s\": raise the "
				"limit on descriptors (ulimit -n)",
				strerror(-result));
		return;
	}
	if (result >= 0) {
		if (l->net.accepted_count < ACCEPTED_MAX)
			c = conn_new(l, result, CONN_ACCEPTED);
		if (c != NULL) {
			l->net.accepted_count++;
			begin_receiving(l, c);
		} else {
			close(result);
		}
	}
	accept_next(l);
}

/* ---- dialling ----------------------------------------------------------------------------- */

static void connect_done(struct rlog *l, struct rlog_op *op, int result)
{
	struct rlog_conn *c = CONN_OF(op, connect_op);
	struct rlog_message m = {.type = RLOG_MSG_HELLO};

	if (conn_done(l, c))
		return;
	if (result != 0) {
		if (may_log(l, &c->link->logged_ms))
			rlog_loop_log(l, 'W', "cannot reach node=%08llx address=%s: %s",
				      (unsigned long long)c->link->id, c->link->address,
				      strerror(-result));
		conn_close(l, c);
		return;
	}
	c->state = CONN_GREETING;
	if (!begin_receiving(l, c))
		return;
	m.hello.cluster_id = l->cluster_id;
	m.hello.from = l->id;
	m.hello.to = c->link->id;
	memcpy(m.hello.address, l->address, sizeof m.hello.address);
	rlog_conn_send(c, &m, false);
}

static void dial_address(struct rlog *l, struct rlog_link *link,
			 const struct sockaddr_storage *address, socklen_t len)
{
	unsigned user_timeout = l->election_timeout_ms * 4;
	struct io_uring_sqe *sqe;
	struct rlog_conn *c;
	int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	c = fd < 0 ? NULL : conn_new(l, fd, CONN_DIALING);
	if (c == NULL) {
		if (fd >= 0)
			close(fd);
		link_down(l, link);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof user_timeout);
	c->link = link;
	link->conn = c;
	c->peer = *address;
	c->connect_op.done = connect_done;
	sqe = conn_sqe(l, c, &c->connect_op);
	io_uring_prep_connect(sqe, fd, (struct sockaddr *)&c->peer, len);
}

struct resolve_job {
	struct rlog_job job;
	struct rlog_link *link;
	char address[RLOG_ADDRESS_MAX];
	struct sockaddr_storage found;
	socklen_t len;
	int result;
};

static void resolve_run(struct rlog_job *job)
{
	struct resolve_job *j = (struct resolve_job *)job;

	j->result = rlog_address_resolve(j->address, true, &j->found, &j->len);
}

static void resolve_done(struct rlog *l, struct rlog_job *job)
{
	struct resolve_job *j = (struct resolve_job *)job;
	struct rlog_link *link = j->link;

	link->resolving = false;
	if (!link->dropped) {
		if (j->result == 0 && strcmp(link->address, j->address) == 0) {
			dial_address(l, link, &j->found, j->len);
		} else {
			if (j->result != 0 && may_log(l, &link->logged_ms))
				rlog_loop_log(l, 'W', "cannot resolve node=%08llx address=%s",
					      (unsigned long long)link->id, link->address);
			link_down(l, link);
		}
	}
	free(j);
}

static void dial(struct rlog *l, struct rlog_link *link)
{
	struct sockaddr_storage address;
	struct resolve_job *j;
	socklen_t len;
	int rv = rlog_address_resolve(link->address, false, &address, &len);

	if (rv == 0) {
		dial_address(l, link, &address, len);
		return;
	}
	j = rv == -EINVAL ? NULL : calloc(1, sizeof *j);
	if (j == NULL) {
		link->backoff_ms = BACKOFF_MAX_MS;
		link_down(l, link);
		return;
	}
	j->job.run = resolve_run;
	j->job.done = resolve_done;
	j->link = link;
	memcpy(j->address, link->address, sizeof j->address);
	link->resolving = true;
	rlog_loop_job(l, &j->job);
}

/* ---- links -------------------------------------------------------------------------------- */

static struct rlog_link *link_find(struct rlog *l, uint64_t id)
{
	for (struct rlog_link *link = l->net.links; link != NULL; link = link->next)
		if (link->id == id && !link->dropped)
			return link;
	return NULL;
}

/* The link to node `id` at `address`, dialled at the next tick when it is new. */
static struct rlog_link *link_get(struct rlog *l, uint64_t id, const char *address)
{
	struct rlog_link *link = link_find(l, id);

	if (strlen(address) >= RLOG_ADDRESS_MAX)
		return NULL;
	if (link == NULL) {
		link = calloc(1, sizeof *link);
		if (link == NULL)
			return NULL;
		link->id = id;
		link->backoff_ms = BACKOFF_MIN_MS;
		link->next = l->net.links;
		l->net.links = link;
	}
	if (strcmp(link->address, address) != 0) {
		strcpy(link->address, address);
		if (link->conn != NULL)
			conn_close(l, link->conn);
		link->dial_ms = 0;
		link->backoff_ms = BACKOFF_MIN_MS;
	}
	return link;
}

int64_t rlog_net_room(void *ctx, uint64_t id, const char *address)
{
	struct rlog_link *link = link_get(ctx, id, address);

	if (link == NULL || !link->up)
		return -1;
	if (link->conn->out_bytes >= QUEUE_BYTES) {
		link->starved = true;
		return 0;
	}
	return QUEUE_BYTES - (int64_t)link->conn->out_bytes;
}

void rlog_net_send(void *ctx, uint64_t id, const char *address, const struct rlog_message *m)
{
	struct rlog_link *link = link_get(ctx, id, address);

	if (link != NULL && link->up)
		rlog_conn_send(link->conn, m, false);
}

bool rlog_net_connected(void *ctx, uint64_t id)
{
	struct rlog_link *link = link_find(ctx, id);

	return link != NULL && link->up;
}

/* Links lead to the members, and to whom this node follows when that is none yet. */
void rlog_net_members(void *ctx)
{
	struct rlog *l = ctx;
	struct rlog_member members[RLOG_MEMBERS_MAX];
	unsigned count;
	const char *address;
	uint64_t leader;

	if (l->server == NULL)
		return; /* rlog_server_new() is still at it; called again after */
	count = rlog_server_members(l->server, members);
	leader = rlog_server_leader(l->server, &address);
	for (unsigned i = 0; i < count; i++)
		if (members[i].id != l->id)
			link_get(l, members[i].id, members[i].address);
	for (struct rlog_link *link = l->net.links; link != NULL; link = link->next) {
		bool wanted = link->id == leader;

		for (unsigned i = 0; i < count; i++)
			wanted = wanted || members[i].id == link->id;
		if (wanted || count == 0)
			continue;
		link->dropped = true;
		if (link->conn != NULL)
			conn_close(l, link->conn);
	}
}

/* ---- time --------------------------------------------------------------------------------- */

uint64_t rlog_net_deadline(const struct rlog *l)
{
	uint64_t at = l->net.accept_ms != 0 ? l->net.accept_ms : UINT64_MAX;

	for (const struct rlog_link *link = l->net.links; link != NULL; link = link->next)
		if (!link->resolving && (link->dropped || link->conn == NULL) && link->dial_ms < at)
			at = link->dial_ms;
	for (const struct rlog_conn *c = l->net.conns; c != NULL; c = c->next)
		if (!c->closing && c->state != CONN_SENDING && c->state != CONN_MEMBER &&
		    c->greet_until_ms < at)
			at = c->greet_until_ms;
	return at;
}

void rlog_net_tick(struct rlog *l)
{
	struct rlog_link **at = &l->net.links;

	if (l->net.accept_ms != 0 && l->net.accept_ms <= l->now) {
		l->net.accept_ms = 0;
		accept_next(l);
	}
	for (struct rlog_conn *c = l->net.conns; c != NULL; c = c->next) {
		if (c->closing || c->state == CONN_SENDING || c->state == CONN_MEMBER ||
		    c->greet_until_ms > l->now)
			continue;
		conn_close(l, c);
	}
	while (*at != NULL) {
		struct rlog_link *link = *at;

		if (link->dropped && !link->resolving) {
			/* A closing connection still points here, but only looks when it is open. */
			for (struct rlog_conn *c = l->net.conns; c != NULL; c = c->next)
				if (c->link == link && c->ops > 0) {
					link->dial_ms = l->now + BACKOFF_MIN_MS;
					goto keep;
				}
			*at = link->next;
			free(link);
			continue;
		}
		if (!link->dropped && link->conn == NULL && !link->resolving &&
		    link->dial_ms <= l->now)
			dial(l, link);
keep:
		at = &link->next;
	}
}

/* ---- life --------------------------------------------------------------------------------- */

void rlog_net_start(struct rlog *l)
{
	l->net.accept_op.done = accept_done;
	accept_next(l);
}

static void stop_done(struct rlog *l, struct rlog_op *op, int result)
{
	(void)l;
	(void)op;
	(void)result;
}

void rlog_net_stop(struct rlog *l)
{
	static struct rlog_op stop_op = {.done = stop_done};
	struct io_uring_sqe *sqe;

	l->net.stopping = true;
	for (struct rlog_conn *c = l->net.conns; c != NULL; c = c->next)
		conn_close(l, c);
	for (struct rlog_link *link = l->net.links; link != NULL; link = link->next)
		link->dropped = true;
	if (l->net.accepting) {
		sqe = rlog_loop_sqe(l, &stop_op);
		io_uring_prep_cancel(sqe, &l->net.accept_op, 0);
	}
}

bool rlog_net_idle(const struct rlog *l)
{
	return l->net.conns == NULL && !l->net.accepting;
}

void rlog_net_each_joiner(struct rlog *l, void (*each)(struct rlog *l, struct rlog_conn *c))
{
	for (struct rlog_conn *c = l->net.conns; c != NULL; c = c->next)
		if (c->state == CONN_JOINER && c->join.waiting && !c->closing)
			each(l, c);
}

struct rlog_join_wait *rlog_conn_join(struct rlog_conn *c)
{
	return &c->join;
}
