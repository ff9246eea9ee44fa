/* What goes to the peers.
 *
 * libraft says of an AppendEntries only "so many entries after this one", and believes them sent.
 * Entries are read, put into messages of about a MiB, and sent as far as the connection has room;
 * the rest is a pending range, which later ranges extend when they begin where it ends. A range that
 * begins elsewhere (libraft starts again after a rejection) replaces it: what is dropped so is asked
 * for again. So a peer costs a bounded queue, however far it is behind.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "server/server_internal.h"

static bool is_member(const struct rlog_server *s, uint64_t id)
{
	const struct raft_configuration *conf = &s->raft.configuration;

	for (unsigned i = 0; i < conf->n; i++)
		if (conf->servers[i].id == id)
			return true;
	return false;
}

/* The peer `id`, made when it is not known; its address follows `address`. NULL when there is no
 * room for one more, which only strangers can bring about. */
struct peer *rlog_server_peer(struct rlog_server *s, uint64_t id, const char *address)
{
	struct peer *p = NULL;

	if (strlen(address) >= RLOG_ADDRESS_MAX)
		return NULL;
	for (unsigned i = 0; i < s->peer_count && p == NULL; i++)
		if (s->peers[i].id == id)
			p = &s->peers[i];
	if (p == NULL) {
		if (s->peer_count == sizeof s->peers / sizeof s->peers[0]) {
			/* Whoever is not a member makes place. */
			for (unsigned i = 0; i < s->peer_count && p == NULL; i++)
				if (!is_member(s, s->peers[i].id))
					p = &s->peers[i];
			if (p == NULL)
				return NULL;
		} else {
			p = &s->peers[s->peer_count++];
		}
		memset(p, 0, sizeof *p);
		p->id = id;
	}
	if (strcmp(p->address, address) != 0)
		memmove(p->address, address, strlen(address) + 1);
	return p;
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
		s->io.send(s->io.ctx, p->id, p->address, &m);
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

void rlog_server_drain(struct rlog_server *s, struct peer *p)
{
	while (p->pending && !rlog_server_failed(s)) {
		int64_t room = s->io.room(s->io.ctx, p->id, p->address);

		if (room < 0 || p->term != s->led_term)
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
			rlog_server_drain(s, &s->peers[i]);
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
	rlog_server_drain(s, p);
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
		s->io.send(s->io.ctx, p->id, p->address, &m);
}
