/* The connections between nodes.
 *
 * Every node dials every other member, and sends on the connection it made; what others send
 * arrives on connections that they made. So between two nodes there are two, one per direction, and
 * no tie to break when both dial at once. A connection begins with HELLO (cluster, who, whom, where
 * the dialler listens) and WELCOME; then messages flow one way. It can also begin with JOIN (join.c),
 * or with STREAM, which is answered like HELLO: the dialler says nothing before it has the answer, and
 * with that sent the socket is taken out of the ring and becomes the owner's.
 *
 * Nothing here knows Raft: who the members are is told by the owner, what comes from them goes to it. All of
 * it belongs to the loop thread.
 */
#ifndef RAFTLOG_NET_H
#define RAFTLOG_NET_H

#include <stdbool.h>
#include <stdint.h>
#include "base/address.h"
#include "raftlog.h"
#include "ring/helper.h"
#include "ring/ring.h"
#include "wire/message.h"

/* This node, as it introduces itself. */
struct rlog_self {
	uint64_t cluster_id, id;
	char address[RLOG_ADDRESS_MAX];
	unsigned format_reads; /* a level (format.h) */
};

/* The owner of the connections; all are called on the loop thread, from within the functions below and
 * rlog_ring_complete(). */
struct rlog_net_owner {
	void *ctx;
	/* A message of member `from`, which listens at `address`; what it owns is the callee's. */
	void (*receive)(void *ctx, uint64_t from, const char *address, struct rlog_message *m);
	/* A part of one has come. */
	void (*hears)(void *ctx, uint64_t from, const char *address);
	/* Member `id`, at `address`, says in its greeting that it reads up to this level. */
	void (*reads)(void *ctx, uint64_t id, const char *address, unsigned level);
	/* The level that the log needs: nodes that read less are refused. */
	unsigned (*needs)(void *ctx);
	/* `id` can be sent more, or can be sent to at all. */
	void (*room)(void *ctx, uint64_t id);
	/* The socket of a member that asked for a stream. NULL: such are refused. */
	void (*stream)(void *ctx, int fd, uint64_t from);
	/* Who is connected has changed. */
	void (*changed)(void *ctx);
	void (*log)(void *ctx, char level, const char *line);
	/* As rlog_server_add(), rlog_server_outcome_of() and rlog_server_leader(): for a node that asks to join. */
	int (*add)(void *ctx, uint64_t id, const char *address, uint64_t *index, uint64_t *term);
	int (*outcome_of)(void *ctx, uint64_t index, uint64_t term);
	uint64_t (*leader)(void *ctx, const char **address);
};

struct rlog_net;

struct rlog_net_config {
	struct rlog_self self;
	int listen_fd; /* bound and listening; stays the caller's */
	unsigned election_timeout_ms;
	struct rlog_net_owner owner;
	struct rlog_ring *ring;
	struct rlog_helper *helper; /* resolves names */
};

/* NULL: out of memory. */
struct rlog_net *rlog_net_new(const struct rlog_net_config *config);
/* The kernel and the helper have nothing of it any more. NULL is allowed. */
void rlog_net_free(struct rlog_net *net);

void rlog_net_start(struct rlog_net *net, uint64_t now_ms);
/* Close all connections, and begin none. */
void rlog_net_stop(struct rlog_net *net);
bool rlog_net_idle(const struct rlog_net *net); /* nothing in the kernel any more */

/* The time, from a clock that never goes back. */
void rlog_net_now(struct rlog_net *net, uint64_t now_ms);
/* When rlog_net_tick() wants to be called next. */
uint64_t rlog_net_deadline(const struct rlog_net *net);
void rlog_net_tick(struct rlog_net *net);
/* Put what is queued anywhere into the ring. */
void rlog_net_flush(struct rlog_net *net);
/* Answer the nodes that ask to join, as far as it is known what became of them. */
void rlog_net_answer_joiners(struct rlog_net *net);

/* ---- links to other nodes ---- */

/* Links lead to the members, and to whom this node follows when that is none yet (0: nobody). */
void rlog_net_set_members(struct rlog_net *net, const struct rlog_member *members, unsigned count,
			  uint64_t leader);
/* As io.room, io.send and io.connected of struct rlog_server_io. */
int64_t rlog_net_room(struct rlog_net *net, uint64_t id, const char *address);
void rlog_net_send(struct rlog_net *net, uint64_t id, const char *address,
		   const struct rlog_message *m);
bool rlog_net_connected(const struct rlog_net *net, uint64_t id);

#endif
