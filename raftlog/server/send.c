/* What goes to the peers.
 *
 * libraft says of an AppendEntries only "so many entries after this one", and believes them sent.
 * Entries are read, put into messages of about a MiB, and sent as far as the connection has room;
 * the rest is a pending range, which later ranges extend when they begin where it ends. A range that
 * begins elsewhere (libraft starts again after a rejection) replaces it: what is dropped so is asked
 * for again. So a peer costs a bounded queue, however far it is behind.
 */
#include "server/send.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "log/read.h"
#include "server/format.h"
#include "server/peers.h"

/* A message carries about this much payload at most, unless a single entry is larger. */
#define MESSAGE_PAYLOAD (1u << 20)

static void post(struct rlog_server *s, const struct peer *p, struct rlog_message *m)
{
	rlog_server_format_stamp(s, m);
	s->io.send(s->io.ctx, p->id, p->address, m);
}

/* Send one message from the front of the pending range. */
static void send_some(struct rlog_server *s, struct peer *p)
{
	struct rlog_message m = {.type = RLOG_MSG_APPEND};
	uint64_t want = p->count < RLOG_APPEND_MAX ? p->count : RLOG_APPEND_MAX;
	struct rlog_record one;
	size_t bytes = 0;
	unsigned done = 0;
	int rv = 0;

	m.append.term = p->term;
	m.append.prev_index = p->prev;
	m.append.prev_term = p->prev == 0 ? 0 : rlog_server_term_of(s, p->prev);
	m.append.leader_commit = s->raft.commit_index;
	if ((p->prev != 0 && m.append.prev_term == 0) || p->prev + 1 < rlog_log_first(s->log)) {
		p->pending = false; /* a range from before something changed */
		return;
	}
	if (want > 1) {
		/* One look at the sizes, so that the array fits. */
		uint64_t fits = 0;

		while (fits < want) {
			uint64_t term;
			uint8_t type;
			size_t len;

			rv = rlog_log_describe(s->log, p->prev + 1 + fits, &term, &type, &len);
			if (rv != 0)
				break;
			if (fits > 0 && (type == RAFT_CHANGE || bytes + len > MESSAGE_PAYLOAD))
				break;
			bytes += len;
			fits++;
		}
		want = fits;
	}
	if (rv == 0 && want > 0) {
		m.append.records = want == 1 ? &one : malloc(want * sizeof *m.append.records);
		if (m.append.records == NULL)
			rv = -ENOMEM;
	}
	while (rv == 0 && done < want) {
		rv = rlog_log_read(s->log, p->prev + 1 + done, &m.append.records[done]);
		if (rv == 0)
			done++;
	}
	m.append.count = done;
	if (rv == 0) {
		post(s, p, &m);
		p->prev += done;
		p->count -= done;
		p->pending = p->count > 0;
	} else {
		p->pending = false;
		rlog_server_fail(s, "cannot read the log: %s index=%llu", strerror(-rv),
				 (unsigned long long)(p->prev + 1 + done));
	}
	for (unsigned i = 0; i < done; i++)
		rlog_buf_unref(m.append.records[i].buf);
	if (m.append.records != &one)
		free(m.append.records);
}

static void drain(struct rlog_server *s, struct peer *p)
{
	while (p->pending && !rlog_server_failed(s)) {
		int64_t room = s->io.room(s->io.ctx, p->id, p->address);

		if (room < 0 || p->term != s->led_term || !rlog_server_format_may_send(s, p))
			p->pending = false;
		else if (room == 0)
			break;
		else
			send_some(s, p);
	}
}

void rlog_server_room(struct rlog_server *s, uint64_t id)
{
	if (rlog_server_failed(s))
		return;
	for (unsigned i = 0; i < s->peer_count; i++)
		if (s->peers[i].id == id)
			drain(s, &s->peers[i]);
}

static void send_append(struct rlog_server *s, struct peer *p,
			const struct raft_append_entries *args)
{
	assert(args->term == s->led_term);
	if (p->pending && p->term == args->term && p->prev + p->count == args->prev_log_index) {
		p->count += args->n_entries;
	} else {
		p->pending = true;
		p->term = args->term;
		p->prev = args->prev_log_index;
		p->count = args->n_entries;
	}
	drain(s, p);
}

/* A message of libraft's, to be sent now. */
void rlog_server_send(struct rlog_server *s, const struct raft_message *message)
{
	struct rlog_message m = {0};
	struct peer *p = rlog_server_peer(s, message->server_id, message->server_address);

	if (p == NULL)
		return;
	switch (message->type) {
	case RAFT_APPEND_ENTRIES:
		send_append(s, p, &message->append_entries);
		return;
	case RAFT_APPEND_ENTRIES_RESULT:
		m.type = RLOG_MSG_APPEND_RESULT;
		m.append_result = message->append_entries_result;
		break;
	case RAFT_REQUEST_VOTE:
		m.type = RLOG_MSG_VOTE;
		m.vote = message->request_vote;
		break;
	case RAFT_REQUEST_VOTE_RESULT:
		m.type = RLOG_MSG_VOTE_RESULT;
		m.vote_result = message->request_vote_result;
		break;
	case RAFT_TIMEOUT_NOW:
		m.type = RLOG_MSG_TIMEOUT_NOW;
		m.timeout_now = message->timeout_now;
		break;
	case RAFT_INSTALL_SNAPSHOT:
		m.type = RLOG_MSG_NEEDS_STATE;
		m.needs_state.term = message->install_snapshot.term;
		m.needs_state.index = message->install_snapshot.last_index;
		m.needs_state.index_term = message->install_snapshot.last_term;
		break;
	default:
		return;
	}
	if (s->io.room(s->io.ctx, p->id, p->address) >= 0)
		post(s, p, &m);
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
		post(s, p, &m);
}
