/* Events into libraft, its effects out of it.
 *
 * The happy path of a commit on the leader: rlog_server_submit() queues the request; the turn gives
 * all that wait to libraft in one SUBMIT step; the step's update carries the same entries back, which
 * are staged in the log, and one AppendEntries range per follower, which goes out; the turn starts
 * the log write. Its end is a PERSISTED_ENTRIES step; a follower's answer is a RECEIVE step; one of
 * the two moves the commit index, and rlog_server_deliver() hands the entries up.
 *
 * After each raft_step() its update is carried out in the only safe order: term and vote made
 * durable, entries staged, messages sent. A message never leaves before the term and vote it speaks
 * for are on disk; a follower's promise about entries is made by libraft only in the step that
 * reports them persisted, so sending at once is right, and lets the leader's disk and its followers
 * work at the same time.
 *
 * libraft 0.22.1 has edges that this file keeps away from:
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
 *    on disk then (snapshot.c).
 *  - It takes an AppendEntries message from index 1 on to match any log, also one that does not begin
 *    there, and rejects any other that begins in front of the log, down to index 1. What the snapshot
 *    has is matched, so such messages are cut to what is behind it.
 *  - It frees entries[0].batch of a received message unless the update carries entries, in which
 *    case it is left to the caller. The payloads here live in counted buffers, so the batch is a
 *    token of one byte that exists to be freed.
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "log/snapshot.h"
#include "server/server_internal.h"

#define DEFAULT_HEARTBEAT_MS 50
#define DISK_RETRY_MS 1000
#define INFLIGHT_ENTRIES 4096
/* After it libraft looks anew at what a follower that fetches the state has, which costs nothing. Until then
 * it does not notice that it has a newer snapshot than the one that it told the follower of. */
#define INSTALL_TIMEOUT_MS 1000

/* ---- small things ------------------------------------------------------------------------- */

void rlog_server_log(struct rlog_server *s, char level, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (s->cb.log == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	s->cb.log(s->ctx, level, line);
}

void rlog_server_fail(struct rlog_server *s, const char *fmt, ...)
{
	va_list ap;

	if (s->failure[0] != 0)
		return;
	va_start(ap, fmt);
	vsnprintf(s->failure, sizeof s->failure, fmt, ap);
	va_end(ap);
}

bool rlog_server_failed(const struct rlog_server *s)
{
	return s->failure[0] != 0;
}

const char *rlog_server_failure(const struct rlog_server *s)
{
	return rlog_server_failed(s) ? s->failure : NULL;
}

bool rlog_server_leads(const struct rlog_server *s)
{
	return s->led_term != 0;
}

bool rlog_server_ready(const struct rlog_server *s)
{
	return s->led_term != 0 && s->barrier_index != 0 && s->applied >= s->barrier_index;
}

uint64_t rlog_server_term_of(const struct rlog_server *s, uint64_t index)
{
	const struct rlog_snapshot *snapshot = rlog_log_snapshot(s->log);
	uint64_t term;
	uint8_t type;
	size_t len;

	if (rlog_log_describe(s->log, index, &term, &type, &len) == 0)
		return term;
	return snapshot != NULL && snapshot->index == index ? snapshot->term : 0;
}

int rlog_server_scratch(struct rlog_server *s, size_t count)
{
	struct raft_entry *entries;
	struct rlog_record *records;

	if (count <= s->scratch_count)
		return 0;
	entries = realloc(s->entries, count * sizeof *entries);
	if (entries == NULL)
		return -ENOMEM;
	s->entries = entries;
	records = realloc(s->records, count * sizeof *records);
	if (records == NULL)
		return -ENOMEM;
	s->records = records;
	s->scratch_count = count;
	return 0;
}

/* ---- one step ----------------------------------------------------------------------------- */

static void save_meta(struct rlog_server *s)
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
	rv = rlog_server_step(s, &event, &entry, &rec, NULL, NULL);
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
		rv = rlog_server_step(s, &event, NULL, NULL, NULL, NULL);
	if (rv != 0)
		rlog_server_fail(s, "cannot use the membership in the log: %s index=%llu",
				 raft_strerror(rv), (unsigned long long)index);
}

/* One event through libraft. `entries` and `records` run in parallel and are what the event carries.
 * Returns libraft's code; `*took_entries` says whether entries were staged, `*first_index` from which
 * index on. */
int rlog_server_step(struct rlog_server *s, struct raft_event *event,
		     const struct raft_entry *entries, const struct rlog_record *records,
		     bool *took_entries, uint64_t *first_index)
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
	if (first_index != NULL && has_entries)
		*first_index = update.entries.index;

	if (update.flags & (RAFT_UPDATE_CURRENT_TERM | RAFT_UPDATE_VOTED_FOR))
		save_meta(s);
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
	rv = rlog_server_step(s, &event, s->entries, s->records, NULL, NULL);
	if (rv == RAFT_NOTLEADER || rv == RAFT_CANTCHANGE)
		return -EAGAIN;
	if (rv != 0)
		rlog_server_fail(s, "raft refused entries: %s", raft_strerror(rv));
	return 0;
}

/* ---- messages in -------------------------------------------------------------------------- */

/* Give libraft entries [from, to) of an AppendEntries message. */
static void receive_part(struct rlog_server *s, uint64_t from_id, const char *address,
			 const struct rlog_message *m, unsigned from, unsigned to)
{
	struct rlog_record *records = m->append.records;
	struct raft_message message = {.type = RAFT_APPEND_ENTRIES,
				       .server_id = from_id,
				       .server_address = address};
	struct raft_event event = {.type = RAFT_RECEIVE};
	bool took = false;
	char *token = NULL;
	int rv;

	if (to > from) {
		token = raft_malloc(1);
		if (token == NULL) {
			rlog_server_fail(s, "out of memory");
			return;
		}
	}
	for (unsigned i = from; i < to; i++) {
		s->entries[i].term = records[i].term;
		s->entries[i].type = (enum raft_entry_type)records[i].type;
		s->entries[i].buf.base = records[i].buf->data;
		s->entries[i].buf.len = records[i].buf->len;
		s->entries[i].batch = token;
	}
	message.append_entries = (struct raft_append_entries){
		.term = m->append.term,
		.prev_log_index = m->append.prev_index + from,
		.prev_log_term = from == 0 ? m->append.prev_term : records[from - 1].term,
		.leader_commit = m->append.leader_commit,
		.entries = s->entries + from,
		.n_entries = to - from,
	};
	event.receive.message = &message;
	rv = rlog_server_step(s, &event, s->entries, records, &took, NULL);
	if (rv != 0) /* the token is gone already */
		rlog_server_fail(
			s,
			"raft cannot go on after a message of node %08llx: %s; if this node's "
			"data directory was restored from a copy, remove it and join again",
			(unsigned long long)from_id, raft_strerror(rv));
	else if (took)
		raft_free(token);
}

/* The part of an AppendEntries message that is behind the snapshot, when it begins in front of the log. Its
 * leader is in the term in which the snapshot was taken or a later one, so it has the snapshot's entries:
 * an empty message that says so stands for one that ends in front of it. */
static void step_over(const struct rlog_server *s, struct rlog_message *m)
{
	const struct rlog_snapshot *snapshot = rlog_log_snapshot(s->log);
	const uint64_t prev = m->append.prev_index;
	uint64_t skip;

	if (snapshot == NULL || prev >= snapshot->index ||
	    (prev == 0 ? rlog_log_first(s->log) == 1 : rlog_server_term_of(s, prev) != 0))
		return;
	skip = snapshot->index - prev;
	m->append.prev_index = snapshot->index;
	m->append.prev_term = snapshot->term;
	if (skip > m->append.count) {
		m->append.count = 0;
		return;
	}
	m->append.prev_term = m->append.records[skip - 1].term; /* which libraft compares */
	m->append.records += skip;
	m->append.count -= (unsigned)skip;
}

static void receive_append(struct rlog_server *s, uint64_t from_id, const char *address,
			   const struct rlog_message *whole)
{
	struct rlog_message part = *whole; /* its records stay those of the whole */
	const struct rlog_message *m = &part;
	const struct raft *r = &s->raft;
	unsigned from = 0, count;

	step_over(s, &part);
	count = m->append.count;
	if (r->state == RAFT_LEADER && m->append.term == r->current_term) {
		rlog_server_fail(
			s,
			"node %08llx leads term %llu too: a node runs twice or was restored from "
			"an old copy; stop it, remove its data directory and join it again",
			(unsigned long long)from_id, (unsigned long long)m->append.term);
		return;
	}
	if (rlog_server_scratch(s, count) != 0) {
		rlog_server_fail(s, "out of memory");
		return;
	}
	do {
		unsigned to = from;

		if (count > 0) {
			to = from + 1;
			while (to < count && m->append.records[to].type != RAFT_CHANGE)
				to++;
			if (m->append.records[from].type == RAFT_CHANGE &&
			    r->configuration_uncommitted_index != 0)
				receive_part(s, from_id, address, m, from, from);
		}
		if (!rlog_server_failed(s))
			receive_part(s, from_id, address, m, from, to);
		from = to;
	} while (from < count && !rlog_server_failed(s));

	/* What a node must have applied to serve what its leader had committed. */
	if (!rlog_server_failed(s) && r->state == RAFT_FOLLOWER &&
	    r->current_term == m->append.term && r->follower_state.match > 0 &&
	    s->catch_up_term != m->append.term &&
	    r->follower_state.match >= m->append.prev_index + count) {
		s->catch_up_term = m->append.term;
		s->catch_up_index = m->append.leader_commit;
	}
}

/* The leader is silent, or is the one that asks for the vote: a standby, which has no election timer
 * that would do this, forgets it. */
static void forget_silent_leader(struct rlog_server *s, uint64_t candidate)
{
	struct raft *r = &s->raft;
	const uint64_t leader = r->follower_state.current_leader.id;

	if (leader == 0 || (leader != candidate && rlog_server_heard(s, leader)))
		return;
	raft_free(r->follower_state.current_leader.address);
	r->follower_state.current_leader.address = NULL;
	r->follower_state.current_leader.id = 0;
}

static struct raft_server *own_entry(struct raft *r)
{
	for (unsigned i = 0; i < r->configuration.n; i++)
		if (r->configuration.servers[i].id == r->id)
			return &r->configuration.servers[i];
	return NULL;
}

static int step_vote(struct rlog_server *s, struct raft_event *event, uint64_t candidate)
{
	struct raft_server *self = own_entry(&s->raft);
	int role, rv;

	if (self == NULL || self->role == RAFT_VOTER || s->raft.state != RAFT_FOLLOWER)
		return rlog_server_step(s, event, NULL, NULL, NULL, NULL);
	forget_silent_leader(s, candidate);
	role = self->role;
	self->role = RAFT_VOTER;
	rv = rlog_server_step(s, event, NULL, NULL, NULL, NULL);
	self = own_entry(&s->raft);
	if (self != NULL)
		self->role = role;
	return rv;
}

/* Would libraft misread this message in its present state? */
static bool unwelcome(const struct rlog_server *s, uint64_t from_id, const struct rlog_message *m)
{
	const struct raft *r = &s->raft;

	switch (m->type) {
	case RLOG_MSG_VOTE:
		return m->vote.candidate_id != from_id;
	case RLOG_MSG_VOTE_RESULT:
		return r->state != RAFT_CANDIDATE ||
		       (m->vote_result.pre_vote && !r->candidate_state.in_pre_vote);
	case RLOG_MSG_APPEND_RESULT:
		return r->state != RAFT_LEADER;
	case RLOG_MSG_TIMEOUT_NOW:
		/* The only voter would lead without a vote, so without a new term. */
		return rlog_server_sole_voter(s);
	default:
		return false;
	}
}

void rlog_server_receive(struct rlog_server *s, uint64_t from, const char *address,
			 struct rlog_message *m)
{
	struct raft_message message = {.server_id = from, .server_address = address};
	struct raft_event event = {.type = RAFT_RECEIVE};
	struct peer *p;
	int rv;

	if (rlog_server_failed(s) || from == 0 || from == s->raft.id)
		goto out;
	p = rlog_server_peer(s, from, address);
	if (p == NULL)
		goto out;
	p->heard_ms = s->now;
	if (unwelcome(s, from, m))
		goto out;
	switch (m->type) {
	case RLOG_MSG_APPEND:
		receive_append(s, from, address, m);
		goto out;
	case RLOG_MSG_APPEND_RESULT:
		message.type = RAFT_APPEND_ENTRIES_RESULT;
		message.append_entries_result = m->append_result;
		break;
	case RLOG_MSG_VOTE:
		message.type = RAFT_REQUEST_VOTE;
		message.request_vote = m->vote;
		break;
	case RLOG_MSG_VOTE_RESULT:
		message.type = RAFT_REQUEST_VOTE_RESULT;
		message.request_vote_result = m->vote_result;
		break;
	case RLOG_MSG_TIMEOUT_NOW:
		message.type = RAFT_TIMEOUT_NOW;
		message.timeout_now = m->timeout_now;
		break;
	case RLOG_MSG_NEEDS_STATE:
		rlog_server_needs_state(s, from, address, m);
		goto out;
	default:
		goto out;
	}
	event.receive.message = &message;
	rv = m->type == RLOG_MSG_VOTE ? step_vote(s, &event, from)
				      : rlog_server_step(s, &event, NULL, NULL, NULL, NULL);
	if (rv != 0)
		rlog_server_fail(s, "raft cannot go on after a message of node %08llx: %s",
				 (unsigned long long)from, raft_strerror(rv));
out:
	rlog_message_clear(m);
}

void rlog_server_keepalive(struct rlog_server *s, uint64_t from, const char *address)
{
	struct raft *r = &s->raft;
	struct rlog_message m = {.type = RLOG_MSG_APPEND_RESULT};
	struct peer *p = rlog_server_peer(s, from, address);

	if (p == NULL)
		return;
	p->heard_ms = s->now;
	r->election_timer_start = s->now;
	if (s->now - p->keepalive_ms < r->heartbeat_timeout)
		return;
	/* A success that acknowledges what is committed and stored here, which every leader of this term or
	 * a later one has: most often it knows, and notes the time. After an install it does not. */
	p->keepalive_ms = s->now;
	m.append_result.last_log_index =
		r->commit_index < r->last_stored ? r->commit_index : r->last_stored;
	m.append_result.term = r->current_term;
	m.append_result.version = 2;
	m.append_result.features = 1;
	if (s->io.room(s->io.ctx, from, p->address) >= 0)
		s->io.send(s->io.ctx, from, p->address, &m);
}

void rlog_server_hears(struct rlog_server *s, uint64_t from, const char *address)
{
	if (!rlog_server_failed(s) && s->raft.state == RAFT_FOLLOWER &&
	    s->raft.follower_state.current_leader.id == from)
		rlog_server_keepalive(s, from, address);
}

/* ---- the log ------------------------------------------------------------------------------ */

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

static void start_write(struct rlog_server *s)
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
	rv = rlog_server_step(s, &event, NULL, NULL, NULL, NULL);
	if (rv != 0)
		rlog_server_fail(s, "raft cannot go on after a write: %s", raft_strerror(rv));
}

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
		save_meta(s);
	}
	if (rlog_server_failed(s))
		return;
	rv = rlog_server_step(s, &event, NULL, NULL, NULL, NULL);
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
	if (s->waiting.head != NULL)
		at = earlier(at, s->waiting.head->deadline_ms);
	if (s->in_flight.head != NULL)
		at = earlier(at, s->in_flight.head->deadline_ms);
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

bool rlog_server_has_deliveries(const struct rlog_server *s)
{
	return !s->stalled && s->applied < earlier(s->raft.commit_index, rlog_log_durable(s->log));
}

bool rlog_server_writing(const struct rlog_server *s)
{
	return s->writing;
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
				  s->conf_uncommitted};

	return XXH3_64bits(parts, sizeof parts);
}

void rlog_server_turn(struct rlog_server *s)
{
	if (!rlog_server_failed(s))
		rlog_server_transfer_turn(s);
	if (!rlog_server_failed(s))
		rlog_server_submit_waiting(s);
	if (!rlog_server_failed(s))
		start_write(s);
}

/* ---- life --------------------------------------------------------------------------------- */

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

int rlog_server_new(struct rlog_server **out, const struct rlog_server_config *config,
		    struct rlog_log *log, uint64_t now_ms, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_server *s = calloc(1, sizeof *s);
	int rv;

	if (s == NULL) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "out of memory");
		return -ENOMEM;
	}
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

uint64_t rlog_server_leader(const struct rlog_server *s, const char **address)
{
	const struct raft *r = &s->raft;

	*address = "";
	if (r->state == RAFT_LEADER) {
		*address = s->address;
		return r->id;
	}
	if (r->state == RAFT_FOLLOWER && r->follower_state.current_leader.id != 0) {
		if (r->follower_state.current_leader.address != NULL)
			*address = r->follower_state.current_leader.address;
		return r->follower_state.current_leader.id;
	}
	return 0;
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
	out->member_count = rlog_server_members(s, out->members);
}
