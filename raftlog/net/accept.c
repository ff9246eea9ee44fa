/* Connections that others make: accepted, greeted, and then what comes on them goes to the owner. */
#include "net/accept.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "net/inside.h"
#include "net/join.h"
#include "net/levels.h"
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
	if (!rlog_net_reads_enough(net, m))
		return RLOG_ANSWER_TOO_OLD;
	return RLOG_ANSWER_OK;
}

static void log_refusal(struct rlog_net *net, const struct rlog_message *m, enum rlog_answer answer)
{
	if (answer == RLOG_ANSWER_TOO_OLD) {
		rlog_net_line_older(net, m->hello.from, m->hello.address, m);
		return;
	}
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
	rlog_net_stamp(net, &answer);
	if (answer.welcome.answer != RLOG_ANSWER_OK) {
		log_refusal(net, m, answer.welcome.answer);
		rlog_conn_send(c, &answer);
		c->last = true;
		return;
	}
	/* A node that dials again has given up its older connection. */
	LIST_FOREACH (o, &net->conns, entry)
		if (m->type == RLOG_MSG_HELLO && o != c && o->state == CONN_MEMBER &&
		    o->from == m->hello.from)
			rlog_conn_close(o);
	c->from = m->hello.from;
	memcpy(c->address, m->hello.address, sizeof c->address);
	c->state = m->type == RLOG_MSG_STREAM ? CONN_STREAM : CONN_MEMBER;
	c->trusted = c->state == CONN_MEMBER;
	c->silent = c->state == CONN_STREAM;
	net->config.owner.reads(net->config.owner.ctx, c->from, c->address, m->reads);
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

	LIST_FOREACH (c, &net->conns, entry)
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
