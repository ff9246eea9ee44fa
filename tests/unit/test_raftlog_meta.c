/* Term and vote: the newest acknowledged value is there after a crash, and damage of both slots is
 * not taken for one. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../sim/memdisk.h"
#include "log/meta.h"

static const struct rlog_meta first = {.cluster_id = 1, .node_id = 2, .epoch = 3, .term = 4};

static struct memdisk *disk_with_meta(uint64_t seed)
{
	struct memdisk *m = memdisk_new(seed);
	struct rlog_disk *d = memdisk_disk(m);

	assert_int_equal(rlog_meta_create(d, &first), 0);
	assert_int_equal(d->sync_dir(d), 0);
	return m;
}

static int reopen(struct memdisk *m, struct rlog_meta *got, int *bad)
{
	char errmsg[RLOG_ERRMSG_SIZE];

	memdisk_crash(m);
	return rlog_meta_open(memdisk_disk(m), got, bad, errmsg);
}

static void meta_created_is_read_back(void **state)
{
	struct memdisk *m = disk_with_meta(1);
	struct rlog_meta got;
	int bad;

	(void)state;
	assert_true(reopen(m, &got, &bad) >= 0);
	assert_int_equal(bad, 0);
	assert_int_equal(got.cluster_id, 1);
	assert_int_equal(got.node_id, 2);
	assert_int_equal(got.epoch, 3);
	assert_int_equal(got.term, 4);
	assert_int_equal(got.voted_for, 0);
	memdisk_free(m);
}

static void meta_stored_wins_after_crash(void **state)
{
	struct memdisk *m = disk_with_meta(1);
	struct rlog_meta got;
	int bad, handle = reopen(m, &got, &bad);

	(void)state;
	for (uint64_t i = 0; i < 9; i++) {
		struct rlog_meta next = got;

		next.term = 10 + i;
		next.voted_for = 20 + i;
		next.durable_batch = 30 + i;
		assert_int_equal(rlog_meta_store(memdisk_disk(m), handle, &next), 0);
		assert_int_equal(next.counter, got.counter + 1);
		handle = reopen(m, &got, &bad);
		assert_true(handle >= 0);
		assert_int_equal(bad, 0);
		assert_int_equal(got.term, 10 + i);
		assert_int_equal(got.voted_for, 20 + i);
		assert_int_equal(got.durable_batch, 30 + i);
	}
	memdisk_free(m);
}

static void meta_torn_keeps_old_or_new_and_the_next_update_heals(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 200; seed++) {
		struct memdisk *m = disk_with_meta(seed);
		struct rlog_meta got, next;
		int bad, handle = reopen(m, &got, &bad);

		for (uint64_t round = 0; round < 3; round++) {
			uint64_t before = got.term;

			next = got;
			next.term = before + 1;
			memdisk_power_fail_at(m, 1);
			assert_int_equal(rlog_meta_store(memdisk_disk(m), handle, &next), -EIO);
			assert_int_equal(next.counter, got.counter);
			handle = reopen(m, &got, &bad);
			assert_true(handle >= 0);
			assert_true(got.term == before || got.term == before + 1);
			assert_true(!bad || got.term == before);
			next = got;
			next.term = before + 2;
			assert_int_equal(rlog_meta_store(memdisk_disk(m), handle, &next), 0);
			handle = reopen(m, &got, &bad);
			assert_int_equal(bad, 0);
			assert_int_equal(got.term, before + 2);
		}
		memdisk_free(m);
	}
}

static void meta_flipped_bit_is_noticed(void **state)
{
	(void)state;
	for (uint64_t at = 0; at < 2 * RLOG_BLOCK; at++) {
		struct memdisk *m = disk_with_meta(1);
		struct rlog_meta got;
		char errmsg[RLOG_ERRMSG_SIZE];
		int bad;

		memdisk_file_flip(m, RLOG_META_NAME, at, at % 8);
		assert_true(reopen(m, &got, &bad) >= 0);
		assert_int_equal(bad, 1);
		assert_int_equal(got.term, 4);
		memdisk_file_flip(m, RLOG_META_NAME, (at + RLOG_BLOCK) % (2 * RLOG_BLOCK), 3);
		assert_int_equal(rlog_meta_open(memdisk_disk(m), &got, &bad, errmsg), -EBADMSG);
		assert_non_null(strstr(errmsg, "file=meta"));
		assert_non_null(strstr(errmsg, "join again"));
		memdisk_free(m);
	}
}

static void meta_slots_swapped_are_refused(void **state)
{
	struct memdisk *m = disk_with_meta(1);
	struct rlog_meta got;
	int bad;

	(void)state;
	for (uint64_t at = 0; at < RLOG_BLOCK; at++) {
		uint8_t a = (uint8_t)memdisk_file_byte(m, RLOG_META_NAME, at);
		uint8_t b = (uint8_t)memdisk_file_byte(m, RLOG_META_NAME, at + RLOG_BLOCK);

		for (unsigned bit = 0; bit < 8; bit++)
			if ((a ^ b) >> bit & 1) {
				memdisk_file_flip(m, RLOG_META_NAME, at, bit);
				memdisk_file_flip(m, RLOG_META_NAME, at + RLOG_BLOCK, bit);
			}
	}
	assert_int_equal(reopen(m, &got, &bad), -EBADMSG);
	memdisk_free(m);
}

static void meta_missing_or_cut_is_an_error(void **state)
{
	struct memdisk *m = disk_with_meta(1);
	struct rlog_meta got;
	int bad;

	(void)state;
	memdisk_file_cut(m, RLOG_META_NAME, RLOG_BLOCK);
	assert_true(reopen(m, &got, &bad) >= 0);
	assert_int_equal(bad, 1);
	memdisk_file_cut(m, RLOG_META_NAME, 50);
	assert_int_equal(reopen(m, &got, &bad), -EBADMSG);
	memdisk_file_remove(m, RLOG_META_NAME);
	assert_int_equal(reopen(m, &got, &bad), -ENOENT);
	memdisk_free(m);
}

static uint32_t word(struct memdisk *m, uint64_t at)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < 4; i++)
		v |= (uint32_t)memdisk_file_byte(m, RLOG_META_NAME, at + i) << 8 * i;
	return v;
}

/* Builds that know no levels read version 1 only, and refuse a file of which a slot is of another. */
static void meta_of_the_first_level_is_what_it_always_was(void **state)
{
	struct memdisk *m = disk_with_meta(1);
	struct rlog_meta got;
	char errmsg[RLOG_ERRMSG_SIZE];
	int bad, handle = reopen(m, &got, &bad);

	(void)state;
	for (unsigned level = 0; level < 2; level++) {
		assert_int_equal(got.format, 1);
		got.format = level;
		assert_int_equal(rlog_meta_store(memdisk_disk(m), handle, &got), 0);
		handle = reopen(m, &got, &bad);
		for (uint64_t slot = 0; slot < 2 * RLOG_BLOCK; slot += RLOG_BLOCK) {
			assert_int_equal(word(m, slot + 16), 1);
			assert_int_equal(word(m, slot + 20), 0);
		}
	}
	assert_int_equal(rlog_meta_readable(&got, 1, errmsg), 0);
	memdisk_free(m);
}

static void meta_of_a_level_is_read_by_who_knows_it(void **state)
{
	struct memdisk *m = disk_with_meta(1);
	struct rlog_meta got;
	char errmsg[RLOG_ERRMSG_SIZE];
	int bad, handle = reopen(m, &got, &bad);

	(void)state;
	got.format = 3;
	assert_int_equal(rlog_meta_store(memdisk_disk(m), handle, &got), 0);
	assert_true(reopen(m, &got, &bad) >= 0);
	assert_int_equal(bad, 0);
	assert_int_equal(got.format, 3);
	assert_int_equal(got.term, 4);
	assert_int_equal(word(m, got.counter % 2 * RLOG_BLOCK + 16), 2);
	assert_int_equal(rlog_meta_readable(&got, 3, errmsg), 0);
	assert_int_equal(rlog_meta_readable(&got, 2, errmsg), -ENOTSUP);
	assert_non_null(strstr(errmsg, "upgrade this node"));
	memdisk_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(meta_created_is_read_back),
		cmocka_unit_test(meta_stored_wins_after_crash),
		cmocka_unit_test(meta_torn_keeps_old_or_new_and_the_next_update_heals),
		cmocka_unit_test(meta_flipped_bit_is_noticed),
		cmocka_unit_test(meta_slots_swapped_are_refused),
		cmocka_unit_test(meta_missing_or_cut_is_an_error),
		cmocka_unit_test(meta_of_the_first_level_is_what_it_always_was),
		cmocka_unit_test(meta_of_a_level_is_read_by_who_knows_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
