/* From what is on disk to a running server: libraft's RAFT_START.
 *
 * libraft wants every entry's term and type, and the content of membership changes only. The one
 * decision made here is that of a server that is alone: it will lead at once, and must not do so in
 * the term it had before (see step.c).
 */
#include "server/start.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/configuration.h"
#include "log/compact.h"
#include "log/read.h"
#include "log/snapshot.h"
#include "server/step.h"

#define INFLIGHT_ENTRIES 4096
/* After it libraft looks anew at what a follower that fetches the state has, which costs nothing. Until then
 * it does not notice that it has a newer snapshot than the one that it told the follower of. */
#define INSTALL_TIMEOUT_MS 1000

/* The state on disk, as RAFT_START wants it: all entries, with a payload only where libraft looks at
 * it. */
static int load(struct rlog_server *s, struct raft_event *event, struct rlog_buf ***bufs,
		size_t *buf_count, char errmsg[RLOG_ERRMSG_SIZE])
{
	static char token;
	const uint64_t first = rlog_log_first(s->log);
	const size_t count = (size_t)(rlog_log_last(s->log) + 1 - first);
	struct raft_entry *entries = NULL;
	uint64_t term, vote;
	int rv = -ENOMEM;

	rlog_log_meta(s->log, &term, &vote);
	if (count > 0) {
		entries = calloc(count, sizeof *entries);
		if (entries == NULL)
			goto err;
	}
	for (size_t i = 0; i < count; i++) {
		struct rlog_record rec;
		struct rlog_buf **grown;
		uint8_t type;
		size_t len;

		rec.index = first + i;
		rv = rlog_log_describe(s->log, rec.index, &rec.term, &type, &len);
		if (rv != 0)
			goto err;
		entries[i].term = rec.term;
		entries[i].type = (enum raft_entry_type)type;
		entries[i].batch = &token;
		if (type != RAFT_CHANGE)
			continue;
		rv = rlog_log_read(s->log, first + i, &rec);
		if (rv != 0)
			goto err;
		grown = realloc(*bufs, (*buf_count + 1) * sizeof *grown);
		if (grown == NULL) {
			rlog_buf_unref(rec.buf);
			rv = -ENOMEM;
			goto err;
		}
		*bufs = grown;
		grown[(*buf_count)++] = rec.buf;
		rv = -EBADMSG;
		if (rlog_configuration_check(rec.buf->data, rec.buf->len) != 0)
			goto err;
		entries[i].buf.base = rec.buf->data;
		entries[i].buf.len = rec.buf->len;
	}
	rv = -EBADMSG;
	if (count > 0 && (term == 0 || entries[count - 1].term > term))
		goto err;
	if (count > 0 && event->start.metadata == NULL &&
	    (first != 1 || entries[0].type != RAFT_CHANGE))
		goto err;
	event->start.term = term;
	event->start.voted_for = vote;
	event->start.start_index = first;
	event->start.entries = entries;
	event->start.n_entries = (unsigned)count;
	return 0;
err:
	snprintf(errmsg, RLOG_ERRMSG_SIZE,
		 "the log cannot be used: %s; remove the data directory and join again",
		 rv == -EBADMSG ? "it does not begin with a membership, or its terms contradict it"
				: strerror(-rv));
	free(entries);
	return rv;
}

/* Is this server the only voter of the newest membership on disk? */
static bool starts_alone(const struct rlog_server *s, const struct raft_event *event)
{
	struct raft_configuration conf;
	bool alone;

	for (unsigned i = event->start.n_entries; i-- > 0;) {
		const struct raft_entry *entry = &event->start.entries[i];

		if (entry->type != RAFT_CHANGE)
			continue;
		if (raft_configuration_decode(&entry->buf, &conf) != 0)
			return false;
		alone = rlog_configuration_sole_voter(&conf, s->raft.id);
		raft_configuration_close(&conf);
		return alone;
	}
	return event->start.metadata != NULL &&
	       rlog_configuration_sole_voter(&event->start.metadata->configuration, s->raft.id);
}

/* What libraft wants to know of the snapshot. It takes the membership over with the START step. */
static int load_snapshot(const struct rlog_snapshot *snapshot,
			 struct raft_snapshot_metadata *metadata)
{
	struct raft_buffer buf = {.base = (void *)(uintptr_t)snapshot->conf,
				  .len = snapshot->conf_len};

	metadata->index = snapshot->index;
	metadata->term = snapshot->term;
	metadata->configuration_index = snapshot->conf_index;
	return raft_configuration_decode(&buf, &metadata->configuration) == 0 ? 0 : -EBADMSG;
}

int rlog_server_start(struct rlog_server *s, char errmsg[RLOG_ERRMSG_SIZE])
{
	const struct rlog_snapshot *snapshot = rlog_log_snapshot(s->log);
	struct raft_event event = {.type = RAFT_START};
	struct raft_snapshot_metadata metadata;
	struct rlog_buf **bufs = NULL;
	size_t buf_count = 0;
	int rv;

	if (snapshot != NULL) {
		rv = load_snapshot(snapshot, &metadata);
		if (rv != 0) {
			snprintf(errmsg, RLOG_ERRMSG_SIZE,
				 "the snapshot's membership cannot be used; remove the data "
				 "directory and join again");
			return rv;
		}
		event.start.metadata = &metadata;
		s->applied = snapshot->index;
	}
	rv = load(s, &event, &bufs, &buf_count, errmsg);
	if (rv != 0)
		goto out;
	if (starts_alone(s, &event)) {
		event.start.term++;
		event.start.voted_for = s->raft.id;
		rv = rlog_log_set_meta(s->log, event.start.term, event.start.voted_for);
		if (rv != 0) {
			snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot store the term and vote: %s",
				 strerror(-rv));
			goto out;
		}
	}
	rv = rlog_server_step(s, &event, NULL, NULL, NULL);
	event.start.metadata = NULL; /* it has the membership */
	if (rv != 0) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "raft cannot start: %s", raft_strerror(rv));
		rv = -EBADMSG;
	} else if (rlog_server_failed(s)) {
		memcpy(errmsg, s->failure, RLOG_ERRMSG_SIZE);
		rv = -EIO;
	}
out:
	if (event.start.metadata != NULL)
		raft_configuration_close(&metadata.configuration);
	for (size_t i = 0; i < buf_count; i++)
		rlog_buf_unref(bufs[i]);
	free(bufs);
	free(event.start.entries);
	return rv;
}

int rlog_server_core(struct rlog_server *s, char errmsg[RLOG_ERRMSG_SIZE])
{
	int rv = raft_init(&s->raft, NULL, NULL, s->id, s->address);

	if (rv != 0) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "raft: %s", raft_strerror(rv));
		return -ENOMEM;
	}
	s->raft.tracer = NULL; /* it formats its lines even when nobody reads them */
	raft_seed(&s->raft, s->seed);
	raft_set_pre_vote(&s->raft, true);
	raft_set_max_inflight_entries(&s->raft, INFLIGHT_ENTRIES);
	raft_set_heartbeat_timeout(&s->raft, s->heartbeat_ms);
	raft_set_election_timeout(&s->raft, s->election_timeout_ms);
	raft_set_install_snapshot_timeout(&s->raft, INSTALL_TIMEOUT_MS);
	return 0;
}
