/* A Raft server without clock, socket or thread.
 *
 * It owns libraft's `struct raft` and drives a `struct rlog_log`. Its owner (the loop thread, or the
 * simulator) tells it what happened: a message came, a write ended, time passed, a request was
 * submitted. It answers through the narrow `struct rlog_server_io` (send this, write this) and
 * through the callbacks of raftlog.h. Given the same events it does the same things: all
 * randomness comes from the seed.
 *
 * A turn of the owner is: rlog_server_now(), any number of events, rlog_server_turn() (which submits
 * what waits to Raft and starts the log write), rlog_server_deliver() (which calls `apply` and
 * `view`). What was prepared by the turn may be handed to the kernel before delivering.
 *
 * After an error that this node cannot survive rlog_server_failure() tells why, and every function
 * does nothing; the owner stops.
 */
#ifndef RAFTLOG_SERVER_H
#define RAFTLOG_SERVER_H

#include "log/disk.h"
#include "log/log.h"
#include "wire/message.h"

struct rlog_server;

struct rlog_server_io {
	void *ctx;
	/* How many bytes node `id`, at `address`, can be sent now: negative when there is no
	 * connection (what would be sent is dropped; a connection may be started), 0 when enough is
	 * queued; rlog_server_room() tells when that changes. */
	int64_t (*room)(void *ctx, uint64_t id, const char *address);
	/* Queue a message; it may be lost, but messages to one node never overtake each other. The
	 * message and its payloads stay the server's. */
	void (*send)(void *ctx, uint64_t id, const char *address, const struct rlog_message *m);
	/* Perform the write, durably, then call rlog_server_written(), not from within. */
	void (*write)(void *ctx, const struct rlog_log_write *w);
	/* The members, or their addresses, have changed; rlog_server_members() tells them. */
	void (*members)(void *ctx);
	/* For the status only. */
	bool (*connected)(void *ctx, uint64_t id);
};

struct rlog_server_config {
	uint64_t id;
	const char *address;
	unsigned election_timeout_ms, heartbeat_ms, commit_timeout_ms; /* 0: the default */
	unsigned seed;
	unsigned format_reads; /* the level that this node reads; 0: RLOG_FORMAT_LEVEL */
	struct rlog_server_io io;
	struct rlog_callbacks cb; /* `fatal` is not called: see rlog_server_failure() */
	void *ctx;
};

/* The log stays the caller's and must outlive the server. 0 or -errno with `errmsg`. */
int rlog_server_new(struct rlog_server **out, const struct rlog_server_config *config,
		    struct rlog_log *log, uint64_t now_ms, char errmsg[RLOG_ERRMSG_SIZE]);
/* End pending requests as UNKNOWN, those never submitted to Raft as REFUSED. Nothing goes on after. */
void rlog_server_end(struct rlog_server *s);
void rlog_server_free(struct rlog_server *s); /* and that */

/* NULL, or one line that says why the node cannot go on. */
const char *rlog_server_failure(const struct rlog_server *s);
/* Something outside failed for good (a send queue out of memory, a ring that broke). */
void rlog_server_fail(struct rlog_server *s, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- events ------------------------------------------------------------------------------- */

/* The time, from a clock that never goes back. */
void rlog_server_now(struct rlog_server *s, uint64_t now_ms);
/* When rlog_server_tick() wants to be called next; may be now. */
uint64_t rlog_server_deadline(const struct rlog_server *s);
void rlog_server_tick(struct rlog_server *s);

/* A message of the types APPEND to TIMEOUT_NOW from node `from`, which listens at `address`.
 * Consumes what the message owns. */
void rlog_server_receive(struct rlog_server *s, uint64_t from, const char *address,
			 struct rlog_message *m);
/* Bytes of a message of node `from` have come, but not all: so it lives. Without this a large entry
 * on a slow network would cost its leader the leadership, on both sides. */
void rlog_server_hears(struct rlog_server *s, uint64_t from, const char *address);
/* The write given to io.write has ended: its byte count or -errno. */
void rlog_server_written(struct rlog_server *s, int64_t result);
/* A greeting of node `id`, at `address`, said up to which level it reads. */
void rlog_server_reads(struct rlog_server *s, uint64_t id, const char *address, unsigned level);
/* Node `id` can be sent more, or can be sent to at all. */
void rlog_server_room(struct rlog_server *s, uint64_t id);

void rlog_server_submit(struct rlog_server *s, struct rlog_request *req);
void rlog_server_resume(struct rlog_server *s);

/* Begin to hand leadership to `id` (0: the most up-to-date voter). 0, -EALREADY (not the leader),
 * -ENOENT (no such other voter), -EBUSY (a transfer is on its way), -EHOSTUNREACH (it does not answer). It
 * ends when the view says that another node leads, when the target falls silent, or after timeout_ms.
 * Submissions wait for it for an election timeout at a time, and at most half of the time. */
int rlog_server_transfer(struct rlog_server *s, uint64_t id, unsigned timeout_ms);
/* 0: it is under way, or this node leads no more; -EHOSTUNREACH, -ETIMEDOUT: what ended the last one. */
int rlog_server_transfer_result(const struct rlog_server *s);

/* Make node `id` at `address` a standby (it is promoted by itself later), or change the address of
 * a member. 0: the change is entry `*index` of term `*term`; -EALREADY: it is so, committed;
 * -EAGAIN: not the leader, or busy; -EADDRINUSE; -ENFILE: too many members. */
int rlog_server_add(struct rlog_server *s, uint64_t id, const char *address, uint64_t *index,
		    uint64_t *term);

/* The image of a snapshot at `index`, to be stored (rlog_snapshot_store(), on any thread) and then given
 * to rlog_server_snapshot(). 0, -EINVAL (not delivered yet, or in front of the newest), -errno. */
int rlog_server_image(struct rlog_server *s, uint64_t index, const struct rlog_buf *payload,
		      struct rlog_buf **image);
/* It has been stored, and no other since. 0 or -errno. */
int rlog_server_snapshot(struct rlog_server *s, struct rlog_buf *image, uint64_t keep_bytes);
/* What rlog_install() says. Not while rlog_server_writing(), nor while a spare segment is being made.
 * Stores the snapshot itself. */
int rlog_server_install(struct rlog_server *s, struct rlog_disk *d, struct rlog_buf *image,
			const struct rlog_buf *payload);

void rlog_server_turn(struct rlog_server *s);
void rlog_server_deliver(struct rlog_server *s);

/* ---- what is known ------------------------------------------------------------------------ */

bool rlog_server_has_deliveries(const struct rlog_server *s);
bool rlog_server_writing(const struct rlog_server *s);
/* A number that changes when what rlog_server_status() says has changed (but for who is connected,
 * and how far behind). */
uint64_t rlog_server_moved(const struct rlog_server *s);
void rlog_server_status(struct rlog_server *s, struct rlog_status *out);
/* The members as of the newest configuration in the log; returns their count. */
unsigned rlog_server_members(const struct rlog_server *s, struct rlog_member out[RLOG_MEMBERS_MAX]);
/* The outcome of the entry of a change: 1 committed and seen here, 0 not known yet, -ECANCELED replaced. */
int rlog_server_outcome_of(const struct rlog_server *s, uint64_t index, uint64_t term);
uint64_t rlog_server_leader(const struct rlog_server *s, const char **address);
/* The level that the log needs: whoever reads less must not become a member, nor be connected to. */
unsigned rlog_server_needs(const struct rlog_server *s);
/* rlog_format_level() and rlog_format_of(). */
unsigned rlog_server_format(const struct rlog_server *s);
unsigned rlog_server_format_of(const struct rlog_server *s, uint64_t id);

#endif
