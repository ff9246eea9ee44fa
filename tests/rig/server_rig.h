/* One server, one of three voters: the test is its network, its clock and its owner. */
#ifndef SERVER_RIG_H
#define SERVER_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../sim/memdisk.h"
#include "log/open.h"
#include "server/base.h"

enum { CLUSTER = 77, SELF = 1, OTHER = 2, THIRD = 3, SENT_MAX = 256 };

struct rig {
	struct memdisk *disk;
	struct rlog_log *log;
	struct rlog_server *server;
	uint64_t now;
	bool writing, full;
	/* the indexes of membership changes among the entries sent */
	uint64_t change_at, second_change_at;
	/* what it sent, without payloads */
	struct {
		uint64_t to;
		struct rlog_message m;
	} sent[SENT_MAX];
	unsigned sent_count;
	/* what its owner was told */
	uint64_t applied[512];
	unsigned applied_count, needs_state, refused, unknown, committed, caught_up;
};

/* The three voters, and `standbys` more. */
struct rlog_buf *membership_with(unsigned standbys);
struct rlog_buf *membership(void);

/* A node of the cluster, with an empty log, as a follower at 1000 ms. */
struct rig *rig_new(void);
void rig_free(struct rig *r);
/* Power fails; and comes back. */
void stop(struct rig *r);
void start(struct rig *r);
/* `done` of the requests that a test submits. */
void on_done(struct rlog_request *req, enum rlog_outcome outcome);

/* Turns, until nothing moves. */
void turns(struct rig *r);
/* Entries [prev + 1, prev + count] of `term` from the leader of `leader_term`, node 2; of 1000 bytes. */
void send_entries(struct rig *r, uint64_t leader_term, uint64_t prev, uint64_t prev_term,
		  uint64_t term, unsigned count, uint64_t commit);
/* The answer to it. */
struct raft_append_entries_result answer(struct rig *r);
/* This server becomes the leader, by the vote of node 2. */
void lead(struct rig *r);

#endif
