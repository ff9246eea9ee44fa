/* The wire codec: what goes in comes out; what is cut, damaged or nonsense is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>
#include "base/configuration.h"
#include "wire/message.h"

struct bytes {
	size_t len;
	uint8_t *at;
};

static struct bytes encode(const struct rlog_message *m)
{
	struct rlog_frame *f = rlog_frame_new(m);
	struct bytes b = {0};

	assert_non_null(f);
	b.at = malloc(f->bytes);
	for (unsigned i = 0; i < f->iov_count; i++) {
		memcpy(b.at + b.len, f->iov[i].iov_base, f->iov[i].iov_len);
		b.len += f->iov[i].iov_len;
	}
	assert_int_equal(b.len, f->bytes);
	rlog_frame_free(f);
	return b;
}

/* The body in memory of exactly its size, so that a sanitizer sees every byte read too far. */
static int decode(const uint8_t *bytes, size_t len, struct rlog_message *m)
{
	struct rlog_frame_header h;
	uint8_t *body;
	int rv;

	if (len < RLOG_FRAME_HEADER)
		return -EMSGSIZE;
	rv = rlog_frame_header_read(bytes, &h);
	if (rv != 0)
		return rv;
	if (len != RLOG_FRAME_HEADER + (size_t)h.body_bytes)
		return -EMSGSIZE;
	body = malloc(h.body_bytes + (h.body_bytes == 0));
	memcpy(body, bytes + RLOG_FRAME_HEADER, h.body_bytes);
	rv = rlog_message_read(&h, body, m);
	free(body);
	return rv;
}

/* Make header and checksums fit a body that was changed or cut: what a hostile peer would send. */
static void seal(struct bytes *b)
{
	uint32_t body_bytes = (uint32_t)(b->len - RLOG_FRAME_HEADER);
	uint64_t hash = XXH3_64bits(b->at + RLOG_FRAME_HEADER, body_bytes);

	memcpy(b->at + 8, &body_bytes, sizeof body_bytes);
	memcpy(b->at + 16, &hash, sizeof hash);
	hash = XXH3_64bits(b->at, 24);
	memcpy(b->at + 24, &hash, sizeof hash);
}

static struct rlog_buf *buf_of(const void *bytes, size_t len)
{
	struct rlog_buf *buf = rlog_buf_new(len);

	memcpy(buf->data, bytes, len);
	return buf;
}

static struct rlog_buf *configuration(void)
{
	struct raft_configuration conf;
	struct raft_buffer encoded;
	struct rlog_buf *buf;

	raft_configuration_init(&conf);
	assert_int_equal(raft_configuration_add(&conf, 1, "127.0.0.1:1", RAFT_VOTER), 0);
	assert_int_equal(raft_configuration_add(&conf, 2, "[::1]:12345", RAFT_STANDBY), 0);
	assert_int_equal(raft_configuration_encode(&conf, &encoded), 0);
	buf = buf_of(encoded.base, encoded.len);
	raft_free(encoded.base);
	raft_configuration_close(&conf);
	return buf;
}

static void make_append(struct rlog_message *m)
{
	memset(m, 0, sizeof *m);
	m->type = RLOG_MSG_APPEND;
	m->reads = m->needs = 1;
	m->append.term = 9;
	m->append.prev_index = 100;
	m->append.prev_term = 7;
	m->append.leader_commit = 99;
	m->append.count = 4;
	m->append.records = calloc(4, sizeof *m->append.records);
	m->append.records[0] = (struct rlog_record){101, 7, RAFT_COMMAND, buf_of("hello", 5)};
	m->append.records[1] = (struct rlog_record){102, 8, RAFT_CHANGE, configuration()};
	m->append.records[2] = (struct rlog_record){103, 9, RAFT_BARRIER, buf_of("", 0)};
	m->append.records[3] = (struct rlog_record){104, 9, RAFT_COMMAND, rlog_buf_new(100000)};
	memset(m->append.records[3].buf->data, 'z', 100000);
}

static void make(struct rlog_message *m, enum rlog_message_type type)
{
	memset(m, 0, sizeof *m);
	m->type = type;
	m->reads = m->needs = 1;
	switch (type) {
	case RLOG_MSG_HELLO:
	case RLOG_MSG_STREAM:
		m->hello.cluster_id = 1;
		m->hello.from = 2;
		m->hello.to = 3;
		strcpy(m->hello.address, "host.example:4711");
		break;
	case RLOG_MSG_WELCOME:
		m->welcome.cluster_id = 1;
		m->welcome.from = 2;
		m->welcome.answer = RLOG_ANSWER_OTHER_NODE;
		break;
	case RLOG_MSG_APPEND:
		make_append(m);
		break;
	case RLOG_MSG_APPEND_RESULT:
		m->append_result = (struct raft_append_entries_result){.version = 2,
								       .term = 5,
								       .rejected = 6,
								       .last_log_index = 7,
								       .features = 1};
		break;
	case RLOG_MSG_VOTE:
		m->vote = (struct raft_request_vote){.version = 2,
						     .term = 5,
						     .candidate_id = 6,
						     .last_log_index = 7,
						     .last_log_term = 4,
						     .disrupt_leader = true};
		break;
	case RLOG_MSG_VOTE_RESULT:
		m->vote_result = (struct raft_request_vote_result){.version = 2,
								   .term = 5,
								   .vote_granted = true,
								   .pre_vote = true,
								   .features = 1};
		break;
	case RLOG_MSG_TIMEOUT_NOW:
		m->timeout_now = (struct raft_timeout_now){.term = 5,
							   .last_log_index = 6,
							   .last_log_term = 4};
		break;
	case RLOG_MSG_NEEDS_STATE:
		m->needs_state.term = 5;
		m->needs_state.index = 100;
		m->needs_state.index_term = 4;
		break;
	case RLOG_MSG_JOIN:
		m->join.id = 8;
		strcpy(m->join.address, "10.0.0.1:1");
		break;
	case RLOG_MSG_JOINED:
		m->joined.cluster_id = 77;
		m->joined.answer = RLOG_ANSWER_LEADER;
		strcpy(m->joined.address, "10.0.0.2:1");
		break;
	}
}

static void every_message_round_trip_same(void **state)
{
	(void)state;
	for (int type = RLOG_MSG_HELLO; type <= RLOG_MSG_STREAM; type++) {
		struct rlog_message m, back;
		struct bytes b, again;

		make(&m, (enum rlog_message_type)type);
		b = encode(&m);
		assert_int_equal(decode(b.at, b.len, &back), 0);
		assert_int_equal(back.type, type);
		again = encode(&back);
		assert_int_equal(again.len, b.len);
		assert_memory_equal(again.at, b.at, b.len);
		free(b.at);
		free(again.at);
		rlog_message_clear(&m);
		rlog_message_clear(&back);
	}
}

static void append_round_trip_fields_same(void **state)
{
	struct rlog_message m, back;
	struct bytes b;

	(void)state;
	make_append(&m);
	b = encode(&m);
	assert_int_equal(decode(b.at, b.len, &back), 0);
	assert_int_equal(back.append.term, 9);
	assert_int_equal(back.append.prev_index, 100);
	assert_int_equal(back.append.prev_term, 7);
	assert_int_equal(back.append.leader_commit, 99);
	assert_int_equal(back.append.count, 4);
	for (unsigned i = 0; i < 4; i++) {
		const struct rlog_record *x = &m.append.records[i], *y = &back.append.records[i];

		assert_int_equal(x->index, y->index);
		assert_int_equal(x->term, y->term);
		assert_int_equal(x->type, y->type);
		assert_int_equal(x->buf->len, y->buf->len);
		assert_memory_equal(x->buf->data, y->buf->data, x->buf->len);
	}
	free(b.at);
	rlog_message_clear(&m);
	rlog_message_clear(&back);
}

static void any_flipped_bit_refused(void **state)
{
	(void)state;
	for (int type = RLOG_MSG_HELLO; type <= RLOG_MSG_STREAM; type++) {
		struct rlog_message m, back;
		struct bytes b;

		make(&m, (enum rlog_message_type)type);
		b = encode(&m);
		for (size_t i = 0; i < b.len; i += i < 512 ? 1 : 4099) {
			for (unsigned bit = 0; bit < 8; bit++) {
				b.at[i] ^= (uint8_t)(1u << bit);
				assert_int_not_equal(decode(b.at, b.len, &back), 0);
				b.at[i] ^= (uint8_t)(1u << bit);
			}
		}
		free(b.at);
		rlog_message_clear(&m);
	}
}

static void cut_body_with_right_checksums_refused(void **state)
{
	(void)state;
	for (int type = RLOG_MSG_HELLO; type <= RLOG_MSG_STREAM; type++) {
		struct rlog_message m, back;
		struct bytes b;
		size_t whole;

		make(&m, (enum rlog_message_type)type);
		b = encode(&m);
		whole = b.len;
		for (size_t len = RLOG_FRAME_HEADER; len < whole; len += len < 400 ? 1 : 997) {
			b.len = len;
			seal(&b);
			assert_int_equal(decode(b.at, b.len, &back), -EPROTO);
		}
		b.at = realloc(b.at, whole + 1);
		b.at[whole] = 0;
		b.len = whole + 1;
		seal(&b);
		assert_int_equal(decode(b.at, b.len, &back), -EPROTO);
		free(b.at);
		rlog_message_clear(&m);
	}
}

/* Every byte of the fixed parts set to every value, with right checksums: refused or decoded, never
 * read too far (the sanitizers' business). */
static void hostile_bytes_with_right_checksums_do_no_harm(void **state)
{
	unsigned refused = 0;

	(void)state;
	for (int type = RLOG_MSG_HELLO; type <= RLOG_MSG_STREAM; type++) {
		struct rlog_message m, back;
		struct bytes b;
		size_t end;

		make(&m, (enum rlog_message_type)type);
		if (type == RLOG_MSG_APPEND) { /* small, to be quick */
			rlog_buf_unref(m.append.records[3].buf);
			m.append.count = 3;
		}
		b = encode(&m);
		end = b.len;
		for (size_t i = RLOG_FRAME_HEADER; i < end; i++) {
			uint8_t was = b.at[i];

			for (unsigned value = 0; value < 256; value++) {
				b.at[i] = (uint8_t)value;
				seal(&b);
				if (decode(b.at, b.len, &back) == 0)
					rlog_message_clear(&back);
				else
					refused++;
			}
			b.at[i] = was;
		}
		free(b.at);
		rlog_message_clear(&m);
	}
	assert_true(refused > 0);
}

static void append_terms_that_fall_refused(void **state)
{
	struct rlog_message m, back;
	struct bytes b;

	(void)state;
	make_append(&m);
	m.append.records[2].term = 6;
	b = encode(&m);
	assert_int_equal(decode(b.at, b.len, &back), -EPROTO);
	free(b.at);
	m.append.records[2].term = 10; /* above the leader's */
	b = encode(&m);
	assert_int_equal(decode(b.at, b.len, &back), -EPROTO);
	free(b.at);
	rlog_message_clear(&m);
}

static void header_of_another_version_refused(void **state)
{
	struct rlog_message m;
	struct rlog_frame_header h;
	struct bytes b;

	(void)state;
	make(&m, RLOG_MSG_JOIN);
	b = encode(&m);
	b.at[4] = RLOG_WIRE_VERSION + 1;
	seal(&b);
	assert_int_equal(rlog_frame_header_read(b.at, &h), -EPROTO);
	b.at[4] = RLOG_WIRE_VERSION;
	b.at[5] = RLOG_MSG_STREAM + 1;
	seal(&b);
	assert_int_equal(rlog_frame_header_read(b.at, &h), -EPROTO);
	memcpy(b.at, "HTTP", 4);
	assert_int_equal(rlog_frame_header_read(b.at, &h), -EPROTO);
	free(b.at);
}

static void levels_are_told_in_the_header(void **state)
{
	struct rlog_message m, got;
	struct bytes b;

	(void)state;
	make(&m, RLOG_MSG_VOTE);
	m.reads = 7;
	m.needs = 3;
	b = encode(&m);
	assert_int_equal(decode(b.at, b.len, &got), 0);
	assert_int_equal(got.reads, 7);
	assert_int_equal(got.needs, 3);
	free(b.at);
}

/* Nodes of before the levels write zeros there, and are written what they were always written. */
static void levels_not_told_are_the_first(void **state)
{
	static const uint8_t zeros[4];
	struct rlog_message m, got;
	struct bytes b;

	(void)state;
	make(&m, RLOG_MSG_VOTE);
	m.reads = 0;
	b = encode(&m);
	assert_memory_equal(b.at + 6, zeros, 2);
	assert_memory_equal(b.at + 12, zeros, 4);
	assert_int_equal(decode(b.at, b.len, &got), 0);
	assert_int_equal(got.reads, 1);
	assert_int_equal(got.needs, 1);
	free(b.at);
}

/* To builds that do not know the answer it is a frame of another version, about which they have a line. */
static void too_old_is_an_answer_in_a_frame_of_its_own_version(void **state)
{
	const enum rlog_message_type types[] = {RLOG_MSG_WELCOME, RLOG_MSG_JOINED};
	struct rlog_message m, got;
	struct rlog_frame_header h;
	struct bytes b;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		make(&m, types[i]);
		if (types[i] == RLOG_MSG_WELCOME)
			m.welcome.answer = RLOG_ANSWER_TOO_OLD;
		else
			m.joined.answer = RLOG_ANSWER_TOO_OLD;
		m.needs = 2;
		b = encode(&m);
		assert_int_equal(b.at[4], RLOG_WIRE_VERSION_TOO_OLD);
		assert_int_equal(decode(b.at, b.len, &got), 0);
		assert_int_equal(types[i] == RLOG_MSG_WELCOME ? got.welcome.answer
							      : got.joined.answer,
				 RLOG_ANSWER_TOO_OLD);
		assert_int_equal(got.needs, 2);
		b.at[5] = RLOG_MSG_JOIN;
		seal(&b);
		assert_int_equal(rlog_frame_header_read(b.at, &h), -EPROTO);
		free(b.at);
	}
}

static void configuration_cut_anywhere_refused(void **state)
{
	struct rlog_buf *buf = configuration();

	(void)state;
	assert_int_equal(rlog_configuration_check(buf->data, buf->len), 0);
	for (size_t len = 0; len + 8 < buf->len; len++) {
		uint8_t *cut = malloc(len + (len == 0));

		memcpy(cut, buf->data, len);
		assert_int_equal(rlog_configuration_check(cut, len), -EPROTO);
		free(cut);
	}
	rlog_buf_unref(buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_message_round_trip_same),
		cmocka_unit_test(append_round_trip_fields_same),
		cmocka_unit_test(any_flipped_bit_refused),
		cmocka_unit_test(cut_body_with_right_checksums_refused),
		cmocka_unit_test(hostile_bytes_with_right_checksums_do_no_harm),
		cmocka_unit_test(append_terms_that_fall_refused),
		cmocka_unit_test(header_of_another_version_refused),
		cmocka_unit_test(levels_are_told_in_the_header),
		cmocka_unit_test(levels_not_told_are_the_first),
		cmocka_unit_test(too_old_is_an_answer_in_a_frame_of_its_own_version),
		cmocka_unit_test(configuration_cut_anywhere_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
