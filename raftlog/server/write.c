/* The log write: begun by the turn, and what its end means. */
#include "server/write.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include "server/step.h"
#include "server/transfer.h"

#define DISK_RETRY_MS 1000

/* Somebody with space should lead. */
void rlog_server_disk_full(struct rlog_server *s)
{
	if (!s->disk_full && !s->refusing)
		rlog_server_log(
			s, 'E',
			"disk full, the log cannot grow: free some space; trying again every "
			"second");
	if (rlog_server_leads(s))
		rlog_server_transfer(s, 0, DISK_RETRY_MS);
}

void rlog_server_start_write(struct rlog_server *s)
{
	struct rlog_log_write w;
	int rv;

	if (s->writing || (s->disk_full && s->now < s->disk_retry_ms))
		return;
	rv = rlog_log_write_begin(s->log, &w);
	if (rv == -ENOSPC) {
		rlog_server_disk_full(s);
		s->disk_full = true;
		s->disk_retry_ms = s->now + DISK_RETRY_MS;
		return;
	}
	if (rv < 0) {
		rlog_server_fail(
			s,
			"cannot extend the log: %s; check the disk under the data directory, "
			"then start this node again",
			strerror(-rv));
		return;
	}
	if (s->disk_full) {
		s->disk_full = false;
		rlog_server_log(s, 'I', "the log can grow again");
	}
	if (rv == 0)
		return;
	s->writing = true;
	s->io.write(s->io.ctx, &w);
}

void rlog_server_written(struct rlog_server *s, int64_t result)
{
	struct raft_event event = {.type = RAFT_PERSISTED_ENTRIES};
	uint64_t durable;
	int rv;

	assert(s->writing);
	s->writing = false;
	rlog_log_write_end(s->log, result);
	if (rlog_server_failed(s))
		return;
	if (result < 0) {
		rlog_server_fail(
			s,
			"writing the log failed: %s; check the disk under the data directory, "
			"then start this node again",
			strerror((int)-result));
		return;
	}
	/* Entries truncated while they were being written do not count as durable any more. */
	durable = rlog_log_durable(s->log);
	if (durable <= s->raft.last_stored)
		return;
	event.persisted_entries.index = durable;
	rv = rlog_server_step(s, &event, NULL, NULL, NULL);
	if (rv != 0)
		rlog_server_fail(s, "raft cannot go on after a write: %s", raft_strerror(rv));
}

bool rlog_server_writing(const struct rlog_server *s)
{
	return s->writing;
}
