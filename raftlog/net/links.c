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
#include "net/levels.h"
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
	rlog_net_stamp(c->net, &m);
	rlog_conn_send(c, &m);
}

/* It is the node that was expected; but one of the two is too old for the other. */
static bool one_is_older(struct rlog_conn *c, const struct rlog_message *m)
{
	struct rlog_link *link = c->link;

	if (m->welcome.answer == RLOG_ANSWER_TOO_OLD)
		rlog_net_line_too_old(c->net, link->id, link->address, m);
	else if (m->welcome.answer == RLOG_ANSWER_OK && m->welcome.from == link->id &&
		 !rlog_net_reads_enough(c->net, m))
		rlog_net_line_older(c->net, link->id, link->address, m);
	else
		return false;
	link->backoff_ms = BACKOFF_MAX_MS;
	rlog_conn_close(c);
	return true;
}

static void welcomed(struct rlog_conn *c, const struct rlog_message *m)
{
	struct rlog_net *net = c->net;
	struct rlog_link *link = c->link;

	if (one_is_older(c, m))
		return;
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
	net->config.owner.reads(net->config.owner.ctx, link->id, link->address, m->reads);
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

	SLIST_FOREACH (link, &net->links, entry)
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
	SLIST_FOREACH (link, &net->links, entry) {
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

	SLIST_FOREACH (link, &net->links, entry)
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
	LIST_FOREACH (c, &link->net->conns, entry)
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

	SLIST_FOREACH (link, &net->links, entry)
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
