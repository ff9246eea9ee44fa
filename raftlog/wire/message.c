/* Encoding and decoding of messages. See message.h for the frame.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/configuration.h"
#include "base/cursor.h"
#include "wire/message.h"
#define XXH_STATIC_LINKING_ONLY /* the streaming state on the stack */
#include <xxhash.h>

static const uint8_t frame_magic[4] = {'d', 'q', 'l', 'R'};

/* ---- addresses ---------------------------------------------------------------------------- */

static void put_address(struct writer *w, const char *address)
{
	size_t len = strnlen(address, RLOG_ADDRESS_MAX);

	assert(len < RLOG_ADDRESS_MAX);
	put8(w, (uint8_t)len);
	memcpy(w->at, address, len);
	w->at += len;
}

/* An address is text without a zero byte, shorter than RLOG_ADDRESS_MAX. */
static void get_address(struct reader *r, char out[RLOG_ADDRESS_MAX])
{
	size_t len = get8(r);

	memset(out, 0, RLOG_ADDRESS_MAX);
	if (len >= RLOG_ADDRESS_MAX || !take(r, out, len) || memchr(out, 0, len) != NULL)
		r->short_of_bytes = true;
}

/* ---- encoding ----------------------------------------------------------------------------- */

/* The part of the body that stands in `head`; an upper bound. */
static size_t fixed_bytes(const struct rlog_message *m)
{
	if (m->type == RLOG_MSG_APPEND)
		return 40 + 16 * (size_t)m->append.count;
	return 64 + RLOG_ADDRESS_MAX;
}

static void put_append(struct writer *w, const struct rlog_message *m)
{
	put64(w, m->append.term);
	put64(w, m->append.prev_index);
	put64(w, m->append.prev_term);
	put64(w, m->append.leader_commit);
	put32(w, m->append.count);
	put32(w, 0);
	for (unsigned i = 0; i < m->append.count; i++) {
		const struct rlog_record *rec = &m->append.records[i];

		put64(w, rec->term);
		put32(w, (uint32_t)rec->buf->len);
		put32(w, rec->type);
	}
}

static void put_raft(struct writer *w, const struct rlog_message *m)
{
	switch (m->type) {
	case RLOG_MSG_APPEND:
		put_append(w, m);
		break;
	case RLOG_MSG_APPEND_RESULT:
		put64(w, m->append_result.term);
		put64(w, m->append_result.rejected);
		put64(w, m->append_result.last_log_index);
		put16(w, m->append_result.features);
		put16(w, m->append_result.capacity);
		put32(w, m->append_result.version);
		break;
	case RLOG_MSG_VOTE:
		put64(w, m->vote.term);
		put64(w, m->vote.candidate_id);
		put64(w, m->vote.last_log_index);
		put64(w, m->vote.last_log_term);
		put8(w, m->vote.disrupt_leader);
		put8(w, m->vote.pre_vote);
		put16(w, 0);
		put32(w, m->vote.version);
		break;
	case RLOG_MSG_VOTE_RESULT:
		put64(w, m->vote_result.term);
		put8(w, m->vote_result.vote_granted);
		put8(w, m->vote_result.pre_vote);
		put16(w, m->vote_result.features);
		put16(w, m->vote_result.capacity);
		put16(w, m->vote_result.version);
		break;
	case RLOG_MSG_TIMEOUT_NOW:
		put64(w, m->timeout_now.term);
		put64(w, m->timeout_now.last_log_index);
		put64(w, m->timeout_now.last_log_term);
		put32(w, m->timeout_now.version);
		break;
	case RLOG_MSG_NEEDS_STATE:
		put64(w, m->needs_state.term);
		put64(w, m->needs_state.index);
		put64(w, m->needs_state.index_term);
		break;
	default:
		assert(false && "a message of a type that does not exist");
	}
}

static void put_body(struct writer *w, const struct rlog_message *m)
{
	switch (m->type) {
	case RLOG_MSG_HELLO:
	case RLOG_MSG_STREAM:
		put64(w, m->hello.cluster_id);
		put64(w, m->hello.from);
		put64(w, m->hello.to);
		put_address(w, m->hello.address);
		break;
	case RLOG_MSG_WELCOME:
		put64(w, m->welcome.cluster_id);
		put64(w, m->welcome.from);
		put32(w, m->welcome.answer);
		break;
	case RLOG_MSG_JOIN:
		put64(w, m->join.cluster_id);
		put64(w, m->join.id);
		put_address(w, m->join.address);
		break;
	case RLOG_MSG_JOINED:
		put64(w, m->joined.cluster_id);
		put32(w, m->joined.answer);
		put_address(w, m->joined.address);
		break;
	default:
		put_raft(w, m);
	}
}

static uint8_t version_of(const struct rlog_message *m)
{
	bool too_old = (m->type == RLOG_MSG_WELCOME && m->welcome.answer == RLOG_ANSWER_TOO_OLD) ||
		       (m->type == RLOG_MSG_JOINED && m->joined.answer == RLOG_ANSWER_TOO_OLD);

	return too_old ? RLOG_WIRE_VERSION_TOO_OLD : RLOG_WIRE_VERSION;
}

struct rlog_frame *rlog_frame_new(const struct rlog_message *m)
{
	unsigned count = m->type == RLOG_MSG_APPEND ? m->append.count : 0;
	size_t head_max = RLOG_FRAME_HEADER + fixed_bytes(m);
	size_t head_aligned = (head_max + 15) & ~(size_t)15;
	struct rlog_frame *f;
	struct writer w;
	size_t head_bytes;
	uint64_t hash;

	f = malloc(sizeof *f + head_aligned + (count + 1) * sizeof(struct iovec) +
		   count * sizeof(struct rlog_buf *));
	if (f == NULL)
		return NULL;
	memset(f, 0, sizeof *f);
	f->iov = (struct iovec *)(f->head + head_aligned);
	f->bufs = (struct rlog_buf **)(f->iov + count + 1);

	w.at = f->head + RLOG_FRAME_HEADER;
	put_body(&w, m);
	head_bytes = (size_t)(w.at - f->head);
	assert(head_bytes <= head_max);
	f->iov[f->iov_count++] = (struct iovec){.iov_base = f->head, .iov_len = head_bytes};
	f->bytes = head_bytes;
	for (unsigned i = 0; i < count; i++) {
		struct rlog_buf *buf = m->append.records[i].buf;

		if (buf->len == 0)
			continue;
		f->bufs[f->buf_count++] = rlog_buf_ref(buf);
		f->iov[f->iov_count++] = (struct iovec){.iov_base = buf->data, .iov_len = buf->len};
		f->bytes += buf->len;
	}
	assert(f->bytes - RLOG_FRAME_HEADER <= RLOG_FRAME_MAX);

	if (f->iov_count == 1) {
		hash = XXH3_64bits(f->head + RLOG_FRAME_HEADER, head_bytes - RLOG_FRAME_HEADER);
	} else {
		XXH3_state_t state;

		XXH3_64bits_reset(&state);
		XXH3_64bits_update(&state, f->head + RLOG_FRAME_HEADER,
				   head_bytes - RLOG_FRAME_HEADER);
		for (unsigned i = 1; i < f->iov_count; i++)
			XXH3_64bits_update(&state, f->iov[i].iov_base, f->iov[i].iov_len);
		hash = XXH3_64bits_digest(&state);
	}

	w.at = f->head;
	memcpy(w.at, frame_magic, sizeof frame_magic);
	w.at += sizeof frame_magic;
	put8(&w, version_of(m));
	put8(&w, (uint8_t)m->type);
	put16(&w, (uint16_t)m->reads);
	put32(&w, (uint32_t)(f->bytes - RLOG_FRAME_HEADER));
	put32(&w, m->needs > 1 ? m->needs : 0);
	put64(&w, hash);
	put64(&w, XXH3_64bits(f->head, 24));
	return f;
}

void rlog_frame_free(struct rlog_frame *f)
{
	if (f == NULL)
		return;
	for (unsigned i = 0; i < f->buf_count; i++)
		rlog_buf_unref(f->bufs[i]);
	free(f);
}

/* ---- decoding ----------------------------------------------------------------------------- */

int rlog_frame_header_read(const uint8_t header[RLOG_FRAME_HEADER], struct rlog_frame_header *out)
{
	struct reader r = {.at = header, .left = RLOG_FRAME_HEADER};
	uint8_t magic[4];
	uint8_t version, type;

	take(&r, magic, sizeof magic);
	version = get8(&r);
	type = get8(&r);
	out->reads = rlog_format_or_first(get16(&r));
	out->body_bytes = get32(&r);
	out->needs = rlog_format_or_first(get32(&r));
	out->body_hash = get64(&r);
	if (memcmp(magic, frame_magic, sizeof magic) != 0)
		return -EPROTO;
	if (get64(&r) != XXH3_64bits(header, 24))
		return -EBADMSG;
	if (version != RLOG_WIRE_VERSION && (version != RLOG_WIRE_VERSION_TOO_OLD ||
					     (type != RLOG_MSG_WELCOME && type != RLOG_MSG_JOINED)))
		return -EPROTO;
	if (type < RLOG_MSG_HELLO || type > RLOG_MSG_STREAM || out->body_bytes > RLOG_FRAME_MAX)
		return -EPROTO;
	out->type = (enum rlog_message_type)type;
	return 0;
}

/* APPEND: term, prev_index, prev_term, leader_commit (u64 each), count (u32), 0 (u32); `count` times
 * term (u64), bytes (u32), type (u32); then the payloads without gaps. libraft asserts, in builds
 * with assertions, what is checked here: terms are not 0 and do not fall. */
static int read_append(struct reader *r, struct rlog_message *m)
{
	const uint64_t term = m->append.term = get64(r);
	uint64_t last_term;
	unsigned count;

	m->append.prev_index = get64(r);
	last_term = m->append.prev_term = get64(r);
	m->append.leader_commit = get64(r);
	count = get32(r);
	get32(r);
	if (r->short_of_bytes || count > RLOG_APPEND_MAX || r->left < (size_t)count * 16)
		return -EPROTO;
	if (term == 0 || last_term > term || (m->append.prev_index == 0) != (last_term == 0) ||
	    m->append.prev_index > UINT64_MAX - RLOG_APPEND_MAX)
		return -EPROTO;
	if (count == 0)
		return 0;

	struct reader payload = {.at = r->at + (size_t)count * 16,
				 .left = r->left - (size_t)count * 16};

	m->append.records = calloc(count, sizeof *m->append.records);
	if (m->append.records == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < count; i++) {
		struct rlog_record *rec = &m->append.records[i];
		uint32_t bytes, type;

		rec->index = m->append.prev_index + 1 + i;
		rec->term = get64(r);
		bytes = get32(r);
		type = get32(r);
		if (rec->term < last_term || rec->term == 0 || rec->term > term ||
		    type < RAFT_COMMAND || type > RAFT_CHANGE || bytes > payload.left)
			return -EPROTO;
		last_term = rec->term;
		rec->type = (uint8_t)type;
		rec->buf = rlog_buf_new(bytes);
		if (rec->buf == NULL)
			return -ENOMEM;
		m->append.count = i + 1;
		take(&payload, rec->buf->data, bytes);
		if (type == RAFT_CHANGE && rlog_configuration_check(rec->buf->data, bytes) != 0)
			return -EPROTO;
	}
	*r = payload;
	return 0;
}

static int read_body(struct reader *r, struct rlog_message *m)
{
	switch (m->type) {
	case RLOG_MSG_HELLO:
	case RLOG_MSG_STREAM:
		m->hello.cluster_id = get64(r);
		m->hello.from = get64(r);
		m->hello.to = get64(r);
		get_address(r, m->hello.address);
		return m->hello.from == 0 || m->hello.address[0] == 0 ? -EPROTO : 0;
	case RLOG_MSG_WELCOME:
		m->welcome.cluster_id = get64(r);
		m->welcome.from = get64(r);
		m->welcome.answer = get32(r);
		return 0;
	case RLOG_MSG_JOIN:
		m->join.cluster_id = get64(r);
		m->join.id = get64(r);
		get_address(r, m->join.address);
		return m->join.id == 0 || m->join.address[0] == 0 ? -EPROTO : 0;
	case RLOG_MSG_JOINED:
		m->joined.cluster_id = get64(r);
		m->joined.answer = get32(r);
		get_address(r, m->joined.address);
		return 0;
	case RLOG_MSG_APPEND:
		return read_append(r, m);
	case RLOG_MSG_APPEND_RESULT:
		m->append_result.term = get64(r);
		m->append_result.rejected = get64(r);
		m->append_result.last_log_index = get64(r);
		m->append_result.features = get16(r);
		m->append_result.capacity = get16(r);
		m->append_result.version = (unsigned char)get32(r);
		return m->append_result.term == 0 ? -EPROTO : 0;
	case RLOG_MSG_VOTE:
		m->vote.term = get64(r);
		m->vote.candidate_id = get64(r);
		m->vote.last_log_index = get64(r);
		m->vote.last_log_term = get64(r);
		m->vote.disrupt_leader = get8(r) != 0;
		m->vote.pre_vote = get8(r) != 0;
		get16(r);
		m->vote.version = (unsigned char)get32(r);
		return m->vote.term == 0 || m->vote.candidate_id == 0 ? -EPROTO : 0;
	case RLOG_MSG_VOTE_RESULT:
		m->vote_result.term = get64(r);
		m->vote_result.vote_granted = get8(r) != 0;
		m->vote_result.pre_vote = get8(r) != 0;
		m->vote_result.features = get16(r);
		m->vote_result.capacity = get16(r);
		m->vote_result.version = (unsigned char)get16(r);
		return m->vote_result.term == 0 ? -EPROTO : 0;
	case RLOG_MSG_TIMEOUT_NOW:
		m->timeout_now.term = get64(r);
		m->timeout_now.last_log_index = get64(r);
		m->timeout_now.last_log_term = get64(r);
		m->timeout_now.version = (unsigned char)get32(r);
		return m->timeout_now.term == 0 ? -EPROTO : 0;
	case RLOG_MSG_NEEDS_STATE:
		m->needs_state.term = get64(r);
		m->needs_state.index = get64(r);
		m->needs_state.index_term = get64(r);
		return m->needs_state.term == 0 || m->needs_state.index == 0 ||
				       m->needs_state.index_term == 0
			       ? -EPROTO
			       : 0;
	}
	return -EPROTO;
}

int rlog_message_read(const struct rlog_frame_header *h, const uint8_t *body,
		      struct rlog_message *out)
{
	struct reader r = {.at = body, .left = h->body_bytes};
	int rv;

	memset(out, 0, sizeof *out);
	if (XXH3_64bits(body, h->body_bytes) != h->body_hash)
		return -EBADMSG;
	out->type = h->type;
	out->reads = h->reads;
	out->needs = h->needs;
	rv = read_body(&r, out);
	if (rv == 0 && (r.short_of_bytes || r.left != 0))
		rv = -EPROTO;
	if (rv != 0)
		rlog_message_clear(out);
	return rv;
}

void rlog_message_clear(struct rlog_message *m)
{
	if (m->type != RLOG_MSG_APPEND)
		return;
	for (unsigned i = 0; i < m->append.count; i++)
		rlog_buf_unref(m->append.records[i].buf);
	free(m->append.records);
	m->append.records = NULL;
	m->append.count = 0;
}
