/* Log lines of the connections. */
#include "net/line.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include "net/inside.h"

#define LOG_INTERVAL_MS 10000

void rlog_net_line(const struct rlog_net *net, char level, const char *format, ...)
{
	const struct rlog_net_owner *owner = &net->config.owner;
	char line[512];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	owner->log(owner->ctx, level, line);
}

bool rlog_net_may_log(const struct rlog_net *net, uint64_t *logged_ms)
{
	if (*logged_ms != 0 && net->now - *logged_ms < LOG_INTERVAL_MS)
		return false;
	*logged_ms = net->now;
	return true;
}

void rlog_net_line_closed(struct rlog_net *net, uint64_t id, const char *address, int error)
{
	if (error == 0 || !rlog_net_may_log(net, &net->logged_ms))
		return;
	rlog_net_line(net, 'W', "closed a connection: %s node=%08llx address=%s",
		      error == -ENOMEM	 ? "out of memory"
		      : error == -EPROTO ? "it speaks something else"
					 : "damaged message",
		      (unsigned long long)id, address);
}
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
/* Links: the connections that this node makes, one to every other member.
 *
 * A connection that breaks is dialled again after 50 ms, then twice as long, up to a second. What
 * was queued is dropped: Raft notices and sends again. What is queued is bounded: above
 * QUEUE_BYTES rlog_net_room() says 0, and the owner keeps the rest as an index range.
 */
#include "net/links.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "net/inside.h"
#include "net/line.h"

#define QUEUE_BYTES (8u << 20)
#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 1000

static void link_down(struct rlog_link *link)
{
	struct rlog_net *net = link->net;

	link->conn = NULL;
	link->up = false;
	link->starved = false;
	link->dial_ms = net->now + link->backoff_ms;
	link->backoff_ms =
		link->backoff_ms * 2 < BACKOFF_MAX_MS ? link->backoff_ms * 2 : BACKOFF_MAX_MS;
	net->config.owner.changed(net->config.owner.ctx);
}

/* ---- a connection ------------------------------------------------------------------------- */

static void link_connected(struct rlog_conn *c, int result)
{
	const struct rlog_self *self = &c->net->config.self;
	struct rlog_message m = {.type = RLOG_MSG_HELLO};

	if (result != 0) {
		if (rlog_net_may_log(c->net, &c->link->logged_ms))
			rlog_net_line(c->net, 'W', "cannot reach node=%08llx address=%s: %s",
				      (unsigned long long)c->link->id, c->link->address,
				      strerror(-result));
		return;
	}
	c->state = CONN_GREETING;
	if (!rlog_conn_receive(c))
		return;
	m.hello.cluster_id = self->cluster_id;
	m.hello.from = self->id;
	m.hello.to = c->link->id;
	memcpy(m.hello.address, self->address, sizeof m.hello.address);
	rlog_conn_send(c, &m);
}

static void welcomed(struct rlog_conn *c, const struct rlog_message *m)
{
	struct rlog_net *net = c->net;
	struct rlog_link *link = c->link;

	if (m->welcome.answer != RLOG_ANSWER_OK || m->welcome.from != link->id) {
		if (rlog_net_may_log(net, &link->logged_ms))
			rlog_net_line(
				net, 'W',
				"%s address=%s expected=%08llx found=%08llx cluster=%016llx",
				m->welcome.cluster_id != net->config.self.cluster_id &&
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
		rlog_conn_close(c);
		return;
	}
	c->state = CONN_SENDING;
	link->up = true;
	link->backoff_ms = BACKOFF_MIN_MS;
	link->logged_ms = 0;
	net->config.owner.changed(net->config.owner.ctx);
	net->config.owner.room(net->config.owner.ctx, link->id);
}

static bool link_message(struct rlog_conn *c, struct rlog_message *m)
{
	if (c->state != CONN_GREETING || m->type != RLOG_MSG_WELCOME)
		return false;
	welcomed(c, m);
	return true;
}

static void link_partial(struct rlog_conn *c)
{
	(void)c;
}

static void link_sent(struct rlog_conn *c)
{
	const struct rlog_net_owner *owner = &c->net->config.owner;

	if (c->link->starved && c->out_bytes < QUEUE_BYTES / 2) {
		c->link->starved = false;
		owner->room(owner->ctx, c->link->id);
	}
}

static void link_closed(struct rlog_conn *c, int error)
{
	rlog_net_line_closed(c->net, c->link->id, c->link->address, error);
	if (c->link->conn == c)
		link_down(c->link);
}

/* ---- dialling ----------------------------------------------------------------------------- */

static void dial_address(struct rlog_link *link, const struct sockaddr_storage *address,
			 socklen_t len)
{
	static const struct rlog_conn_ops ops = {
		.connected = link_connected,
		.message = link_message,
		.partial = link_partial,
		.sent = link_sent,
		.closed = link_closed,
	};
	struct rlog_net *net = link->net;
	unsigned user_timeout = net->config.election_timeout_ms * 4;
	struct rlog_conn *c;
	int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	c = fd < 0 ? NULL : rlog_conn_new(&net->conns, net->config.ring, fd, &ops);
	if (c == NULL) {
		if (fd >= 0)
			close(fd);
		link_down(link);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof user_timeout);
	c->net = net;
	c->state = CONN_DIALING;
	c->greet_until_ms = net->now + GREETING_MS;
	c->link = link;
	link->conn = c;
	rlog_conn_dial(c, address, len);
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

static void resolve_done(struct rlog_job *job)
{
	struct resolve_job *j = (struct resolve_job *)job;
	struct rlog_link *link = j->link;

	link->resolving = false;
	if (!link->dropped) {
		if (j->result == 0 && strcmp(link->address, j->address) == 0) {
			dial_address(link, &j->found, j->len);
		} else {
			if (j->result != 0 && rlog_net_may_log(link->net, &link->logged_ms))
				rlog_net_line(link->net, 'W',
					      "cannot resolve node=%08llx address=%s",
					      (unsigned long long)link->id, link->address);
			link_down(link);
		}
	}
	free(j);
}

static void dial(struct rlog_link *link)
{
	struct sockaddr_storage address;
	struct resolve_job *j;
	socklen_t len;
	int rv = rlog_address_resolve(link->address, false, &address, &len);

	if (rv == 0) {
		dial_address(link, &address, len);
		return;
	}
	j = rv == -EINVAL ? NULL : calloc(1, sizeof *j);
	if (j == NULL) {
		link->backoff_ms = BACKOFF_MAX_MS;
		link_down(link);
		return;
	}
	j->job.run = resolve_run;
	j->job.done = resolve_done;
	j->link = link;
	memcpy(j->address, link->address, sizeof j->address);
	link->resolving = true;
	rlog_helper_ask(link->net->config.helper, &j->job);
}

/* ---- links -------------------------------------------------------------------------------- */

static struct rlog_link *link_find(const struct rlog_net *net, uint64_t id)
{
	struct rlog_link *link;

	SLIST_FOREACH(link, &net->links, entry)
	if (link->id == id && !link->dropped)
		return link;
	return NULL;
}

/* The link to node `id` at `address`, dialled at the next tick when it is new. */
static struct rlog_link *link_get(struct rlog_net *net, uint64_t id, const char *address)
{
	struct rlog_link *link = link_find(net, id);

	if (strlen(address) >= RLOG_ADDRESS_MAX)
		return NULL;
	if (link == NULL) {
		link = calloc(1, sizeof *link);
		if (link == NULL)
			return NULL;
		link->net = net;
		link->id = id;
		link->backoff_ms = BACKOFF_MIN_MS;
		SLIST_INSERT_HEAD(&net->links, link, entry);
	}
	if (strcmp(link->address, address) != 0) {
		strcpy(link->address, address);
		if (link->conn != NULL)
			rlog_conn_close(link->conn);
		link->dial_ms = 0;
		link->backoff_ms = BACKOFF_MIN_MS;
	}
	return link;
}

int64_t rlog_net_room(struct rlog_net *net, uint64_t id, const char *address)
{
	struct rlog_link *link = link_get(net, id, address);

	if (link == NULL || !link->up)
		return -1;
	if (link->conn->out_bytes >= QUEUE_BYTES) {
		link->starved = true;
		return 0;
	}
	return QUEUE_BYTES - (int64_t)link->conn->out_bytes;
}

void rlog_net_send(struct rlog_net *net, uint64_t id, const char *address,
		   const struct rlog_message *m)
{
	struct rlog_link *link = link_get(net, id, address);

	if (link != NULL && link->up)
		rlog_conn_send(link->conn, m);
}

bool rlog_net_connected(const struct rlog_net *net, uint64_t id)
{
	struct rlog_link *link = link_find(net, id);

	return link != NULL && link->up;
}

static void drop(struct rlog_link *link)
{
	link->dropped = true;
	if (link->conn != NULL)
		rlog_conn_close(link->conn);
}

void rlog_net_set_members(struct rlog_net *net, const struct rlog_member *members, unsigned count,
			  uint64_t leader)
{
	struct rlog_link *link;

	net->member_count = count;
	for (unsigned i = 0; i < count; i++) {
		net->members[i] = members[i].id;
		if (members[i].id != net->config.self.id)
			link_get(net, members[i].id, members[i].address);
	}
	SLIST_FOREACH(link, &net->links, entry)
	{
		bool wanted = link->id == leader;

		for (unsigned i = 0; i < count; i++)
			wanted = wanted || members[i].id == link->id;
		if (!wanted && count > 0)
			drop(link);
	}
}

/* ---- time --------------------------------------------------------------------------------- */

uint64_t rlog_links_deadline(const struct rlog_net *net)
{
	const struct rlog_link *link;
	uint64_t at = UINT64_MAX;

	SLIST_FOREACH(link, &net->links, entry)
	if (!link->resolving && (link->dropped || link->conn == NULL) && link->dial_ms < at)
		at = link->dial_ms;
	return at;
}

/* A closing connection still points to its link, but only looks when it is open. */
static bool is_used(const struct rlog_link *link)
{
	const struct rlog_conn *c;

	if (link->resolving)
		return true;
	LIST_FOREACH(c, &link->net->conns, entry)
	if (c->link == link && c->ops_count > 0)
		return true;
	return false;
}

void rlog_links_tick(struct rlog_net *net)
{
	struct rlog_link *link, *next;

	for (link = SLIST_FIRST(&net->links); link != NULL; link = next) {
		next = SLIST_NEXT(link, entry);
		if (link->dropped && !is_used(link)) {
			SLIST_REMOVE(&net->links, link, rlog_link, entry);
			free(link);
		} else if (link->dropped && !link->resolving) {
			link->dial_ms = net->now + BACKOFF_MIN_MS;
		} else if (!link->dropped && link->conn == NULL && !link->resolving &&
			   link->dial_ms <= net->now) {
			dial(link);
		}
	}
}

void rlog_links_drop_all(struct rlog_net *net)
{
	struct rlog_link *link;

	SLIST_FOREACH(link, &net->links, entry)
	link->dropped = true;
}

void rlog_links_free(struct rlog_net *net)
{
	struct rlog_link *link;

	while ((link = SLIST_FIRST(&net->links)) != NULL) {
		SLIST_REMOVE_HEAD(&net->links, entry);
		free(link);
	}
}
/* Connections that others make: accepted, greeted, and then what comes on them goes to the owner. */
#include "net/accept.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "net/inside.h"
#include "net/join.h"
#include "net/line.h"

#define JOIN_MS 10000	 /* for the change that lets a node join */
#define ACCEPTED_MAX 256 /* incoming connections */
#define SHORTAGE_MS 100	 /* between attempts to accept, when there are no descriptors */

/* ---- greeting ----------------------------------------------------------------------------- */

static bool is_member(const struct rlog_net *net, uint64_t id)
{
	for (unsigned i = 0; i < net->member_count; i++)
		if (net->members[i] == id)
			return true;
	return false;
}

static enum rlog_answer answer_to(const struct rlog_net *net, const struct rlog_message *m)
{
	const struct rlog_self *self = &net->config.self;

	if (m->hello.cluster_id != self->cluster_id)
		return RLOG_ANSWER_OTHER_CLUSTER;
	if (m->hello.to != self->id || m->hello.from == self->id)
		return RLOG_ANSWER_OTHER_NODE;
	if (m->type == RLOG_MSG_STREAM && !is_member(net, m->hello.from))
		return RLOG_ANSWER_NO_MEMBER;
	return RLOG_ANSWER_OK;
}

static void log_refusal(struct rlog_net *net, const struct rlog_message *m, enum rlog_answer answer)
{
	if (!rlog_net_may_log(net, &net->logged_ms))
		return;
	rlog_net_line(net, 'W', "refused a connection %s node=%08llx address=%s cluster=%016llx",
		      answer == RLOG_ANSWER_OTHER_CLUSTER
			      ? "of another cluster: if that node was a member before this "
				"cluster was recovered, empty its data directory and join it "
				"again"
			      : "for another node, or of no member",
		      (unsigned long long)m->hello.from, m->hello.address,
		      (unsigned long long)m->hello.cluster_id);
}

static void greet(struct rlog_conn *c, const struct rlog_message *m)
{
	struct rlog_message answer = {.type = RLOG_MSG_WELCOME};
	struct rlog_net *net = c->net;
	struct rlog_conn *o;

	answer.welcome.cluster_id = net->config.self.cluster_id;
	answer.welcome.from = net->config.self.id;
	answer.welcome.answer = answer_to(net, m);
	if (answer.welcome.answer != RLOG_ANSWER_OK) {
		log_refusal(net, m, answer.welcome.answer);
		rlog_conn_send(c, &answer);
		c->last = true;
		return;
	}
	/* A node that dials again has given up its older connection. */
	LIST_FOREACH(o, &net->conns, entry)
	if (m->type == RLOG_MSG_HELLO && o != c && o->state == CONN_MEMBER &&
	    o->from == m->hello.from)
		rlog_conn_close(o);
	c->from = m->hello.from;
	memcpy(c->address, m->hello.address, sizeof c->address);
	c->state = m->type == RLOG_MSG_STREAM ? CONN_STREAM : CONN_MEMBER;
	c->trusted = c->state == CONN_MEMBER;
	c->silent = c->state == CONN_STREAM;
	rlog_conn_send(c, &answer);
}

/* ---- a connection ------------------------------------------------------------------------- */

static bool first_message(struct rlog_conn *c, struct rlog_message *m)
{
	struct rlog_net *net = c->net;

	if (c->last)
		return false;
	if (m->type == RLOG_MSG_HELLO ||
	    (m->type == RLOG_MSG_STREAM && net->config.owner.stream != NULL)) {
		greet(c, m);
		return true;
	}
	if (m->type == RLOG_MSG_JOIN) {
		c->state = CONN_JOINER;
		c->greet_until_ms = net->now + JOIN_MS;
		rlog_join_request(c, m);
		return true;
	}
	return false;
}

static bool accepted_message(struct rlog_conn *c, struct rlog_message *m)
{
	const struct rlog_net_owner *owner = &c->net->config.owner;

	if (c->state == CONN_ACCEPTED)
		return first_message(c, m);
	if (c->state != CONN_MEMBER || m->type < RLOG_MSG_APPEND || m->type > RLOG_MSG_NEEDS_STATE)
		return false;
	owner->receive(owner->ctx, c->from, c->address, m);
	return true;
}

static void accepted_partial(struct rlog_conn *c)
{
	const struct rlog_net_owner *owner = &c->net->config.owner;

	if (c->state == CONN_MEMBER)
		owner->hears(owner->ctx, c->from, c->address);
}

/* The answer to STREAM is sent, and nothing is being received. */
static void hand_over(struct rlog_conn *c)
{
	const struct rlog_net_owner *owner = &c->net->config.owner;
	uint64_t from = c->from;
	int fd = rlog_conn_detach(c);

	if (fd >= 0)
		owner->stream(owner->ctx, fd, from);
}

static void accepted_sent(struct rlog_conn *c)
{
	if (c->out != NULL)
		return;
	if (c->state == CONN_STREAM) {
		hand_over(c);
	} else if (c->last) {
		/* Let the other side read it: it closes. */
		shutdown(c->fd, SHUT_WR);
		c->greet_until_ms = c->net->now + GREETING_MS;
		c->state = CONN_ACCEPTED;
	}
}

static void accepted_closed(struct rlog_conn *c, int error)
{
	rlog_net_line_closed(c->net, c->from, c->address, error);
}

/* ---- accepting ---------------------------------------------------------------------------- */

static void accept_next(struct rlog_net *net)
{
	struct io_uring_sqe *sqe = rlog_ring_sqe(net->config.ring, &net->accept_op);

	net->accepting = true;
	io_uring_prep_accept(sqe, net->config.listen_fd, NULL, NULL, SOCK_CLOEXEC);
}

static unsigned accepted_count(const struct rlog_net *net)
{
	const struct rlog_conn *c;
	unsigned count = 0;

	LIST_FOREACH(c, &net->conns, entry)
	count += c->link == NULL;
	return count;
}

static void accepted(struct rlog_net *net, int fd)
{
	static const struct rlog_conn_ops ops = {
		.message = accepted_message,
		.partial = accepted_partial,
		.sent = accepted_sent,
		.closed = accepted_closed,
	};
	struct rlog_conn *c = NULL;

	if (accepted_count(net) < ACCEPTED_MAX)
		c = rlog_conn_new(&net->conns, net->config.ring, fd, &ops);
	if (c == NULL) {
		close(fd);
		return;
	}
	c->net = net;
	c->state = CONN_ACCEPTED;
	c->greet_until_ms = net->now + GREETING_MS;
	rlog_conn_receive(c);
}

static void accept_done(struct rlog_op *op, int result)
{
	struct rlog_net *net =
		(struct rlog_net *)((char *)op - offsetof(struct rlog_net, accept_op));

	net->accepting = false;
	if (result == -ECANCELED || result == -EBADF || result == -EINVAL || net->stopping) {
		if (result >= 0)
			close(result);
		return;
	}
	if (result < 0 && result != -ECONNABORTED && result != -EINTR && result != -EAGAIN) {
		/* The kernel keeps who waits, and would say the same again at once. */
		net->accept_ms = net->now + SHORTAGE_MS;
		if (rlog_net_may_log(net, &net->shortage_logged_ms))
			rlog_net_line(
				net, 'W',
				"cannot take connections of other nodes error=\"%s\": raise the "
				"limit on descriptors (ulimit -n)",
				strerror(-result));
		return;
	}
	if (result >= 0)
		accepted(net, result);
	accept_next(net);
}

static void stop_done(struct rlog_op *op, int result)
{
	(void)op;
	(void)result;
}

void rlog_accept_start(struct rlog_net *net)
{
	net->accept_op.done = accept_done;
	net->stop_op.done = stop_done;
	accept_next(net);
}

void rlog_accept_stop(struct rlog_net *net)
{
	struct io_uring_sqe *sqe;

	net->stopping = true;
	if (!net->accepting)
		return;
	sqe = rlog_ring_sqe(net->config.ring, &net->stop_op);
	io_uring_prep_cancel(sqe, &net->accept_op, 0);
}

void rlog_accept_tick(struct rlog_net *net)
{
	if (net->accept_ms == 0 || net->accept_ms > net->now)
		return;
	net->accept_ms = 0;
	accept_next(net);
}
/* The connections between nodes, together: links.c for those that this node makes, accept.c for those that
 * others make, conn.c for what both are. */
#include "net/net.h"

#include <stdlib.h>
#include "net/accept.h"
#include "net/inside.h"
#include "net/join.h"
#include "net/links.h"

struct rlog_net *rlog_net_new(const struct rlog_net_config *config)
{
	struct rlog_net *net = calloc(1, sizeof *net);

	if (net != NULL)
		net->config = *config;
	return net;
}

void rlog_net_free(struct rlog_net *net)
{
	if (net == NULL)
		return;
	rlog_links_free(net);
	free(net);
}

void rlog_net_start(struct rlog_net *net, uint64_t now_ms)
{
	net->now = now_ms;
	rlog_accept_start(net);
}

void rlog_net_stop(struct rlog_net *net)
{
	struct rlog_conn *c;

	rlog_accept_stop(net);
	LIST_FOREACH(c, &net->conns, entry)
	rlog_conn_close(c);
	rlog_links_drop_all(net);
}

bool rlog_net_idle(const struct rlog_net *net)
{
	return LIST_EMPTY(&net->conns) && !net->accepting;
}

/* ---- time --------------------------------------------------------------------------------- */

void rlog_net_now(struct rlog_net *net, uint64_t now_ms)
{
	net->now = now_ms;
}

/* Is there something that it has to do by greet_until_ms? */
static bool is_timed(const struct rlog_conn *c)
{
	return !c->closing && c->state != CONN_SENDING && c->state != CONN_MEMBER;
}

uint64_t rlog_net_deadline(const struct rlog_net *net)
{
	uint64_t at = rlog_links_deadline(net);
	const struct rlog_conn *c;

	if (net->accept_ms != 0 && net->accept_ms < at)
		at = net->accept_ms;
	LIST_FOREACH(c, &net->conns, entry)
	if (is_timed(c) && c->greet_until_ms < at)
		at = c->greet_until_ms;
	return at;
}

void rlog_net_tick(struct rlog_net *net)
{
	struct rlog_conn *c;

	rlog_accept_tick(net);
	LIST_FOREACH(c, &net->conns, entry)
	if (is_timed(c) && c->greet_until_ms <= net->now)
		rlog_conn_close(c);
	rlog_links_tick(net);
}

void rlog_net_flush(struct rlog_net *net)
{
	struct rlog_conn *c;

	LIST_FOREACH(c, &net->conns, entry)
	rlog_conn_flush(c);
}

void rlog_net_answer_joiners(struct rlog_net *net)
{
	struct rlog_conn *c;

	LIST_FOREACH(c, &net->conns, entry)
	rlog_join_look(c);
}
