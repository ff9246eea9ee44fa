/* A server, as the files of this folder see it, and what all of them stand on. Others (but for tests, which look
 * inside) know server.h. The thread that owns the server owns it all. */
#ifndef RAFTLOG_SERVER_BASE_H
#define RAFTLOG_SERVER_BASE_H

#include "server/server.h"

#define NEVER UINT64_MAX

/* Another node, as long as this one leads or talks to it. */
struct peer {
	uint64_t id;
	char address[RLOG_ADDRESS_MAX];
	uint64_t heard_ms;     /* when it last sent anything; 0: never */
	uint64_t keepalive_ms; /* when this node last said "still receiving" to it */
	unsigned reads;	       /* the format level that it last said it reads; 0: it said nothing */
	/* Entries that libraft believes sent and that wait for room: [prev + 1, prev + count] of
	 * `term`, or one empty message when count is 0. */
	bool pending;
	uint64_t term, prev, count;
};

TAILQ_HEAD(queue, rlog_request);

struct rlog_server {
	struct raft raft;
	struct rlog_log *log;
	struct rlog_server_io io;
	struct rlog_callbacks cb;
	void *ctx;
	char address[RLOG_ADDRESS_MAX];
	uint64_t id, now;
	unsigned seed, heartbeat_ms, election_timeout_ms, commit_timeout_ms;
	char failure[RLOG_ERRMSG_SIZE]; /* empty: none */

	/* leadership, as last looked at */
	uint64_t led_term;	/* the term this server leads, or 0 */
	uint64_t barrier_index; /* the first entry of led_term */
	uint64_t led_since_ms;
	struct rlog_view view; /* as last told */

	/* requests */
	struct queue waiting;	/* not given to Raft yet, in the order of arrival */
	struct queue in_flight; /* given to Raft: terms never fall along the queue */
	uint64_t applied;
	bool stalled; /* `apply` said -EAGAIN */
	bool caught_up;
	uint64_t catch_up_term, catch_up_index; /* what the leader of that term had committed */

	/* log */
	bool writing;
	bool disk_full;
	bool refusing; /* submissions, because the log has no room for them */
	uint64_t disk_retry_ms;

	/* members */
	struct peer peers[RLOG_MEMBERS_MAX + 1];
	unsigned peer_count;
	uint64_t conf_uncommitted, conf_committed; /* libraft's, as last told through io.members */
	uint64_t promote_ms;			   /* next look at standbys */
	uint64_t mark_ms;			   /* when `marks` moved last */
	uint64_t marks[2]; /* last index, now-ish and at least a second before */
	bool transferring, transfer_fired;
	uint64_t transfer_to, transfer_until_ms;
	uint64_t hold_until_ms; /* submissions wait for the transfer until then; 0: they do not */
	uint64_t rest_until_ms; /* and then go on at least until then */
	int transfer_result;	/* of the last one that ended */

	/* formats: see format.c */
	unsigned reads;	     /* the level that this node reads */
	uint64_t too_old_ms; /* no line about that before */

	/* scratch, reused */
	struct raft_entry *entries;
	struct rlog_record *records;
	size_t scratch_count;
};

/* Make room for `count` of `entries` and of `records`. 0 or -ENOMEM. */
int rlog_server_scratch(struct rlog_server *s, size_t count);
void rlog_server_log(struct rlog_server *s, char level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
bool rlog_server_failed(const struct rlog_server *s);
bool rlog_server_leads(const struct rlog_server *s);
bool rlog_server_ready(const struct rlog_server *s); /* leads, and has applied its barrier */
uint64_t rlog_server_term_of(const struct rlog_server *s, uint64_t index); /* 0: no such entry */

#endif
