/* raftlog: a log of opaque entries, replicated by Raft.
 *
 * The only header of this folder that other folders include; with it come clock.h and format.h. A node
 * owns one `struct rlog`. Its loop thread owns libraft, the io_uring, the segments and the sockets; every callback below is
 * called on that thread, in log order, and must neither block nor call back into rlog except where
 * a function says so. Functions that other threads may call are marked [any thread].
 *
 * What it promises: an entry handed to `apply` is committed: it is on the disks of a majority and
 * will be handed to `apply`, at the same index, on every node that ever gets that far. Entries
 * arrive once each per process, without gaps, from index 1 (or from the snapshot) on; again from the
 * snapshot on after rlog_install().
 */
#ifndef RAFTLOG_H
#define RAFTLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include "clock.h"
#include "format.h"

struct rlog;

/* A reference-counted, immutable byte buffer: the payload of an entry. [any thread] */
struct rlog_buf {
	_Atomic unsigned refs;
	size_t len;
	_Alignas(16) uint8_t data[];
};
struct rlog_buf *rlog_buf_new(size_t len); /* refs = 1; NULL when out of memory */
struct rlog_buf *rlog_buf_ref(struct rlog_buf *buf);
void rlog_buf_unref(struct rlog_buf *buf); /* NULL is allowed */

/* How a submission ended. UNKNOWN never turns into REFUSED: it says that the entry may still be
 * committed later, by this node or by another leader. */
enum rlog_outcome {
	RLOG_COMMITTED, /* told through `apply`, with the request; never through `done` */
	RLOG_REFUSED,	/* the entry is not in the log of any future leader: it never will commit */
	RLOG_UNKNOWN, /* the commit timeout passed, or this node shut down, while it was in flight */
};

/* One submission, owned by the caller, alive until `done` or the `apply` that carries it. Zero it
 * before its first use. */
struct rlog_request {
	struct rlog_buf *buf; /* the entry; the reference passes to raftlog on submit */
	/* Called for REFUSED and UNKNOWN. */
	void (*done)(struct rlog_request *req, enum rlog_outcome outcome);
	/* The level of the entry's form (format.h); 0 is 1. */
	unsigned format;
	/* Why it was REFUSED: -ENOSPC (this node leads, but its log has no room for the entry, and the disk
	 * none for more log: it was never appended nor sent), -ENOTSUP (a member does not read the entry's
	 * form: write it in an older one), or 0. */
	int error;
	/* private to raftlog */
	struct rlog_request *next; /* in the inbox */
	TAILQ_ENTRY(rlog_request) entry;
	uint64_t index, term, deadline_ms;
};

enum rlog_role { RLOG_FOLLOWER, RLOG_CANDIDATE, RLOG_LEADER };

/* This node's place in the cluster, as of now. */
struct rlog_view {
	enum rlog_role role;
	/* Leader only: a barrier of this term has been handed to `apply`, and so has all before it. */
	bool ready;
	uint64_t term;
	uint64_t leader_id; /* 0: none known */
};

struct rlog_callbacks {
	/* Committed entry `index`. `req` is the submission of this process that made it, or NULL. The
	 * buffer belongs to raftlog: take a reference to keep it. Returns 0, or -EAGAIN when the
	 * receiver is full: delivery stops and the same entry comes again after rlog_resume(). Barriers
	 * and membership changes are not delivered; `index` may skip their numbers. */
	int (*apply)(void *ctx, uint64_t index, uint64_t term, struct rlog_buf *buf,
		     struct rlog_request *req);
	/* The view changed. In order with `apply`: when `ready` becomes true, all committed entries
	 * before the barrier have been handed over. */
	void (*view)(void *ctx, const struct rlog_view *view);
	/* Once: everything that the leader had committed when this node first heard from it (or
	 * became leader itself) has been handed to `apply`. */
	void (*caught_up)(void *ctx);
	/* The node cannot go on (disk error, damaged log, broken invariant). The loop has stopped.
	 * `msg` is one line that names the remedy. Pending requests end as UNKNOWN after this. */
	void (*fatal)(void *ctx, const char *msg);
	/* One log line: level 'I', 'W' or 'E', text "what happened key=value ...". */
	void (*log)(void *ctx, char level, const char *line);
	/* Called by rlog_open() on its thread, before anything is delivered, when there is a snapshot: the
	 * owner's durable state holds everything up to `index`, and `payload` is what it said of it then.
	 * `last_index` is the last entry of the local log, committed or not. Deliveries go on at
	 * index + 1. 0, or -errno, with which the open fails. May be NULL. */
	int (*restore)(void *ctx, uint64_t index, struct rlog_buf *payload, uint64_t last_index);
	/* This node lacks entries that its leader's log no longer has: the owner shall fetch the leader's
	 * state (rlog_dial()) and call rlog_install(). Told again, every now and then, as long as that is
	 * so. May be NULL. */
	void (*needs_state)(void *ctx, uint64_t leader_id, const char *leader_address);
	/* Another member has called rlog_dial(): `fd` is connected and blocking, and the callee's from now
	 * on. NULL: such dials are refused. */
	void (*stream)(void *ctx, int fd, uint64_t from_id);
};

#define RLOG_ELECTION_TIMEOUT_MS 500
#define RLOG_COMMIT_TIMEOUT_MS 10000

struct rlog_config {
	const char *dir; /* the log's directory, made by rlog_bootstrap() or rlog_init_member() */
	uint64_t id;	 /* this node, not 0 */
	uint64_t cluster_id;
	const char *address; /* HOST:PORT that peers dial */
	int listen_fd;	     /* bound and listening; owned by the rlog after a successful open */
	unsigned
		election_timeout_ms; /* 0: RLOG_ELECTION_TIMEOUT_MS; the timer is randomised in [1x, 2x] */
	unsigned heartbeat_ms;	    /* 0: the default, 50 */
	unsigned commit_timeout_ms; /* 0: RLOG_COMMIT_TIMEOUT_MS */
	unsigned format_reads;	    /* the level that the owner reads; 0: RLOG_FORMAT_LEVEL */
	struct rlog_callbacks cb;
	void *ctx;
};

#define RLOG_ERRMSG_SIZE 256
#define RLOG_ADDRESS_MAX 128 /* with the terminating zero */

/* Split HOST:PORT or [HOST]:PORT at the last colon; the brackets go. Nothing is said of what HOST and PORT are,
 * but that they are not empty. 0 or -EINVAL. [any thread] */
int rlog_address_split(const char *address, char host[RLOG_ADDRESS_MAX],
		       char port[RLOG_ADDRESS_MAX]);

/* Make `dir` (which must not exist) the log of a new cluster whose only voter is this node.
 * Atomic: a crash leaves either nothing or a whole log (made aside, then renamed). 0 or -errno,
 * with a line in `errmsg`. */
int rlog_bootstrap(const char *dir, uint64_t id, uint64_t cluster_id, const char *address,
		   char errmsg[RLOG_ERRMSG_SIZE]);

/* Make `dir` (which must not exist) the empty log of a node that is about to join. Same atomicity. */
int rlog_init_member(const char *dir, uint64_t id, uint64_t cluster_id,
		     char errmsg[RLOG_ERRMSG_SIZE]);

/* A node that asks to become a member. */
struct rlog_joiner {
	uint64_t id;
	const char *address;
	uint64_t cluster_id; /* 0: not known yet */
};

/* Ask the cluster that `peer` (HOST:PORT, any member) belongs to, to add the node.
 * Blocking, up to `timeout_ms`: follows the member's pointer to the leader, returns after the
 * membership change has committed; the leader makes the node a voter by itself once it has caught
 * up. Asking again with the same id and address is harmless. The cluster's id is set on success; when it
 * was not 0 it must match the peer's cluster, else -EXDEV. Errors: -EHOSTUNREACH (nobody
 * answers at `peer`, or no leader in time), -EADDRINUSE (`address` belongs to another node id),
 * -EXDEV, -EPROTO. `errmsg` says it in one line that names the remedy. [before rlog_open] */
int rlog_join(const char *peer, struct rlog_joiner *self, unsigned timeout_ms,
	      char errmsg[RLOG_ERRMSG_SIZE]);

/* Read the log (checking all of it) and start the loop thread. 0 or -errno with `errmsg`. */
int rlog_open(struct rlog **out, const struct rlog_config *config, char errmsg[RLOG_ERRMSG_SIZE]);

/* Stop the loop, end pending requests as UNKNOWN, close the sockets. What other threads do with the log
 * afterwards has no effect: requests end as REFUSED at once, calls that wait return -EIO or what they say
 * themselves, the status stays as it was last. Once. [any thread but the loop] */
void rlog_stop(struct rlog *log);
/* Close the files and free everything: it has been stopped, and no other thread knows it any more. NULL is
 * allowed. */
void rlog_free(struct rlog *log);

/* Submit an entry. Returns at once; the end is told by `apply` with this request, or by its `done`.
 * Submissions are appended in the order of the calls. On a node that does not lead: REFUSED when
 * another leader is known; otherwise (no leader known) the request waits, unsubmitted, until this
 * node leads again (it is then submitted), another leader appears, or the commit timeout passes
 * (both REFUSED). A leader whose disk is full refuses what its log has no room for, and hands
 * leadership over to another voter, if there is one. [any thread, also from the callbacks and from
 * a request's `done`; `done` of this request may be called before the return when the loop has
 * stopped] */
void rlog_submit(struct rlog *log, struct rlog_request *req);

/* Deliver again after `apply` returned -EAGAIN. [any thread] */
void rlog_resume(struct rlog *log);

/* Hand leadership to `id`, or to the most up-to-date voter when 0; waits until this node no longer
 * leads and a new leader is known, at most timeout_ms. 0, -EALREADY (this node does not lead), -ENOENT (no
 * other voter, or no such voter), -EHOSTUNREACH (it, or each of them, was not heard within the election
 * timeout; known at once, or as soon as it falls silent), -ETIMEDOUT. Submissions wait meanwhile, for an
 * election timeout at a time. [any thread but the loop] */
int rlog_transfer(struct rlog *log, uint64_t id, unsigned timeout_ms);

enum rlog_member_role { RLOG_VOTER, RLOG_STANDBY, RLOG_SPARE };

struct rlog_member {
	uint64_t id;
	char address[RLOG_ADDRESS_MAX];
	enum rlog_member_role role;
	uint64_t match_index;  /* known on the leader, else 0 */
	bool connected;	       /* this node's connection to it is up; true for itself */
	unsigned format_reads; /* the level that it reads, as far as this node has heard */
};

#define RLOG_MEMBERS_MAX 32

struct rlog_status {
	struct rlog_view view;
	char leader_address[RLOG_ADDRESS_MAX];
	uint64_t commit_index, applied_index, first_index, last_index, durable_index;
	uint64_t snapshot_index;  /* 0: none */
	uint64_t log_bytes;	  /* of all segments */
	uint64_t log_bytes_since; /* of entries behind the snapshot, about */
	/* Levels: what this node reads, what its log needs, rlog_format_level(). */
	unsigned format_reads, format_needed, format_level;
	unsigned member_count;
	struct rlog_member members[RLOG_MEMBERS_MAX];
};

/* A copy of the loop's last published status. [any thread] */
void rlog_status(struct rlog *log, struct rlog_status *out);

/* The newest level in which an entry may be written now: where this node leads, the lowest of all members, but
 * not below what the log needs; elsewhere what the log needs. It may have fallen when the entry is submitted:
 * see struct rlog_request. [any thread] */
unsigned rlog_format_level(struct rlog *log);
/* The level that the log needs: so does what is kept beside it, or is read with it by others. [any thread] */
unsigned rlog_format_needed(struct rlog *log);
/* The level that member `id` reads, as far as this node has heard; else 1. A stream to it is of the lower of
 * this and RLOG_FORMAT_LEVEL. [any thread] */
unsigned rlog_format_of(struct rlog *log, uint64_t id);

/* ---- snapshots ------------------------------------------------------------------------------ */

/* Everything up to `index`, which has been delivered, is in the owner's durable state, as `payload` (the
 * reference stays the caller's) tells: makes that durable, then lets go of the log's oldest segments of
 * which nothing is behind `index`, as long as more than `keep_bytes` of segments stay (for followers that
 * are slow). The index of the newest snapshot again replaces its payload and lets nothing go.
 * Blocks. 0; -EINVAL (not delivered yet, or in front of the newest snapshot); -EFBIG (above 512 MiB);
 * -ENOSPC and other -errno: nothing has changed, or the new payload counts already. [any thread but the
 * loop] */
int rlog_snapshot(struct rlog *log, uint64_t index, struct rlog_buf *payload, uint64_t keep_bytes);

/* The newest snapshot as bytes for another node, checksummed: index, term, membership, payload. 0,
 * -ENOENT (none was taken), -EIO. [any thread but the loop] */
int rlog_snapshot_image(struct rlog *log, struct rlog_buf **out);
/* What an image says; `payload` is a new buffer. 0, -EBADMSG, -EXDEV (of another cluster), -ENOMEM.
 * [any thread] */
int rlog_image_read(struct rlog_buf *image, uint64_t cluster_id, uint64_t *index, uint64_t *term,
		    struct rlog_buf **payload);

/* The owner's durable state is now that of `image`, an image of the leader's, and `payload` tells of it
 * here. If the local log holds the image's last entry with its term, the log stays, and is delivered
 * again from the entry behind it on: a node whose files were damaged loses nothing that it has promised.
 * Otherwise the log holds nothing that is not in the image or conflicts with it, and begins anew.
 * `caught_up` is told again, and requests of entries that are not delivered for this end as UNKNOWN.
 * The node is in the term in which the image was taken afterwards, if its own was earlier. Durable on
 * return. 0; -EAGAIN: the local log begins behind the image, get a newer one; -EALREADY: this node leads;
 * -EBADMSG, -EXDEV; -ENOSPC (nothing has changed) and other -errno. [any thread but the loop] */
int rlog_install(struct rlog *log, struct rlog_buf *image, struct rlog_buf *payload);

/* Connect to member `id` at `address` for a stream of the owner's: a connected, blocking socket, whose
 * other end that node's `stream` gets; or -EXDEV (another node answers there), -EPERM (it does not know this
 * node for a member), -ENOTSUP (this node is too old for its log), or another -errno, with a line in `errmsg`. Blocks, up to timeout_ms.
 * [any thread but the loop] */
int rlog_dial(struct rlog *log, uint64_t id, const char *address, unsigned timeout_ms,
	      char errmsg[RLOG_ERRMSG_SIZE]);

/* ---- looking at the log of a node that does not run --------------------------------------------- */

/* What `meta` and the snapshot say. */
struct rlog_dump_node {
	uint64_t id, cluster_id;
	uint64_t term, voted_for; /* 0: nobody */
	bool torn;		  /* a later update of the two was torn; the next start drops it */
	uint64_t snapshot_index, snapshot_term; /* 0: there is none */
	struct rlog_buf *snapshot_payload;	/* NULL then */
	/* in force at the snapshot; without match_index and connected */
	const struct rlog_member *snapshot_members;
	unsigned snapshot_member_count;
};

enum rlog_dump_state {
	RLOG_SEGMENT_FULL, /* the log goes on in the next one */
	RLOG_SEGMENT_LAST, /* the log ends in it */
	RLOG_SEGMENT_TORN, /* so it does, before what a torn write left; the next start drops that */
	RLOG_SEGMENT_DAMAGED,
};

struct rlog_dump_segment {
	const char *file;		/* its name in the directory */
	uint64_t first_index;		/* of the next entry when it was begun */
	uint64_t entries;		/* in it */
	uint64_t used_bytes, all_bytes; /* up to the end of its last whole write; of the file */
	enum rlog_dump_state state;
};

enum rlog_dump_type {
	RLOG_DUMP_COMMAND, /* what rlog_submit() was given */
	RLOG_DUMP_BARRIER,
	RLOG_DUMP_MEMBERS,
	RLOG_DUMP_TRUNCATION, /* no entry: those from `index` on are dropped; term 0 */
	RLOG_DUMP_UNKNOWN,
};

struct rlog_dump_entry {
	enum rlog_dump_type type;
	uint64_t index, term;
	bool dropped;	  /* by a later truncation */
	const char *file; /* where it stands */
	uint64_t offset;
	size_t bytes;	      /* of the payload */
	struct rlog_buf *buf; /* COMMAND: the payload; take a reference to keep it */
	/* MEMBERS: without match_index and connected */
	const struct rlog_member *members;
	unsigned member_count;
};

/* Called with what is read; everything they get is valid during the call only. A value other than 0
 * ends the dump and is returned, without a line in `errmsg`. Any may be NULL. */
struct rlog_dump_ops {
	int (*node)(void *arg, const struct rlog_dump_node *node);
	int (*segment)(void *arg, const struct rlog_dump_segment *segment); /* before its entries */
	int (*entry)(void *arg, const struct rlog_dump_entry *entry);
};

struct rlog_dump_end {
	uint64_t torn_bytes;  /* behind the end: of a write that nobody was told of */
	const char *damage;   /* a constant that says what is wrong; NULL when nothing is */
	char damage_file[32]; /* where */
	uint64_t damage_offset;
	uint64_t segments_unread; /* files that were not reached because of it */
};

/* Read the log in `dir` from its first entry to its last, as rlog_open() would, and write nothing at
 * all: it may lie on a read-only file system. No daemon may have it open. The log is read twice, in
 * memory for one segment and its largest entry. Whether the last entries are committed cannot be
 * told from one node's log. 0, or -errno with a line in `errmsg` that names the remedy; -EBADMSG
 * with `end->damage`, after everything in front of it was handed over. */
int rlog_dump(const char *dir, const struct rlog_dump_ops *ops, void *arg,
	      struct rlog_dump_end *end, char errmsg[RLOG_ERRMSG_SIZE]);

/* ---- a cluster that lost its quorum for good ------------------------------------------------------ */

struct rlog_new_cluster_options {
	uint64_t id, cluster_id; /* whose log it is */
	uint64_t new_cluster_id;
	const char *address;
	size_t segment_bytes;  /* of the new log; 0: the default */
	unsigned format_reads; /* the level that this build reads; 0: RLOG_FORMAT_LEVEL */
};

/* Found a new cluster from the log of one survivor, which does not run. Everything in the log counts as
 * committed from then on, and the survivor is the only member. Two halves, and between them the caller
 * notes durably that the first is done: then the second has to be done, and no daemon may open the log
 * before it is.
 *
 * First: make the new log, of cluster `new_cluster_id`, beside `dir`: the snapshot, the entries behind
 * it with their indexes and terms, and a membership of `id` at `address` alone in a new term. Durable on
 * return. `dir` stays as it is, but for what any start drops at its end. What an earlier attempt left
 * is removed. 0, or -errno with a line in `errmsg`: -EBADMSG (damaged), -EXDEV (of another cluster or
 * node), -ENODATA (it holds nothing), ... */
int rlog_new_cluster_prepare(const char *dir, const struct rlog_new_cluster_options *opt,
			     char errmsg[RLOG_ERRMSG_SIZE]);
/* Second: put the new log in the place of `dir`, and remove the old one. Durable on return; done again
 * after a crash, at whatever point, it goes on; once more does nothing. 0, or -errno with a line in
 * `errmsg`; -ENOENT: neither is the log of `new_cluster_id`. */
int rlog_new_cluster_finish(const char *dir, uint64_t new_cluster_id,
			    char errmsg[RLOG_ERRMSG_SIZE]);
/* Remove what the first half left, when the second was not begun and is not to be. 0 or -errno. */
int rlog_new_cluster_forget(const char *dir);

#endif
