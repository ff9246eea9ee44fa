/* One event through libraft, and its effects carried out.
 *
 * After each raft_step() its update is carried out in the only safe order: term and vote made
 * durable, entries staged, messages sent. A message never leaves before the term and vote it speaks
 * for are on disk; a follower's promise about entries is made by libraft only in the step that
 * reports them persisted, so sending at once is right, and lets the leader's disk and its followers
 * work at the same time.
 *
 * libraft 0.22.1 has edges that the server keeps away from, here, in receive.c, server.c and snapshot.c:
 *  - A server that is the only voter becomes leader without a new term. Were it to crash with an
 *    entry sent to a standby but not on its own disk, it would lead the same term again and make
 *    another entry with the same index and term. So the term is moved here, durably, before.
 *  - It takes the index of an AppendEntries message's first new entry for that of a membership
 *    change anywhere in it, and forgets that an older change was committed when a newer one comes in
 *    the same step. So a change is always first in its message, preceded, where an older one is
 *    still open, by an empty message that tells the commit index.
 *  - It looks at `candidate_state` when a vote result comes, whatever the state is.
 *  - A standby never votes. Then a leader of one that dies between storing the promotion of its first
 *    standby and sending it could not be elected again, by anyone, ever: it needs that vote. Raft
 *    lets everybody vote (section 4.2.2 of the dissertation: whose vote counts is the candidate's
 *    matter), so for that step the standby is lent the role.
 *  - Of a snapshot it wants to send, and to receive, the data as one message, and while one is being
 *    installed it must not be given another. So RAFT_INSTALL_SNAPSHOT never gets there: the follower is
 *    told that it needs the state, its owner fetches that, and the core is started again from what is
 *    on disk then.
 *  - It takes an AppendEntries message from index 1 on to match any log, also one that does not begin
 *    there, and rejects any other that begins in front of the log, down to index 1. What the snapshot
 *    has is matched, so such messages are cut to what is behind it.
 *  - It frees entries[0].batch of a received message unless the update carries entries, in which
 *    case it is left to the caller. The payloads here live in counted buffers, so the batch is a
 *    token of one byte that exists to be freed.
 */
#include "server/step.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include "log/read.h"
#include "server/peers.h"
#include "server/send.h"

void rlog_server_save_meta(struct rlog_server *s)
{
	uint64_t term, vote;
	int rv;

	rlog_log_meta(s->log, &term, &vote);
	if (term == s->raft.current_term && vote == s->raft.voted_for)
		return;
	rv = rlog_log_set_meta(s->log, s->raft.current_term, s->raft.voted_for);
	if (rv != 0)
		rlog_server_fail(
			s,
			"cannot store the term and vote: %s; check the disk under the data "
			"directory, then start this node again",
			strerror(-rv));
}

/* Stage [index ...], replacing whatever the log has from there on. */
static void stage(struct rlog_server *s, uint64_t index, const struct rlog_record *records,
		  size_t count)
{
	int rv = 0;

	if (index <= rlog_log_last(s->log))
		rv = rlog_log_truncate(s->log, index);
	if (rv == 0)
		rv = rlog_log_append(s->log, records, count);
	if (rv != 0)
		rlog_server_fail(s, "cannot append to the log: %s", strerror(-rv));
}

/* libraft's own barrier, which it appends when it starts to lead over uncommitted entries. */
static void stage_barrier(struct rlog_server *s, uint64_t index)
{
	struct rlog_record rec = {.index = index,
				  .term = s->raft.barrier.term,
				  .type = RAFT_BARRIER};

	rec.buf = rlog_buf_new(s->raft.barrier.buf.len);
	if (rec.buf == NULL) {
		rlog_server_fail(s, "out of memory");
	} else {
		memcpy(rec.buf->data, s->raft.barrier.buf.base, rec.buf->len);
		stage(s, index, &rec, 1);
		rlog_buf_unref(rec.buf);
	}
	raft_free(s->raft.barrier.batch);
	s->raft.barrier.batch = NULL;
}

/* Every new leadership begins with a barrier: what came before it is committed when it is. */
static void submit_barrier(struct rlog_server *s)
{
	struct rlog_record rec = {.term = s->raft.current_term, .type = RAFT_BARRIER};
	struct raft_entry entry = {.term = rec.term, .type = RAFT_BARRIER};
	struct raft_event event = {.type = RAFT_SUBMIT};
	int rv;

	rec.index = raft_last_index(&s->raft) + 1;
	rec.buf = rlog_buf_new(8);
	if (rec.buf == NULL) {
		rlog_server_fail(s, "out of memory");
		return;
	}
	memset(rec.buf->data, 0, rec.buf->len);
	entry.buf.base = rec.buf->data;
	entry.buf.len = rec.buf->len;
	entry.batch = rec.buf;
	event.submit.entries = &entry;
	event.submit.n = 1;
	s->barrier_index = rec.index;
	rv = rlog_server_step(s, &event, &entry, &rec, NULL);
	if (rv != 0)
		rlog_server_fail(s, "cannot begin to lead: %s", raft_strerror(rv));
	rlog_buf_unref(rec.buf);
}

/* Tell libraft as soon as its newest membership change is committed. Waiting until it is applied
 * would let a newer change overtake it, after which libraft would roll back to the wrong one. */
static void confirm_configuration(struct rlog_server *s)
{
	const uint64_t index = s->raft.configuration_uncommitted_index;
	struct raft_event event = {.type = RAFT_CONFIGURATION};
	struct rlog_record rec;
	struct raft_buffer buf;
	int rv;

	rv = rlog_log_read(s->log, index, &rec);
	if (rv != 0) {
		rlog_server_fail(s, "cannot read the log: %s index=%llu", strerror(-rv),
				 (unsigned long long)index);
		return;
	}
	buf.base = rec.buf->data;
	buf.len = rec.buf->len;
	event.configuration.index = index;
	rv = raft_configuration_decode(&buf, &event.configuration.conf);
	rlog_buf_unref(rec.buf);
	if (rv == 0)
		rv = rlog_server_step(s, &event, NULL, NULL, NULL);
	if (rv != 0)
		rlog_server_fail(s, "cannot use the membership in the log: %s index=%llu",
				 raft_strerror(rv), (unsigned long long)index);
}

/* One event through libraft. `entries` and `records` run in parallel and are what the event carries.
 * Returns libraft's code; `*took_entries` says whether entries were staged. */
int rlog_server_step(struct rlog_server *s, struct raft_event *event,
		     const struct raft_entry *entries, const struct rlog_record *records,
		     bool *took_entries)
{
	struct raft *r = &s->raft;
	struct raft_update update;
	bool has_entries, own_barrier;
	int rv;

	event->time = s->now;
	event->capacity = 0;
	rv = raft_step(r, event, &update);
	if (rv != 0)
		return rv;

	has_entries = (update.flags & RAFT_UPDATE_ENTRIES) != 0;
	own_barrier = has_entries && update.entries.batch == &r->barrier;
	if (took_entries != NULL)
		*took_entries = has_entries && !own_barrier;

	if (update.flags & (RAFT_UPDATE_CURRENT_TERM | RAFT_UPDATE_VOTED_FOR))
		rlog_server_save_meta(s);
	if (own_barrier) {
		stage_barrier(s, update.entries.index);
	} else if (has_entries && !rlog_server_failed(s)) {
		assert(update.entries.batch >= entries);
		stage(s, update.entries.index, records + (update.entries.batch - entries),
		      update.entries.n);
	}
	/* A new leadership is noted before its first messages go out. */
	if (r->state != RAFT_LEADER) {
		s->led_term = 0;
		s->barrier_index = 0;
	} else if (s->led_term != r->current_term) {
		s->led_term = r->current_term;
		s->led_since_ms = s->now;
		s->barrier_index = own_barrier ? update.entries.index : 0;
		s->promote_ms = s->now;
		rlog_server_log(s, 'I', "this node leads now term=%llu last_index=%llu",
				(unsigned long long)r->current_term,
				(unsigned long long)rlog_log_last(s->log));
	}
	if (update.flags & RAFT_UPDATE_MESSAGES) {
		for (unsigned i = 0; i < update.messages.n && !rlog_server_failed(s); i++)
			rlog_server_send(s, &update.messages.batch[i]);
	}
	if (rlog_server_failed(s))
		return 0;

	if (s->led_term != 0 && s->barrier_index == 0)
		submit_barrier(s);
	while (!rlog_server_failed(s) && r->configuration_uncommitted_index != 0 &&
	       r->commit_index >= r->configuration_uncommitted_index)
		confirm_configuration(s);
	rlog_server_members_changed(s);
	return 0;
}

/* Submit records[0 .. count) of the scratch, whose type and buf are set. 0, or -EAGAIN when this
 * server may not append now. */
int rlog_server_submit_records(struct rlog_server *s, size_t count, uint64_t *first_index)
{
	static char token; /* SUBMIT only wants it not to be NULL */
	struct raft_event event = {.type = RAFT_SUBMIT};
	int rv;

	*first_index = raft_last_index(&s->raft) + 1;
	for (size_t i = 0; i < count; i++) {
		struct rlog_record *rec = &s->records[i];
		struct raft_entry *entry = &s->entries[i];

		rec->index = *first_index + i;
		rec->term = s->raft.current_term;
		entry->term = rec->term;
		entry->type = (enum raft_entry_type)rec->type;
		entry->buf.base = rec->buf->data;
		entry->buf.len = rec->buf->len;
		entry->batch = &token;
	}
	event.submit.entries = s->entries;
	event.submit.n = (unsigned)count;
	rv = rlog_server_step(s, &event, s->entries, s->records, NULL);
	if (rv == RAFT_NOTLEADER || rv == RAFT_CANTCHANGE)
		return -EAGAIN;
	if (rv != 0)
		rlog_server_fail(s, "raft refused entries: %s", raft_strerror(rv));
	return 0;
}
