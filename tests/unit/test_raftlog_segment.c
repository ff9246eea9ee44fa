/* Names, headers and records: what is written is read back, and nothing else passes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log/segment.h"

static const struct rlog_segment_header header = {
	.cluster_id = 0x1122334455667788,
	.node_id = 2,
	.epoch = 0x99aabbccddeeff00,
	.seq = 5,
	.bytes = 1 << 20,
	.first_index = 1000,
	.batch = 77,
	.chain = 0x0123456789abcdef,
};

static void name_parsed_only_in_its_exact_form(void **state)
{
	static const char *others[] = {"segment-1.log",
				       "segment-0000000000000012.log.bak",
				       "segment-00000000000000012.log",
				       "segment-000000000000001x.log",
				       "segment-               1.log",
				       "segment-+000000000000012.log",
				       "segment--000000000000012.log",
				       "spare-00000001.tmp",
				       "meta",
				       ""};
	char name[RLOG_SEGMENT_NAME_SIZE];
	uint64_t seq = 0;

	(void)state;
	rlog_segment_name(name, 12);
	assert_string_equal(name, "segment-0000000000000012.log");
	assert_true(rlog_segment_name_parse(name, &seq));
	assert_int_equal(seq, 12);
	rlog_segment_name(name, UINT64_C(9999999999999999));
	assert_true(rlog_segment_name_parse(name, &seq));
	assert_true(seq == UINT64_C(9999999999999999));
	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
		assert_false(rlog_segment_name_parse(others[i], &seq));
	assert_true(rlog_segment_name_is_spare("spare-00000001.tmp"));
	assert_false(rlog_segment_name_is_spare("spare-00000001.tmp2"));
	assert_false(rlog_segment_name_is_spare(".tmp"));
	assert_false(rlog_segment_name_is_spare("segment-0000000000000012.log"));
}

static void header_encoded_decodes_and_any_flipped_bit_does_not(void **state)
{
	uint8_t block[RLOG_BLOCK];
	struct rlog_segment_header h;

	(void)state;
	rlog_segment_header_encode(block, &header);
	/* The bytes themselves are the format: little-endian, at these offsets. */
	assert_memory_equal(block + 8, "dqfs-seg", 8);
	assert_int_equal(block[16], 1);
	assert_int_equal(block[24], 0x88);
	assert_int_equal(block[31], 0x11);
	assert_int_equal(block[48], 5);
	assert_int_equal(rlog_segment_header_decode(block, &h), 0);
	assert_memory_equal(&h, &header, sizeof(h));
	for (size_t bit = 0; bit < 8 * RLOG_BLOCK; bit++) {
		block[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(rlog_segment_header_decode(block, &h), -EBADMSG);
		block[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	memset(block, 0, sizeof(block));
	assert_int_equal(rlog_segment_header_decode(block, &h), -EBADMSG);
}

static void record_encoded_decodes_and_any_flipped_bit_does_not(void **state)
{
	static const size_t lens[] = {0, 1, 7, 8, 9, 64, 1000};

	(void)state;
	for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
		size_t len = lens[i], bytes = rlog_record_bytes(len);
		struct rlog_record_header in =
						  {
							  .type = 1,
							  .last = i % 2,
							  .epoch = header.epoch,
							  .index = 42,
							  .term = 7,
							  .batch = 9,
							  .len = (uint32_t)len,
							  .chain = 0xfeedface,
						  },
					  out;
		/* From the heap, so that reading too far is noticed. */
		uint8_t *at = malloc(bytes), *payload = malloc(len + 1);

		memset(payload, 0xa5, len + 1);
		memset(at, 0xff, bytes);
		rlog_record_encode(at, &in, payload);
		assert_true(rlog_record_decode(at, bytes, header.epoch, &out));
		assert_int_equal(out.type, in.type);
		assert_int_equal(out.last, in.last);
		assert_int_equal(out.index, 42);
		assert_int_equal(out.term, 7);
		assert_int_equal(out.batch, 9);
		assert_int_equal(out.len, len);
		assert_int_equal(out.chain, 0xfeedface);
		assert_true(out.checksum == in.checksum);
		assert_memory_equal(at + RLOG_RECORD_HEADER, payload, len);
		assert_false(rlog_record_decode(at, bytes - 1, header.epoch, &out));
		assert_false(rlog_record_decode(at, bytes, header.epoch + 1, &out));
		for (size_t bit = 0; bit < 8 * bytes; bit++) {
			at[bit / 8] ^= (uint8_t)(1 << bit % 8);
			assert_false(rlog_record_decode(at, bytes, header.epoch, &out));
			at[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
		free(payload);
		free(at);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(name_parsed_only_in_its_exact_form),
		cmocka_unit_test(header_encoded_decodes_and_any_flipped_bit_does_not),
		cmocka_unit_test(record_encoded_decodes_and_any_flipped_bit_does_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
