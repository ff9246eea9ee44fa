/* A log that lets go of its front, or begins anew behind a snapshot, on the lossy disk: nothing behind the
 * snapshot is ever lost, and whatever a crash leaves can be opened. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <raft.h>

#include "../rig/log_rig.h"
#include "log/compact.h"
#include "log/read.h"
#include "log/segment.h"

enum { LEN = 700, SEEDS = 40 };

/* ---- helpers ------------------------------------------------------------------------------ */

/* The payload of an entry follows from its index and term. */
static void fill(uint8_t *bytes, uint64_t index, uint64_t term)
{
	for (size_t i = 0; i < LEN; i++)
		bytes[i] = (uint8_t)((index * 2654435761u + term * 97 + i * 40503u) >> 7);
}

static void append(struct rlog_log *l, uint64_t term)
{
	struct rlog_record r = {
		.index = rlog_log_last(l) + 1,
		.term = term,
		.type = RAFT_COMMAND,
		.buf = rlog_buf_new(LEN),
	};

	assert_non_null(r.buf);
	fill(r.buf->data, r.index, term);
	assert_int_equal(rlog_log_append(l, &r, 1), 0);
	rlog_buf_unref(r.buf);
}

static void append_many(struct memdisk *m, struct rlog_log *l, uint64_t term, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		append(l, term);
	assert_int_equal(try_write_all(m, l), 0);
}

static void assert_entry(struct rlog_log *l, uint64_t index, uint64_t term)
{
	uint8_t expected[LEN];
	struct rlog_record r;

	fill(expected, index, term);
	assert_int_equal(rlog_log_read(l, index, &r), 0);
	assert_int_equal(r.index, index);
	assert_int_equal(r.term, term);
	assert_int_equal(r.buf->len, LEN);
	assert_memory_equal(r.buf->data, expected, LEN);
	rlog_buf_unref(r.buf);
}

/* [first, last] of the log is of `term`. */
static void assert_entries(struct rlog_log *l, uint64_t first, uint64_t last, uint64_t term)
{
	for (uint64_t i = first; i <= last; i++)
		assert_entry(l, i, term);
}

static int try_open(struct memdisk *m, struct rlog_log **l, char errmsg[RLOG_ERRMSG_SIZE])
{
	errmsg[0] = 0;
	return rlog_log_open(l, memdisk_disk(m), &options, errmsg);
}

/* A disk with `count` durable entries of term 1 in segments of 16. */
static struct memdisk *disk_with(uint64_t seed, unsigned count)
{
	struct memdisk *m = memdisk_new(seed);
	char errmsg[RLOG_ERRMSG_SIZE];
	struct rlog_log *l;

	assert_int_equal(rlog_log_create(memdisk_disk(m), &options, NULL, errmsg), 0);
	l = open_log(m);
	assert_int_equal(rlog_log_set_meta(l, 9, 0), 0);
	append_many(m, l, 1, count);
	rlog_log_close(l);
	return m;
}

static uint64_t snapshot_index(struct rlog_log *l)
{
	return rlog_log_snapshot(l) != NULL ? rlog_log_snapshot(l)->index : 0;
}

static bool has_segment(struct memdisk *m, uint64_t seq)
{
	char name[RLOG_SEGMENT_NAME_SIZE];

	rlog_segment_name(name, seq);
	return memdisk_file_size(m, name) >= 0;
}

/* ---- letting go of the front -------------------------------------------------------------- */

static void compaction_keeps_what_is_behind_the_snapshot(void **state)
{
	(void)state;
	for (uint64_t index = 1; index <= 100; index++) {
		struct memdisk *m = disk_with(index, 100);
		struct rlog_log *l = open_log(m);
		uint64_t first = (index / 16) * 16 + 1; /* that of the segment it needs */
		struct rlog_record r;

		if (first > 97)
			first = 97;
		assert_int_equal(take_snapshot(m, l, index, 1), 0);
		assert_int_equal(rlog_log_first(l), 1);
		rlog_log_compact(l, 0);
		for (int pass = 0; pass < 3; pass++) {
			assert_int_equal(snapshot_index(l), index);
			assert_int_equal(rlog_log_first(l), first);
			assert_int_equal(rlog_log_last(l), 100 + (unsigned)pass);
			assert_int_equal(rlog_log_read(l, first - 1, &r), -ENOENT);
			assert_entries(l, first, rlog_log_last(l), 1);
			assert_int_equal(rlog_log_bytes(l) / SMALL_SEGMENT, 7 - (first - 1) / 16);
			assert_int_equal(rlog_log_bytes_since(l),
					 (rlog_log_last(l) - index) * rlog_record_bytes(LEN));
			append_many(m, l, 1, 1);
			memdisk_disk(m)->sync_dir(memdisk_disk(m)); /* else some come back */
			l = crash(m, l);
		}
		rlog_log_close(l);
		memdisk_free(m);
	}
}

static void compaction_keeps_as_many_bytes_as_it_is_told(void **state)
{
	struct memdisk *m = disk_with(1, 100); /* 7 segments */
	struct rlog_log *l = open_log(m);

	(void)state;
	rlog_log_compact(l, 0); /* no snapshot */
	assert_int_equal(rlog_log_first(l), 1);
	assert_int_equal(take_snapshot(m, l, 70, 1), 0);
	rlog_log_compact(l, 7 * SMALL_SEGMENT);
	assert_int_equal(rlog_log_first(l), 1);
	rlog_log_compact(l, 6 * SMALL_SEGMENT);
	assert_int_equal(rlog_log_first(l), 17);
	rlog_log_compact(l, 5 * SMALL_SEGMENT + 1);
	assert_int_equal(rlog_log_first(l), 17);
	rlog_log_compact(l, 3 * SMALL_SEGMENT - 1);
	assert_int_equal(rlog_log_first(l), 65);
	l = crash(m, l);
	rlog_log_compact(l, 0);
	assert_int_equal(rlog_log_first(l), 65);
	assert_entries(l, 65, 100, 1);
	rlog_log_close(l);
	memdisk_free(m);
}

static void compaction_and_snapshot_cut_short_at_each_call_open_again(void **state)
{
	unsigned old_count = 0, new_count = 0, off = 1;

	(void)state;
	for (unsigned call = 1; off > 0; call++) {
		off = 0;
		for (uint64_t seed = 1; seed <= SEEDS; seed++) {
			struct memdisk *m = disk_with(seed, 100);
			struct rlog_log *l = open_log(m);

			assert_int_equal(take_snapshot(m, l, 20, 1), 0);
			rlog_log_compact(l, 0);
			memdisk_power_fail_at(m, call);
			if (take_snapshot(m, l, 90, 1) == 0)
				rlog_log_compact(l, 0);
			off += memdisk_is_off(m);
			l = crash(m, l);
			assert_true(snapshot_index(l) == 20 || snapshot_index(l) == 90);
			old_count += snapshot_index(l) == 20;
			new_count += snapshot_index(l) == 90;
			assert_true(rlog_log_first(l) <= snapshot_index(l) + 1);
			assert_true(rlog_log_first(l) <= 17 || snapshot_index(l) == 90);
			assert_int_equal(rlog_log_last(l), 100);
			assert_entries(l, rlog_log_first(l), 100, 1);
			append_many(m, l, 2, 20);
			assert_int_equal(take_snapshot(m, l, 110, 2), 0);
			rlog_log_compact(l, 0);
			l = crash(m, l);
			assert_int_equal(rlog_log_last(l), 120);
			assert_entries(l, rlog_log_first(l), 100, 1);
			assert_entries(l, 101, 120, 2);
			rlog_log_close(l);
			memdisk_free(m);
		}
	}
	assert_true(old_count > 0 && new_count > 0);
}

static void segment_left_in_front_is_part_of_the_log_again(void **state)
{
	struct memdisk *m = disk_with(1, 100);
	struct rlog_log *l = open_log(m);
	char name[RLOG_SEGMENT_NAME_SIZE];

	(void)state;
	rlog_segment_name(name, 2);
	memdisk_file_copy(m, name, "aside");
	assert_int_equal(take_snapshot(m, l, 40, 1), 0);
	rlog_log_compact(l, 0);
	assert_int_equal(rlog_log_first(l), 33);
	rlog_log_close(l);
	memdisk_file_copy(m, "aside", name);
	l = open_log(m);
	assert_int_equal(rlog_log_first(l), 17);
	assert_entries(l, 17, 100, 1);
	rlog_log_compact(l, 0);
	assert_int_equal(rlog_log_first(l), 33);
	assert_false(has_segment(m, 2));
	rlog_log_close(l);
	memdisk_free(m);
}

static void snapshot_without_its_log_is_damage(void **state)
{
	struct memdisk *m = disk_with(1, 100);
	struct rlog_log *l = open_log(m);
	char errmsg[RLOG_ERRMSG_SIZE], name[RLOG_SEGMENT_NAME_SIZE];

	(void)state;
	assert_int_equal(take_snapshot(m, l, 40, 1), 0);
	rlog_log_compact(l, 0);
	rlog_log_close(l);
	/* The segment that holds entry 41. */
	rlog_segment_name(name, 3);
	memdisk_file_remove(m, name);
	assert_int_equal(try_open(m, &l, errmsg), -EBADMSG);
	assert_non_null(strstr(errmsg, "file=snapshot "));
	assert_non_null(strstr(errmsg, "begins at 49, the snapshot ends at 40"));
	assert_non_null(strstr(errmsg, "join again"));
	memdisk_free(m);
}

static void segments_without_their_snapshot_are_damage(void **state)
{
	struct memdisk *m = disk_with(1, 100);
	struct rlog_log *l = open_log(m);
	char errmsg[RLOG_ERRMSG_SIZE];

	(void)state;
	assert_int_equal(take_snapshot(m, l, 40, 1), 0);
	rlog_log_compact(l, 0);
	rlog_log_close(l);
	memdisk_file_remove(m, RLOG_SNAPSHOT_NAME);
	assert_int_equal(try_open(m, &l, errmsg), -EBADMSG);
	assert_non_null(strstr(errmsg, "the segment is missing"));
	memdisk_free(m);
}

/* ---- truncations that reach in front of what is left -------------------------------------- */

static void truncation_below_the_first_segment_left_begins_the_log(void **state)
{
	struct memdisk *m = disk_with(1, 40); /* 16, 16, 8 */
	struct rlog_log *l = open_log(m);

	(void)state;
	/* From 8 on everything is replaced; the record of that lies in the third segment. */
	assert_int_equal(rlog_log_truncate(l, 8), 0);
	append_many(m, l, 2, 20);
	assert_int_equal(take_snapshot(m, l, 7, 1), 0);
	rlog_log_compact(l, 0);
	assert_false(has_segment(m, 2));
	for (int pass = 0; pass < 3; pass++) {
		assert_int_equal(rlog_log_first(l), 8);
		assert_int_equal(rlog_log_last(l), 27);
		assert_entries(l, 8, 27, 2);
		assert_int_equal(rlog_log_bytes_since(l), 20 * rlog_record_bytes(LEN));
		l = crash(m, l);
	}
	/* And again, in the same segments. */
	assert_int_equal(rlog_log_truncate(l, 8), 0);
	append_many(m, l, 3, 40);
	l = crash(m, l);
	assert_int_equal(rlog_log_first(l), 8);
	assert_entries(l, 8, 47, 3);
	assert_int_equal(take_snapshot(m, l, 47, 3), 0);
	rlog_log_compact(l, 0);
	l = crash(m, l);
	assert_int_equal(rlog_log_last(l), 47);
	append_many(m, l, 3, 1);
	assert_entry(l, 48, 3);
	rlog_log_close(l);
	memdisk_free(m);
}

static bool keep_none(void *arg, size_t sector)
{
	(void)arg, (void)sector;
	return false;
}

/* The log on disk still ends in 40 entries of term 1 when power fails, since the truncation that replaces
 * them from 8 on was staged only. */
static void compaction_before_a_truncation_is_durable_waits(void **state)
{
	(void)state;
	for (unsigned in_flight = 0; in_flight < 2; in_flight++) {
		struct memdisk *m = disk_with(1, 40);
		struct rlog_log *l = open_log(m);
		struct rlog_log_write w;

		assert_int_equal(rlog_log_truncate(l, 8), 0);
		append(l, 2);
		if (in_flight) {
			assert_int_equal(rlog_log_write_begin(l, &w), 1);
			memdisk_write_start(m, &w);
		}
		assert_int_equal(take_snapshot(m, l, 7, 1), 0);
		rlog_log_compact(l, 0);
		memdisk_disk(m)->sync_dir(memdisk_disk(m));
		memdisk_crash_keeping(m, keep_none, NULL);
		rlog_log_close(l);
		l = open_log(m);
		assert_int_equal(rlog_log_last(l), 40);
		assert_entries(l, 8, 40, 1);
		/* And once it is durable, the segments go. */
		assert_int_equal(rlog_log_truncate(l, 8), 0);
		append_many(m, l, 2, 1);
		rlog_log_compact(l, 0);
		assert_int_equal(rlog_log_first(l), 8);
		l = crash(m, l);
		assert_int_equal(rlog_log_last(l), 8);
		assert_entry(l, 8, 2);
		rlog_log_close(l);
		memdisk_free(m);
	}
}

/* ---- beginning anew ----------------------------------------------------------------------- */

static void replaced_log_begins_behind_the_snapshot(void **state)
{
	(void)state;
	for (unsigned had = 0; had <= 100; had += 20) {
		struct memdisk *m = disk_with(had + 1, had);
		struct rlog_log *l = open_log(m);
		struct rlog_record r;

		assert_int_equal(take_snapshot(m, l, 150, 2), 0);
		assert_int_equal(rlog_log_replace(l), 0);
		for (int pass = 0; pass < 2; pass++) {
			assert_int_equal(rlog_log_first(l), 151);
			assert_int_equal(rlog_log_last(l), 150);
			assert_int_equal(rlog_log_durable(l), 150);
			assert_int_equal(rlog_log_read(l, 150, &r), -ENOENT);
			assert_int_equal(rlog_log_bytes(l), SMALL_SEGMENT);
			assert_int_equal(rlog_log_bytes_since(l), 0);
			l = crash(m, l);
		}
		append_many(m, l, 3, 60);
		l = crash(m, l);
		assert_int_equal(rlog_log_first(l), 151);
		assert_int_equal(rlog_log_last(l), 210);
		assert_entries(l, 151, 210, 3);
		assert_int_equal(take_snapshot(m, l, 200, 3), 0);
		rlog_log_compact(l, 0);
		assert_int_equal(rlog_log_first(l), 199);
		l = crash(m, l);
		assert_entries(l, 199, 210, 3);
		rlog_log_close(l);
		memdisk_free(m);
	}
}

/* The snapshot is stored, the log is not replaced yet: power fails, and opening goes on with it. */
static void snapshot_that_the_log_does_not_reach_or_contradicts_replaces_it(void **state)
{
	static const struct {
		uint64_t index, term;
		bool replaces;
	} cases[] = {{150, 1, true}, {101, 1, true}, {100, 1, false}, {100, 2, true},
		     {40, 2, true},  {40, 1, false}, {1, 3, true}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct memdisk *m = disk_with(i + 1, 100);
		struct rlog_log *l = open_log(m);

		assert_int_equal(take_snapshot(m, l, cases[i].index, cases[i].term), 0);
		for (int pass = 0; pass < 2; pass++) {
			l = crash(m, l);
			assert_int_equal(snapshot_index(l), cases[i].index);
			assert_int_equal(rlog_log_first(l),
					 cases[i].replaces ? cases[i].index + 1 : 1);
			assert_int_equal(rlog_log_last(l),
					 cases[i].replaces ? cases[i].index : 100);
		}
		append_many(m, l, 4, 3);
		l = crash(m, l);
		assert_entries(l, rlog_log_last(l) - 2, rlog_log_last(l), 4);
		rlog_log_close(l);
		memdisk_free(m);
	}
}

/* What is staged, also a truncation, goes with the rest. */
static void replaced_log_forgets_what_is_staged(void **state)
{
	struct memdisk *m = disk_with(1, 100);
	struct rlog_log *l = open_log(m);

	(void)state;
	assert_int_equal(rlog_log_truncate(l, 50), 0);
	append(l, 2);
	append(l, 2);
	assert_int_equal(take_snapshot(m, l, 150, 2), 0);
	assert_int_equal(rlog_log_replace(l), 0);
	assert_int_equal(try_write_all(m, l), 0);
	append_many(m, l, 3, 2);
	assert_entries(l, 151, 152, 3);
	l = crash(m, l);
	assert_int_equal(rlog_log_first(l), 151);
	assert_int_equal(rlog_log_last(l), 152);
	assert_entries(l, 151, 152, 3);
	rlog_log_close(l);
	memdisk_free(m);
}

static void replacing_cut_short_at_each_call_opens_as_the_old_or_the_new(void **state)
{
	unsigned old_count = 0, new_count = 0, off = 1;

	(void)state;
	for (unsigned call = 1; off > 0; call++) {
		off = 0;
		for (uint64_t seed = 1; seed <= SEEDS; seed++) {
			struct memdisk *m = disk_with(seed, 100);
			struct rlog_log *l = open_log(m);
			bool is_new;

			assert_int_equal(take_snapshot(m, l, 20, 1), 0);
			rlog_log_compact(l, 0);
			memdisk_power_fail_at(m, call);
			if (take_snapshot(m, l, 150, 2) == 0)
				rlog_log_replace(l);
			off += memdisk_is_off(m);
			/* Power fails while it is opened again, too. */
			if (seed % 3 == 0) {
				char errmsg[RLOG_ERRMSG_SIZE];

				memdisk_crash(m);
				rlog_log_close(l);
				memdisk_power_fail_at(m, 1 + (unsigned)(seed / 3));
				if (try_open(m, &l, errmsg) != 0) {
					memdisk_crash(m);
					l = open_log(m);
				}
			}
			l = crash(m, l);
			is_new = snapshot_index(l) == 150;
			assert_true(is_new || snapshot_index(l) == 20);
			old_count += !is_new;
			new_count += is_new;
			assert_true(rlog_log_first(l) == 151 ||
				    (!is_new && rlog_log_first(l) <= 17));
			assert_int_equal(rlog_log_last(l), is_new ? 150 : 100);
			append_many(m, l, 3, 20);
			l = crash(m, l);
			if (!is_new)
				assert_entries(l, 17, 100, 1);
			assert_entries(l, is_new ? 151 : 101, is_new ? 170 : 120, 3);
			assert_int_equal(rlog_log_last(l), is_new ? 170 : 120);
			rlog_log_close(l);
			memdisk_free(m);
		}
	}
	assert_true(old_count > 0 && new_count > 0);
}

static void error_at_each_call_of_replacing_is_told_and_opening_goes_on(void **state)
{
	static const int errors[] = {-EIO, -ENOSPC};

	(void)state;
	/* Making a segment: create, zeros, header, rename, directory. */
	for (unsigned call = 1; call <= 5; call++) {
		for (unsigned i = 0; i < 2; i++) {
			struct memdisk *m = disk_with(call, 100);
			struct rlog_log *l = open_log(m);
			int rv;

			assert_int_equal(take_snapshot(m, l, 150, 2), 0);
			memdisk_fail_at(m, call, errors[i]);
			rv = rlog_log_replace(l);
			assert_true(rv == -EIO || rv == -ENOSPC);
			if (rv == -ENOSPC) {
				assert_int_equal(rlog_log_last(l), 100);
				assert_int_equal(rlog_log_replace(l), 0);
			} else {
				assert_int_equal(rlog_log_replace(l), -EIO);
			}
			l = crash(m, l);
			assert_int_equal(rlog_log_first(l), 151);
			append_many(m, l, 3, 20);
			l = crash(m, l);
			assert_entries(l, 151, 170, 3);
			rlog_log_close(l);
			memdisk_free(m);
		}
	}
}

static void segments_left_in_front_of_a_replaced_log_are_removed(void **state)
{
	(void)state;
	for (uint64_t left = 1; left <= 7; left++) {
		struct memdisk *m = disk_with(left, 100); /* segments 1 to 7 */
		struct rlog_log *l = open_log(m);
		char name[RLOG_SEGMENT_NAME_SIZE], aside[32];

		for (uint64_t seq = left; seq <= 7; seq++) {
			rlog_segment_name(name, seq);
			snprintf(aside, sizeof(aside), "aside-%u", (unsigned)seq);
			memdisk_file_copy(m, name, aside);
		}
		assert_int_equal(take_snapshot(m, l, 150, 2), 0);
		assert_int_equal(rlog_log_replace(l), 0);
		append_many(m, l, 3, 5);
		rlog_log_close(l);
		for (uint64_t seq = left; seq <= 7; seq++) {
			rlog_segment_name(name, seq);
			snprintf(aside, sizeof(aside), "aside-%u", (unsigned)seq);
			memdisk_file_copy(m, aside, name);
		}
		l = open_log(m);
		assert_int_equal(rlog_log_first(l), 151);
		assert_entries(l, 151, 155, 3);
		assert_int_equal(rlog_log_bytes(l), SMALL_SEGMENT);
		for (uint64_t seq = left; seq <= 7; seq++)
			assert_false(has_segment(m, seq));
		rlog_log_close(l);
		memdisk_free(m);
	}
}

static void segment_that_cannot_be_removed_stays_and_so_do_those_behind_it(void **state)
{
	(void)state;
	for (unsigned call = 1; call <= 5; call++) {
		struct memdisk *m = disk_with(call, 100);
		struct rlog_log *l = open_log(m);

		last_warning[0] = 0;
		assert_int_equal(take_snapshot(m, l, 90, 1), 0);
		memdisk_fail_at(m, call, -EIO);
		rlog_log_compact(l, 0);
		assert_non_null(strstr(last_warning, "file=segment-"));
		assert_int_equal(rlog_log_first(l), 81);
		l = crash(m, l);
		assert_true(rlog_log_first(l) <= 16 * (call - 1) + 1);
		assert_entries(l, rlog_log_first(l), 100, 1);
		rlog_log_compact(l, 0);
		assert_int_equal(rlog_log_first(l), 81);
		assert_int_equal(rlog_log_bytes(l), 2 * SMALL_SEGMENT);

		/* In front of a log that begins anew, too: the next opening removes them. */
		assert_int_equal(take_snapshot(m, l, 150, 2), 0);
		memdisk_fail_at(m, 6, -EIO); /* behind the five calls of a new segment */
		assert_int_equal(rlog_log_replace(l), 0);
		assert_true(has_segment(m, 6) && has_segment(m, 7) && has_segment(m, 8));
		append_many(m, l, 3, 40);
		rlog_log_close(l);
		memdisk_fail_at(m, 1, -EIO);
		l = open_log(m);
		assert_int_equal(rlog_log_first(l), 151);
		assert_entries(l, 151, 190, 3);
		assert_true(has_segment(m, 6));
		assert_int_equal(take_snapshot(m, l, 190, 3), 0);
		rlog_log_compact(l, 0);
		assert_int_equal(rlog_log_bytes(l), SMALL_SEGMENT);
		assert_false(has_segment(m, 6) || has_segment(m, 7) || has_segment(m, 8));
		rlog_log_close(l);
		memdisk_free(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(compaction_keeps_what_is_behind_the_snapshot),
		cmocka_unit_test(compaction_keeps_as_many_bytes_as_it_is_told),
		cmocka_unit_test(compaction_and_snapshot_cut_short_at_each_call_open_again),
		cmocka_unit_test(segment_left_in_front_is_part_of_the_log_again),
		cmocka_unit_test(snapshot_without_its_log_is_damage),
		cmocka_unit_test(segments_without_their_snapshot_are_damage),
		cmocka_unit_test(truncation_below_the_first_segment_left_begins_the_log),
		cmocka_unit_test(compaction_before_a_truncation_is_durable_waits),
		cmocka_unit_test(replaced_log_begins_behind_the_snapshot),
		cmocka_unit_test(snapshot_that_the_log_does_not_reach_or_contradicts_replaces_it),
		cmocka_unit_test(replaced_log_forgets_what_is_staged),
		cmocka_unit_test(replacing_cut_short_at_each_call_opens_as_the_old_or_the_new),
		cmocka_unit_test(error_at_each_call_of_replacing_is_told_and_opening_goes_on),
		cmocka_unit_test(segments_left_in_front_of_a_replaced_log_are_removed),
		cmocka_unit_test(segment_that_cannot_be_removed_stays_and_so_do_those_behind_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
