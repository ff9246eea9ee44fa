/* A connection: a socket in the ring, from which whole messages come and into which frames go.
 *
 * It knows what a frame is, and nothing of who speaks: that is its owner's, links.c for one that this node
 * dialled, accept.c for one that another did. One thread.
 *
 * An object that the kernel may still write to is not freed: a connection counts its operations in
 * the ring, and goes when it is closing and none is left.
 */
#ifndef RAFTLOG_CONN_H
#define RAFTLOG_CONN_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include "base/address.h"
#include "ring/ring.h"
#include "wire/message.h"

#define RLOG_CONN_IOV_MAX 64

struct rlog_conn;

/* What its owner is told, on the loop thread. Each may close the connection. */
struct rlog_conn_ops {
	/* rlog_conn_dial() has ended: 0 or -errno, upon which it is closed. */
	void (*connected)(struct rlog_conn *c, int result);
	/* A whole message has come; true: what it owns is the callee's. False: it does not belong here, and the
	 * connection is closed. */
	bool (*message)(struct rlog_conn *c, struct rlog_message *m);
	/* A part of a message has come. */
	void (*partial)(struct rlog_conn *c);
	/* Some of what was queued has been sent. */
	void (*sent)(struct rlog_conn *c);
	/* It is closing. `error`: 0, or why what came is of no use (-ENOMEM, -EPROTO, -EBADMSG). The memory goes
	 * when the kernel is done with it. */
	void (*closed)(struct rlog_conn *c, int error);
};

enum rlog_conn_state {
	CONN_DIALING,  /* ours: connect() is on its way */
	CONN_GREETING, /* ours: HELLO sent, WELCOME awaited */
	CONN_SENDING,  /* ours: up */
	CONN_ACCEPTED, /* theirs: HELLO or JOIN awaited */
	CONN_MEMBER,   /* theirs: messages come */
	CONN_JOINER,   /* theirs: JOIN has come, the answer is due */
	CONN_STREAM,   /* theirs: STREAM has come; the owner's once the answer is sent */
};

LIST_HEAD(rlog_conns, rlog_conn);

struct rlog_conn {
	/* the owner's */
	LIST_ENTRY(rlog_conn) entry; /* in its list, as long as there is the memory */
	struct rlog_net *net;
	const struct rlog_conn_ops *ops;
	enum rlog_conn_state state;
	struct rlog_link *link;		/* ours: whom it leads to */
	uint64_t from;			/* theirs: who sends */
	char address[RLOG_ADDRESS_MAX]; /* and where that one listens */
	uint64_t greet_until_ms;
	bool last; /* close once everything is sent */
	struct {
		bool waiting;
		uint64_t index, term;
	} join;	      /* JOINER: for this entry */
	bool trusted; /* may send large messages: before the greeting nobody gets to fill our memory */
	bool silent; /* nothing is received any more */

	/* conn.c's; others may look */
	struct rlog_ring *ring;
	struct rlog_op connect_op, recv_op, send_op, cancel_op;
	int fd;
	bool closing;
	bool detached; /* the socket lives on elsewhere */
	bool dialing, sending;
	unsigned ops_count; /* in the ring */
	struct sockaddr_storage peer;
	uint8_t *in; /* [in_begin, in_end) is not parsed yet */
	size_t in_begin, in_end, in_size;
	struct rlog_frame *out, **out_tail;
	size_t out_bytes, out_skip; /* of the first frame, already sent */
	struct msghdr msg;
	struct iovec iov[RLOG_CONN_IOV_MAX];
};

/* A connection of the socket `fd`, at the front of `conns`; NULL: out of memory, and `fd` stays the caller's. */
struct rlog_conn *rlog_conn_new(struct rlog_conns *conns, struct rlog_ring *ring, int fd,
				const struct rlog_conn_ops *ops);
/* Connect it to `to`. */
void rlog_conn_dial(struct rlog_conn *c, const struct sockaddr_storage *to, socklen_t len);
/* It is connected: begin to receive. False: it had to be closed. */
bool rlog_conn_receive(struct rlog_conn *c);
/* Queue a message on a connection; rlog_conn_flush() sends it. It is lost when the connection is closing, or
 * there is no memory: so the greeting's time runs out. */
void rlog_conn_send(struct rlog_conn *c, const struct rlog_message *m);
/* Put what is queued into the ring. */
void rlog_conn_flush(struct rlog_conn *c);
void rlog_conn_close(struct rlog_conn *c);
/* Close the connection, while its socket lives on as the descriptor that is returned (-1: it could not be
 * duplicated). Nothing is being received. */
int rlog_conn_detach(struct rlog_conn *c);

#endif
