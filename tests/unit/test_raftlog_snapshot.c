/* The snapshot's bytes and its file: what is refused, and that a crash leaves the old or the new one. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <raft.h>

#include "../rig/log_rig.h"

#define ASIDE RLOG_SNAPSHOT_NAME ".tmp"

/* ---- helpers ------------------------------------------------------------------------------ */

static struct rlog_buf *image_of(uint64_t index, size_t payload_len)
{
	struct rlog_snapshot s = {.index = index, .term = 5, .taken_term = 6, .conf_index = 2};
	struct rlog_buf *conf = voters(NODE, NODE), *image;
	uint8_t *payload = malloc(payload_len + 1);

	assert_non_null(payload);
	memset(payload, (int)index, payload_len);
	image = snapshot_image(s, conf, payload, payload_len);
	free(payload);
	rlog_buf_unref(conf);
	return image;
}

static void store(struct memdisk *m, uint64_t index, size_t payload_len)
{
	struct rlog_buf *image = image_of(index, payload_len);

	assert_int_equal(rlog_snapshot_store(memdisk_disk(m), image), 0);
	rlog_buf_unref(image);
}

/* The index of the snapshot on disk, whose payload must be whole; 0: there is none. */
static uint64_t load(struct memdisk *m, size_t payload_len)
{
	struct rlog_snapshot s;
	char errmsg[RLOG_ERRMSG_SIZE] = "";
	uint64_t index;

	if (rlog_snapshot_load(memdisk_disk(m), CLUSTER, &s, errmsg) != 0)
		fail_msg("%s", errmsg);
	index = s.index;
	if (s.image != NULL) {
		assert_int_equal(s.term, 5);
		assert_int_equal(s.conf_index, 2);
		assert_int_equal(s.payload_len, payload_len);
		for (size_t i = 0; i < payload_len; i++)
			assert_int_equal(s.payload[i], (uint8_t)index);
	}
	rlog_snapshot_clear(&s);
	return index;
}

/* ---- bytes -------------------------------------------------------------------------------- */

static void encoded_decodes_to_the_same(void **state)
{
	static const size_t sizes[] = {0, 1, 100, 5000};
	struct rlog_buf *conf = voters(NODE, NODE);

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct rlog_buf *image = image_of(9, sizes[i]);
		struct rlog_snapshot s;

		assert_int_equal(rlog_snapshot_decode(image, CLUSTER, &s), 0);
		assert_int_equal(s.index, 9);
		assert_int_equal(s.term, 5);
		assert_int_equal(s.taken_term, 6);
		assert_int_equal(s.conf_index, 2);
		assert_int_equal(s.conf_len, conf->len);
		assert_memory_equal(s.conf, conf->data, conf->len);
		assert_int_equal(s.payload_len, sizes[i]);
		assert_int_equal(image->refs, 2);
		rlog_snapshot_clear(&s);
		assert_null(s.image);
		assert_int_equal(image->refs, 1);
		rlog_buf_unref(image);
	}
	rlog_buf_unref(conf);
}

static void every_flipped_bit_is_refused(void **state)
{
	struct rlog_buf *image = image_of(9, 40);
	struct rlog_snapshot s;

	(void)state;
	for (size_t bit = 0; bit < 8 * image->len; bit++) {
		image->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(rlog_snapshot_decode(image, CLUSTER, &s), -EBADMSG);
		assert_null(s.image);
		image->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	rlog_buf_unref(image);
}

static void every_shorter_or_longer_image_is_refused(void **state)
{
	struct rlog_buf *image = image_of(9, 40);
	struct rlog_snapshot s;

	(void)state;
	for (size_t len = 0; len < image->len + 20; len++) {
		struct rlog_buf *part = rlog_buf_new(len);

		assert_non_null(part);
		memset(part->data, 0, len);
		memcpy(part->data, image->data, len < image->len ? len : image->len);
		assert_int_equal(rlog_snapshot_decode(part, CLUSTER, &s),
				 len == image->len ? 0 : -EBADMSG);
		rlog_snapshot_clear(&s);
		rlog_buf_unref(part);
	}
	rlog_buf_unref(image);
}

static void what_cannot_be_is_refused(void **state)
{
	struct rlog_buf *conf = voters(NODE, NODE);
	const struct rlog_snapshot cases[] = {
		{0, 5, 5, 0, conf->data, NULL, conf->len, 0, NULL},
		{9, 0, 5, 2, conf->data, NULL, conf->len, 0, NULL},
		{9, 5, 4, 2, conf->data, NULL, conf->len, 0, NULL},
		{9, 5, 5, 0, conf->data, NULL, conf->len, 0, NULL},
		{9, 5, 5, 10, conf->data, NULL, conf->len, 0, NULL},
		{9, 5, 5, 2, conf->data, NULL, conf->len / 2, 0, NULL},
		{9, 5, 5, 2, conf->data, NULL, 0, 0, NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct rlog_buf *image = rlog_snapshot_encode(CLUSTER, &cases[i]);
		struct rlog_snapshot s;

		assert_non_null(image);
		assert_int_equal(rlog_snapshot_decode(image, CLUSTER, &s), -EBADMSG);
		rlog_buf_unref(image);
	}
	rlog_buf_unref(conf);
}

static void image_of_another_cluster_is_refused(void **state)
{
	struct rlog_buf *image = image_of(9, 40), *payload = NULL;
	uint64_t index, term;
	struct rlog_snapshot s;

	(void)state;
	assert_int_equal(rlog_snapshot_decode(image, CLUSTER + 1, &s), -EXDEV);
	assert_int_equal(rlog_image_read(image, CLUSTER + 1, &index, &term, &payload), -EXDEV);
	assert_int_equal(rlog_image_read(image, CLUSTER, &index, &term, &payload), 0);
	assert_int_equal(index, 9);
	assert_int_equal(term, 5);
	assert_int_equal(payload->len, 40);
	assert_int_equal(payload->data[39], 9);
	rlog_buf_unref(payload);
	rlog_buf_unref(image);
}

/* ---- the file ----------------------------------------------------------------------------- */

static void stored_is_loaded_in_place_of_the_older(void **state)
{
	struct memdisk *m = memdisk_new(1);

	(void)state;
	assert_int_equal(load(m, 0), 0);
	store(m, 9, 10000);
	memdisk_crash(m);
	assert_int_equal(load(m, 10000), 9);
	store(m, 12, 7);
	memdisk_crash(m);
	assert_int_equal(load(m, 7), 12);
	store(m, 12, 3);
	memdisk_crash(m);
	assert_int_equal(load(m, 3), 12);
	assert_int_equal(memdisk_file_size(m, ASIDE), -1);
	memdisk_free(m);
}

static void crash_at_each_call_leaves_the_old_or_the_new(void **state)
{
	(void)state;
	for (unsigned had = 0; had < 2; had++) {
		unsigned old_count = 0, new_count = 0, call = 1, off = 1;

		for (; off > 0; call++) {
			off = 0;
			for (uint64_t seed = 1; seed <= 40; seed++) {
				struct memdisk *m = memdisk_new(seed);
				struct rlog_buf *image = image_of(12, 9000);
				uint64_t there;
				int rv;

				if (had)
					store(m, 9, 9000);
				memdisk_power_fail_at(m, call);
				rv = rlog_snapshot_store(memdisk_disk(m), image);
				off += memdisk_is_off(m);
				memdisk_crash(m);
				there = load(m, 9000);
				assert_true(there == 12 || there == (had ? 9 : 0));
				if (rv == 0)
					assert_int_equal(there, 12);
				old_count += there != 12;
				new_count += there == 12;
				/* What the crash left does not hinder the next one. */
				store(m, 15, 9000);
				memdisk_crash(m);
				assert_int_equal(load(m, 9000), 15);
				rlog_buf_unref(image);
				memdisk_free(m);
			}
		}
		assert_true(call > 4 && old_count > 0 && new_count > 40);
	}
}

static void error_at_each_call_leaves_the_old_or_the_new(void **state)
{
	static const int errors[] = {-EIO, -ENOSPC};
	(void)state;
	for (unsigned call = 1; call <= 4; call++) {
		for (unsigned i = 0; i < 2; i++) {
			struct memdisk *m = memdisk_new(call);
			struct rlog_buf *image = image_of(12, 100);
			uint64_t there;

			store(m, 9, 100);
			memdisk_fail_at(m, call, errors[i]);
			assert_int_equal(rlog_snapshot_store(memdisk_disk(m), image), errors[i]);
			there = load(m, 100);
			assert_int_equal(there, call < 4 ? 9 : 12);
			assert_int_equal(memdisk_file_size(m, ASIDE), -1);
			store(m, 13, 100);
			assert_int_equal(load(m, 100), 13);
			rlog_buf_unref(image);
			memdisk_free(m);
		}
	}
}

static void disk_full_leaves_the_old_and_nothing_aside(void **state)
{
	struct memdisk *m = memdisk_new(1);
	struct rlog_buf *image = image_of(12, 100000);

	(void)state;
	store(m, 9, 100);
	memdisk_set_capacity(m, 50000);
	assert_int_equal(rlog_snapshot_store(memdisk_disk(m), image), -ENOSPC);
	assert_int_equal(load(m, 100), 9);
	assert_int_equal(memdisk_file_size(m, ASIDE), -1);
	memdisk_set_capacity(m, 0);
	assert_int_equal(rlog_snapshot_store(memdisk_disk(m), image), 0);
	assert_int_equal(load(m, 100000), 12);
	rlog_buf_unref(image);
	memdisk_free(m);
}

static void damaged_file_is_named(void **state)
{
	struct memdisk *m = memdisk_new(1);
	struct rlog_buf *image = image_of(9, 3);
	char errmsg[RLOG_ERRMSG_SIZE];
	struct rlog_snapshot s;

	(void)state;
	store(m, 9, 3);
	for (uint64_t at = 0; at < image->len; at++) {
		memdisk_file_flip(m, RLOG_SNAPSHOT_NAME, at, at % 8);
		errmsg[0] = 0;
		assert_int_equal(rlog_snapshot_load(memdisk_disk(m), CLUSTER, &s, errmsg),
				 -EBADMSG);
		assert_non_null(strstr(errmsg, "file=snapshot "));
		assert_non_null(strstr(errmsg, "join again"));
		memdisk_file_flip(m, RLOG_SNAPSHOT_NAME, at, at % 8);
	}
	assert_int_equal(rlog_snapshot_load(memdisk_disk(m), CLUSTER + 1, &s, errmsg), -EXDEV);
	assert_int_equal(load(m, 3), 9);
	memdisk_file_cut(m, RLOG_SNAPSHOT_NAME, 0);
	assert_int_equal(rlog_snapshot_load(memdisk_disk(m), CLUSTER, &s, errmsg), -EBADMSG);
	rlog_buf_unref(image);
	memdisk_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(encoded_decodes_to_the_same),
		cmocka_unit_test(every_flipped_bit_is_refused),
		cmocka_unit_test(every_shorter_or_longer_image_is_refused),
		cmocka_unit_test(what_cannot_be_is_refused),
		cmocka_unit_test(image_of_another_cluster_is_refused),
		cmocka_unit_test(stored_is_loaded_in_place_of_the_older),
		cmocka_unit_test(crash_at_each_call_leaves_the_old_or_the_new),
		cmocka_unit_test(error_at_each_call_leaves_the_old_or_the_new),
		cmocka_unit_test(disk_full_leaves_the_old_and_nothing_aside),
		cmocka_unit_test(damaged_file_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
