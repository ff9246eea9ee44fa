/* A server: its time, its turn, its life. Each step's effects are carried out in step.c.
 *
 * The happy path of a commit on the leader: rlog_server_submit() queues the request; the turn gives
 * all that wait to libraft in one SUBMIT step; the step's update carries the same entries back, which
 * are staged in the log, and one AppendEntries range per follower, which goes out; the turn starts
 * the log write. Its end is a PERSISTED_ENTRIES step; a follower's answer is a RECEIVE step; one of
 * the two moves the commit index, and rlog_server_deliver() hands the entries up.
 */
#include "server/server.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "log/compact.h"
#include "log/snapshot.h"
#include "server/change.h"
#include "server/peers.h"
#include "server/requests.h"
#include "server/start.h"
#include "server/step.h"
#include "server/transfer.h"
#include "server/write.h"

#define DEFAULT_HEARTBEAT_MS 50

/* ---- time --------------------------------------------------------------------------------- */

void rlog_server_now(struct rlog_server *s, uint64_t now_ms)
{
	assert(now_ms >= s->now);
	s->now = now_ms;
}

static void raft_timer(struct rlog_server *s)
{
	struct raft *r = &s->raft;
	struct raft_event event = {.type = RAFT_TIMEOUT};
	int rv;

	if (r->state == RAFT_FOLLOWER && rlog_server_sole_voter(s)) {
		r->current_term++;
		r->voted_for = r->id;
		rlog_server_save_meta(s);
	}
	if (rlog_server_failed(s))
		return;
	rv = rlog_server_step(s, &event, NULL, NULL, NULL);
	if (rv != 0)
		rlog_server_fail(s, "raft cannot go on after a timeout: %s", raft_strerror(rv));
}

void rlog_server_tick(struct rlog_server *s)
{
	if (rlog_server_failed(s))
		return;
	if (s->now >= raft_timeout(&s->raft))
		raft_timer(s);
	if (!rlog_server_failed(s))
		rlog_server_expire(s);
	if (!rlog_server_failed(s))
		rlog_server_members_tick(s);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t rlog_server_deadline(const struct rlog_server *s)
{
	uint64_t at = raft_timeout(&s->raft);

	if (rlog_server_failed(s))
		return s->now;
	if (!TAILQ_EMPTY(&s->waiting))
		at = earlier(at, TAILQ_FIRST(&s->waiting)->deadline_ms);
	if (!TAILQ_EMPTY(&s->in_flight))
		at = earlier(at, TAILQ_FIRST(&s->in_flight)->deadline_ms);
	if (s->disk_full)
		at = earlier(at, s->disk_retry_ms);
	if (s->transferring)
		at = earlier(at, rlog_server_transfer_deadline(s));
	at = earlier(at, s->promote_ms);
	/* A long delivery goes on in the next turn. */
	if (rlog_server_has_deliveries(s))
		at = s->now;
	return at;
}

uint64_t rlog_server_moved(const struct rlog_server *s)
{
	const uint64_t parts[] = {s->raft.commit_index,
				  s->applied,
				  rlog_log_last(s->log),
				  rlog_log_durable(s->log),
				  s->view.term,
				  s->view.leader_id,
				  (uint64_t)s->view.role * 2 + s->view.ready,
				  s->conf_committed,
				  s->conf_uncommitted,
				  rlog_server_format(s),
				  rlog_server_needs(s)};

	return XXH3_64bits(parts, sizeof parts);
}

void rlog_server_turn(struct rlog_server *s)
{
	if (!rlog_server_failed(s))
		rlog_server_transfer_turn(s);
	if (!rlog_server_failed(s))
		rlog_server_submit_waiting(s);
	if (!rlog_server_failed(s))
		rlog_server_start_write(s);
}

/* ---- life --------------------------------------------------------------------------------- */

int rlog_server_new(struct rlog_server **out, const struct rlog_server_config *config,
		    struct rlog_log *log, uint64_t now_ms, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_server *s = calloc(1, sizeof *s);
	int rv;

	if (s == NULL) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "out of memory");
		return -ENOMEM;
	}
	TAILQ_INIT(&s->waiting);
	TAILQ_INIT(&s->in_flight);
	s->log = log;
	s->io = config->io;
	s->cb = config->cb;
	s->ctx = config->ctx;
	s->now = now_ms;
	s->promote_ms = NEVER;
	s->commit_timeout_ms =
		config->commit_timeout_ms != 0 ? config->commit_timeout_ms : RLOG_COMMIT_TIMEOUT_MS;
	if (strlen(config->address) >= sizeof s->address) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "address too long address=%.64s...",
			 config->address);
		free(s);
		return -ENAMETOOLONG;
	}
	strcpy(s->address, config->address);
	s->id = config->id;
	s->seed = config->seed;
	s->reads = config->format_reads != 0 ? config->format_reads : RLOG_FORMAT_LEVEL;
	s->heartbeat_ms = config->heartbeat_ms != 0 ? config->heartbeat_ms : DEFAULT_HEARTBEAT_MS;
	s->election_timeout_ms = config->election_timeout_ms != 0 ? config->election_timeout_ms
								  : RLOG_ELECTION_TIMEOUT_MS;
	rv = rlog_server_core(s, errmsg);
	if (rv != 0) {
		free(s);
		return rv;
	}
	rv = rlog_server_start(s, errmsg);
	if (rv != 0) {
		rlog_server_free(s);
		return rv;
	}
	*out = s;
	return 0;
}

void rlog_server_end(struct rlog_server *s)
{
	rlog_server_fail(s, "this node has stopped");
	rlog_server_end_all(s);
}

void rlog_server_free(struct rlog_server *s)
{
	if (s == NULL)
		return;
	rlog_server_end(s);
	raft_close(&s->raft, NULL);
	free(s->entries);
	free(s->records);
	free(s);
}

void rlog_server_status(struct rlog_server *s, struct rlog_status *out)
{
	const char *address;

	memset(out, 0, sizeof *out);
	out->view = s->view;
	rlog_server_leader(s, &address);
	snprintf(out->leader_address, sizeof out->leader_address, "%s", address);
	out->commit_index = s->raft.commit_index;
	out->applied_index = s->applied;
	out->first_index = rlog_log_first(s->log);
	out->last_index = rlog_log_last(s->log);
	out->durable_index = rlog_log_durable(s->log);
	out->snapshot_index =
		rlog_log_snapshot(s->log) != NULL ? rlog_log_snapshot(s->log)->index : 0;
	out->log_bytes = rlog_log_bytes(s->log);
	out->log_bytes_since = rlog_log_bytes_since(s->log);
	out->format_reads = s->reads;
	out->format_needed = rlog_server_needs(s);
	out->format_level = rlog_server_format(s);
	out->member_count = rlog_server_members(s, out->members);
}
