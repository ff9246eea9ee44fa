/* The messages between nodes and their form on the wire.
 *
 * Every message is one frame: a checksummed header, then a checksummed body. All integers are
 * little-endian. Private to raftlog; nothing here knows sockets or threads.
 *
 *   header, 32 bytes
 *   +---------+------+------+----------+-----------+----------+---------------+-----------------+
 *   | "dqlR"  | vers | type | reads    | body      | needs    | XXH3-64 of    | XXH3-64 of the  |
 *   | 4 bytes | u8   | u8   | u16      | bytes u32 | u32      | the body, u64 | 24 bytes before |
 *   +---------+------+------+----------+-----------+----------+---------------+-----------------+
 *
 * `reads` and `needs` are levels (format.h): what the sender reads, and what its log needs. Builds that know
 * no levels write 0 there, which is level 1, and do not look at them. A log that needs level 1 is 0, too.
 *
 * The bodies are described above the function that reads them, in message.c. Bytes from a peer are
 * never trusted: what does not check out is refused with -EBADMSG (damaged) or -EPROTO (does not
 * make sense), and the connection is closed by whoever owns it.
 */
#ifndef RAFTLOG_MESSAGE_H
#define RAFTLOG_MESSAGE_H

#include <raft.h>
#include <sys/uio.h>
#include "base/address.h"
#include "base/record.h"

/* Version history: 1, the first.
 *   2: only of an answer RLOG_ANSWER_TOO_OLD, so that builds that do not know it refuse the frame, and say
 *      that the other is of another version. */
#define RLOG_WIRE_VERSION 1
#define RLOG_WIRE_VERSION_TOO_OLD 2
#define RLOG_FRAME_HEADER 32
/* The largest body that is accepted: one entry of this size, about. */
#define RLOG_FRAME_MAX (1u << 30)
/* The most entries in one message. */
#define RLOG_APPEND_MAX 4096

enum rlog_message_type {
	RLOG_MSG_HELLO = 1, /* first on a connection between members */
	RLOG_MSG_WELCOME,   /* the answer to it; after it the dialler may send */
	RLOG_MSG_APPEND,
	RLOG_MSG_APPEND_RESULT,
	RLOG_MSG_VOTE,
	RLOG_MSG_VOTE_RESULT,
	RLOG_MSG_TIMEOUT_NOW,
	RLOG_MSG_NEEDS_STATE, /* the leader's log no longer holds what the receiver lacks */
	RLOG_MSG_JOIN, /* first and only on a connection of a node that wants to become a member */
	RLOG_MSG_JOINED, /* the answer to it */
	/* first on a connection that is the owner's from the answer, WELCOME, on; says what HELLO does */
	RLOG_MSG_STREAM,
};

/* What WELCOME and JOINED say. On the wire: only append. */
enum rlog_answer {
	RLOG_ANSWER_OK = 0,
	RLOG_ANSWER_OTHER_CLUSTER, /* the cluster ids differ */
	RLOG_ANSWER_OTHER_NODE,	   /* the dialler meant another node than the one that answers */
	RLOG_ANSWER_LEADER,	   /* ask the leader, at `address` */
	RLOG_ANSWER_RETRY,	   /* no leader, or it is busy with another change: ask again */
	RLOG_ANSWER_ADDRESS_USED,  /* another member has this address */
	RLOG_ANSWER_FULL,	   /* RLOG_MEMBERS_MAX members */
	RLOG_ANSWER_NO_MEMBER,	   /* the dialler is none */
	RLOG_ANSWER_TOO_OLD,	   /* the dialler reads less than what the log needs */
};

struct rlog_message {
	enum rlog_message_type type;
	unsigned reads, needs; /* levels, of the sender; 0 is 1 */
	union {
		struct {
			uint64_t cluster_id, from, to;
			char address[RLOG_ADDRESS_MAX]; /* where `from` listens */
		} hello;
		struct {
			uint64_t cluster_id, from;
			enum rlog_answer answer;
		} welcome;
		struct {
			uint64_t cluster_id; /* 0: not known yet */
			uint64_t id;
			char address[RLOG_ADDRESS_MAX];
		} join;
		struct {
			uint64_t cluster_id;
			enum rlog_answer answer;
			char address[RLOG_ADDRESS_MAX]; /* ANSWER_LEADER, ADDRESS_USED */
		} joined;
		struct {
			uint64_t term, prev_index, prev_term, leader_commit;
			/* Contiguous from prev_index + 1 on. The array and one reference to each
			 * buffer belong to the message. */
			struct rlog_record *records;
			unsigned count;
		} append;
		struct raft_append_entries_result append_result;
		struct raft_request_vote vote;
		struct raft_request_vote_result vote_result;
		struct raft_timeout_now timeout_now;
		struct {
			uint64_t term, index, index_term; /* of the newest snapshot */
		} needs_state;
	};
};

/* Release what the message owns. */
void rlog_message_clear(struct rlog_message *m);

/* A message made ready to be sent: `head` holds the header and the fixed part, `iov` all of it in
 * order, with the payloads of entries where they are (the frame holds references to them). */
struct rlog_frame {
	struct rlog_frame *next; /* for the owner's queue */
	size_t bytes;		 /* all of it */
	unsigned iov_count;
	unsigned buf_count;
	struct rlog_buf **bufs;
	struct iovec *iov;
	uint8_t head[];
};

/* NULL when out of memory. Takes its own references; the message stays the caller's. */
struct rlog_frame *rlog_frame_new(const struct rlog_message *m);
void rlog_frame_free(struct rlog_frame *f);

struct rlog_frame_header {
	enum rlog_message_type type;
	unsigned reads, needs; /* 1 or more */
	uint32_t body_bytes;
	uint64_t body_hash;
};

/* Check a header. 0, -EBADMSG, or -EPROTO for another magic or version. */
int rlog_frame_header_read(const uint8_t header[RLOG_FRAME_HEADER], struct rlog_frame_header *out);

/* Check and decode a body of h->body_bytes bytes. 0, -EBADMSG, -EPROTO, -ENOMEM. After success the
 * caller owns what `out` holds (rlog_message_clear()). */
int rlog_message_read(const struct rlog_frame_header *h, const uint8_t *body,
		      struct rlog_message *out);

#endif
