/* The log on the lossy disk: what was acknowledged is there after every crash, what was not is
 * there whole or not at all, and damage is named. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../rig/log_rig.h"
#include "log/meta.h"
#include "log/read.h"
#include "log/segment.h"
#include "log/segments.h"

/* ---- helpers ------------------------------------------------------------------------------ */

/* The bytes of an entry follow from its number, unique among all that a test makes. */
static struct rlog_buf *payload(uint64_t number, size_t len)
{
	struct rlog_buf *buf = rlog_buf_new(len);

	assert_non_null(buf);
	for (size_t i = 0; i < len; i++)
		buf->data[i] = (uint8_t)((number * 2654435761u + i * 40503u) >> 7);
	return buf;
}

static void append(struct rlog_log *l, uint64_t term, uint64_t number, size_t len)
{
	struct rlog_record r = {
		.index = rlog_log_last(l) + 1,
		.term = term,
		.type = 1,
		.buf = payload(number, len),
	};

	assert_int_equal(rlog_log_append(l, &r, 1), 0);
	rlog_buf_unref(r.buf);
}

static int write_one(struct memdisk *m, struct rlog_log *l)
{
	struct rlog_log_write w;
	int rv = rlog_log_write_begin(l, &w);

	if (rv != 1)
		return rv;
	memdisk_write_start(m, &w);
	rlog_log_write_end(l, memdisk_write_finish(m));
	return 1;
}

static void start_write(struct memdisk *m, struct rlog_log *l)
{
	struct rlog_log_write w;

	assert_int_equal(rlog_log_write_begin(l, &w), 1);
	memdisk_write_start(m, &w);
}

static void assert_entry(struct rlog_log *l, uint64_t index, uint64_t term, uint64_t number,
			 size_t len)
{
	struct rlog_buf *expected = payload(number, len);
	struct rlog_record r;
	uint64_t told_term;
	uint8_t told_type;
	size_t told_len;

	assert_int_equal(rlog_log_describe(l, index, &told_term, &told_type, &told_len), 0);
	assert_int_equal(told_term, term);
	assert_int_equal(told_len, len);
	assert_int_equal(rlog_log_read(l, index, &r), 0);
	assert_int_equal(r.index, index);
	assert_int_equal(r.term, term);
	assert_int_equal(r.buf->len, len);
	assert_memory_equal(r.buf->data, expected->data, len);
	rlog_buf_unref(r.buf);
	rlog_buf_unref(expected);
}

/* Opening says "damaged", in this file and, unless it is -1, at this offset. */
static void assert_damage(struct memdisk *m, const char *file, int64_t offset)
{
	struct rlog_log *l = NULL;
	char errmsg[RLOG_ERRMSG_SIZE] = "", place[128];

	assert_int_equal(rlog_log_open(&l, memdisk_disk(m), &options, errmsg), -EBADMSG);
	snprintf(place, sizeof(place), "file=%s offset=", file);
	if (offset >= 0)
		snprintf(place + strlen(place), 32, "%lld ", (long long)offset);
	if (!strstr(errmsg, place) || !strstr(errmsg, "join again"))
		fail_msg("expected \"%s\" in \"%s\"", place, errmsg);
}

/* ---- append and read ---------------------------------------------------------------------- */

static void append_many_sizes_reads_back(void **state)
{
	static const size_t sizes[] = {0,     1,     7,	    8,	  9,	 63,	 64,
				       3967,  3968,  3969,  4095, 4096,	 4097,	 12223,
				       12224, 12225, 12288, 0,	  16384, 100000, 5u << 20,
				       3,     0,     0,	    5000};
	size_t count = sizeof(sizes) / sizeof(*sizes);
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);

	(void)state;
	for (size_t i = 0; i < count; i++) {
		append(l, 1 + i / 4, i, sizes[i]);
		assert_entry(l, i + 1, 1 + i / 4, i, sizes[i]);
		assert_int_equal(rlog_log_durable(l), i);
		assert_int_equal(rlog_log_set_meta(l, 1 + i / 4, 0), 0);
		write_all(m, l);
	}
	for (int pass = 0; pass < 3; pass++) {
		assert_int_equal(rlog_log_first(l), 1);
		assert_int_equal(rlog_log_last(l), count);
		for (size_t i = 0; i < count; i++)
			assert_entry(l, i + 1, 1 + i / 4, i, sizes[i]);
		for (size_t i = count; i-- > 0;)
			assert_entry(l, i + 1, 1 + i / 4, i, sizes[i]);
		if (pass == 0)
			rlog_log_applied(l, count);
		else if (pass == 1)
			l = crash(m, l);
	}
	rlog_log_close(l);
	memdisk_free(m);
}

static void append_batch_is_one_write(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);

	(void)state;
	rlog_log_set_meta(l, 1, 0);
	for (uint64_t i = 0; i < 20; i++)
		append(l, 1, i, 100);
	assert_int_equal(write_one(m, l), 1);
	assert_int_equal(rlog_log_durable(l), 20);
	assert_int_equal(write_one(m, l), 0);
	rlog_log_close(l);
	memdisk_free(m);
}

static void create_with_first_entry_holds_it(void **state)
{
	struct memdisk *m = memdisk_new(1);
	struct rlog_record first = {.index = 1, .term = 1, .type = 3, .buf = payload(9, 90)};
	char errmsg[RLOG_ERRMSG_SIZE];
	struct rlog_log *l;
	uint64_t term, vote;

	(void)state;
	assert_int_equal(rlog_log_create(memdisk_disk(m), &options, &first, errmsg), 0);
	rlog_buf_unref(first.buf);
	memdisk_crash(m);
	l = open_log(m);
	rlog_log_meta(l, &term, &vote);
	assert_int_equal(term, 1);
	assert_int_equal(vote, 0);
	assert_int_equal(rlog_log_durable(l), 1);
	assert_entry(l, 1, 1, 9, 90);
	rlog_log_close(l);
	memdisk_free(m);
}

static void read_outside_log_is_enoent(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);
	struct rlog_record r;
	uint64_t term;
	uint8_t type;
	size_t len;

	(void)state;
	append(l, 1, 1, 5);
	assert_int_equal(rlog_log_read(l, 0, &r), -ENOENT);
	assert_int_equal(rlog_log_read(l, 2, &r), -ENOENT);
	assert_int_equal(rlog_log_describe(l, 2, &term, &type, &len), -ENOENT);
	rlog_log_close(l);
	memdisk_free(m);
}

static void cache_over_bound_keeps_unapplied_and_serves_the_rest_from_disk(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);

	(void)state;
	rlog_log_set_meta(l, 1, 0);
	for (uint64_t i = 1; i <= 100; i++)
		append(l, 1, i, 1000);
	write_all(m, l);
	rlog_log_applied(l, 50);
	/* Damage beneath: what was dropped from memory fails, what is kept does not notice. */
	for (unsigned seq = 1; seq < 8; seq++) {
		char name[RLOG_SEGMENT_NAME_SIZE];

		rlog_segment_name(name, seq);
		for (uint64_t at = 4096; at < SMALL_SEGMENT; at += 8)
			memdisk_file_flip(m, name, at, 0);
	}
	for (uint64_t i = 51; i <= 100; i++)
		assert_entry(l, i, 1, i, 1000);
	for (uint64_t i = 1; i <= 50; i++) {
		struct rlog_record r;

		assert_int_equal(rlog_log_read(l, i, &r), -EBADMSG);
	}
	assert_non_null(strstr(last_line, "file=segment-"));
	assert_non_null(strstr(last_line, "offset="));
	rlog_log_close(l);
	memdisk_free(m);
}

static void segment_full_rolls_over(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);

	(void)state;
	rlog_log_set_meta(l, 1, 0);
	/* Three records of exactly a third of the room fill a segment to the last byte. */
	for (uint64_t i = 1; i <= 9; i++) {
		append(l, 1, i, 4096 - RLOG_RECORD_HEADER);
		write_all(m, l);
	}
	assert_int_equal(memdisk_file_size(m, SEGMENT_3), SMALL_SEGMENT);
	assert_int_equal(memdisk_file_size(m, "segment-0000000000000004.log"), -1);
	l = crash(m, l);
	append(l, 1, 10, 1);
	write_all(m, l);
	assert_int_equal(memdisk_file_size(m, "segment-0000000000000004.log"), SMALL_SEGMENT);
	l = crash(m, l);
	for (uint64_t i = 1; i <= 9; i++)
		assert_entry(l, i, 1, i, 4096 - RLOG_RECORD_HEADER);
	assert_entry(l, 10, 1, 10, 1);
	rlog_log_close(l);
	memdisk_free(m);
}

static void spare_made_ahead_is_taken_into_use(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);
	struct rlog_log_spare spare;
	unsigned before;

	(void)state;
	assert_true(rlog_log_spare_begin(l, &spare));
	assert_false(rlog_log_spare_begin(l, &spare));
	assert_int_equal(rlog_log_spare_make(memdisk_disk(m), &spare), 0);
	rlog_log_spare_end(l, 0);
	assert_false(rlog_log_spare_begin(l, &spare));
	append(l, 1, 1, 12000);
	write_all(m, l);
	append(l, 1, 2, 12000);
	before = memdisk_changes(m);
	write_all(m, l);
	/* header, rename, directory, the write itself */
	assert_int_equal(memdisk_changes(m) - before, 4);
	assert_int_equal(memdisk_file_size(m, SEGMENT_2), SMALL_SEGMENT);
	assert_true(rlog_log_spare_begin(l, &spare));
	rlog_log_spare_end(l, -ENOSPC);
	assert_false(rlog_log_spare_begin(l, &spare));
	rlog_log_close(l);
	memdisk_free(m);
}

static void room_is_told_with_what_lies_behind_it(void **state)
{
	const uint64_t segment = 1u << 20;
	struct memdisk *m = memdisk_new(1);
	struct rlog_log_options opt = {.cluster_id = 1, .node_id = 1, .segment_bytes = segment};
	char errmsg[RLOG_ERRMSG_SIZE];
	struct rlog_log_room room;
	struct rlog_log_spare spare;
	struct rlog_log *l;
	uint64_t before;

	(void)state;
	assert_int_equal(rlog_log_create(memdisk_disk(m), &opt, NULL, errmsg), 0);
	assert_int_equal(rlog_log_open(&l, memdisk_disk(m), &opt, errmsg), 0);
	rlog_log_room(l, &room); /* nobody makes spares: nothing is known */
	assert_int_equal(room.beyond, 0);
	assert_true(room.idle && !room.spare);
	assert_true(room.bytes > segment / 2 && room.bytes < segment);
	before = room.bytes;

	assert_true(rlog_log_spare_begin(l, &spare));
	rlog_log_room(l, &room);
	assert_int_equal(room.beyond, 0);
	rlog_log_spare_end(l, -ENOSPC);
	rlog_log_room(l, &room);
	assert_int_equal(room.beyond, -ENOSPC);
	assert_int_equal(room.bytes, before);

	append(l, 1, 1, 100000); /* staged, then written: it counts once */
	rlog_log_room(l, &room);
	assert_false(room.idle);
	assert_int_equal(room.bytes, before - rlog_log_record_bytes(100000));
	write_all(m, l);
	rlog_log_room(l, &room);
	assert_true(room.idle);
	assert_int_equal(room.bytes, before - rlog_log_record_bytes(100000));

	assert_false(rlog_log_spare_begin(l, &spare));
	rlog_log_spare_again(l);
	assert_true(rlog_log_spare_begin(l, &spare));
	rlog_log_room(l, &room);
	assert_int_equal(room.beyond, -EAGAIN);
	assert_int_equal(rlog_log_spare_make(memdisk_disk(m), &spare), 0);
	rlog_log_spare_end(l, 0);
	rlog_log_room(l, &room);
	assert_true(room.spare);
	assert_int_equal(room.beyond, -EAGAIN);
	assert_true(room.bytes > before - rlog_log_record_bytes(100000));
	rlog_log_close(l);
	memdisk_free(m);
}

/* ---- truncation --------------------------------------------------------------------------- */

static void truncate_durable_then_append_survives_restart(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);

	(void)state;
	rlog_log_set_meta(l, 2, 0);
	for (uint64_t i = 1; i <= 40; i++)
		append(l, 1, i, 700);
	write_all(m, l);
	rlog_log_applied(l, 4);
	assert_int_equal(rlog_log_truncate(l, 41), 0);
	assert_int_equal(write_one(m, l), 0);
	assert_int_equal(rlog_log_truncate(l, 0), -EINVAL);
	assert_int_equal(rlog_log_truncate(l, 5), 0);
	assert_int_equal(rlog_log_last(l), 4);
	assert_int_equal(rlog_log_durable(l), 4);
	append(l, 2, 105, 30);
	write_all(m, l);
	for (int pass = 0; pass < 2; pass++) {
		assert_int_equal(rlog_log_last(l), 5);
		for (uint64_t i = 1; i <= 4; i++)
			assert_entry(l, i, 1, i, 700);
		assert_entry(l, 5, 2, 105, 30);
		l = crash(m, l);
	}
	/* To nothing, and from there on. */
	assert_int_equal(rlog_log_truncate(l, 1), 0);
	assert_int_equal(rlog_log_last(l), 0);
	append(l, 2, 7, 7);
	write_all(m, l);
	l = crash(m, l);
	assert_int_equal(rlog_log_last(l), 1);
	assert_entry(l, 1, 2, 7, 7);
	rlog_log_close(l);
	memdisk_free(m);
}

static void truncate_staged_writes_nothing_of_it(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);

	(void)state;
	rlog_log_set_meta(l, 1, 0);
	append(l, 1, 1, 10);
	append(l, 1, 2, 10);
	assert_int_equal(rlog_log_truncate(l, 2), 0);
	append(l, 1, 3, 11);
	write_all(m, l);
	l = crash(m, l);
	assert_int_equal(rlog_log_last(l), 2);
	assert_entry(l, 1, 1, 1, 10);
	assert_entry(l, 2, 1, 3, 11);
	rlog_log_close(l);
	memdisk_free(m);
}

static void truncate_in_flight_is_never_durable_again(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);

	(void)state;
	rlog_log_set_meta(l, 2, 0);
	append(l, 1, 1, 10);
	write_all(m, l);
	append(l, 1, 2, 10);
	append(l, 1, 3, 10);
	start_write(m, l);
	assert_int_equal(rlog_log_truncate(l, 3), 0);
	append(l, 2, 33, 20);
	assert_entry(l, 3, 2, 33, 20);
	rlog_log_write_end(l, memdisk_write_finish(m));
	assert_int_equal(rlog_log_durable(l), 2);
	assert_int_equal(rlog_log_truncate(l, 2), 0);
	assert_int_equal(rlog_log_durable(l), 1);
	append(l, 2, 22, 20);
	write_all(m, l);
	l = crash(m, l);
	assert_int_equal(rlog_log_last(l), 2);
	assert_entry(l, 1, 1, 1, 10);
	assert_entry(l, 2, 2, 22, 20);
	rlog_log_close(l);
	memdisk_free(m);
}

/* ---- torn writes -------------------------------------------------------------------------- */

static bool in_mask(void *arg, size_t sector)
{
	return *(uint64_t *)arg >> sector & 1;
}

/* Three durable entries, then a write of entries 4, 5 and 6 of which the sectors of `mask` reach
 * the disk: it is there whole or not at all; and whatever was dropped does not come back, even when
 * the same entries are written again and torn again. */
static void torn_write(struct memdisk *base, uint64_t mask, size_t len)
{
	struct memdisk *m = memdisk_clone(base, mask);
	struct rlog_log *l = open_log(m);
	uint64_t last;

	for (uint64_t i = 4; i <= 6; i++)
		append(l, 1, i, len);
	start_write(m, l);
	memdisk_crash_keeping(m, in_mask, &mask);
	rlog_log_close(l);

	/* Power may fail again while the torn write is being dropped. */
	if (mask % 3 == 0) {
		char errmsg[RLOG_ERRMSG_SIZE];

		memdisk_power_fail_at(m, 1 + (unsigned)(mask / 3 % 2));
		if (rlog_log_open(&l, memdisk_disk(m), &options, errmsg) == 0) {
			memdisk_crash(m);
			rlog_log_close(l);
		} else {
			memdisk_crash(m);
		}
	}
	l = open_log(m);
	last = rlog_log_last(l);
	assert_true(last == 3 || last == 6);
	for (uint64_t i = 1; i <= last; i++)
		assert_entry(l, i, 1, i, i <= 3 ? 100 : len);

	append(l, 1, last + 1, len);
	write_all(m, l);
	l = crash(m, l);
	assert_int_equal(rlog_log_last(l), last + 1);
	for (uint64_t i = 1; i <= last + 1; i++)
		assert_entry(l, i, 1, i, i <= 3 ? 100 : len);
	rlog_log_close(l);
	memdisk_free(m);
}

static struct memdisk *three_entries(void)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);

	rlog_log_set_meta(l, 1, 0);
	for (uint64_t i = 1; i <= 3; i++)
		append(l, 1, i, 100);
	write_all(m, l);
	memdisk_crash(m);
	rlog_log_close(l);
	return m;
}

static void torn_write_of_one_block_in_every_subset_is_whole_or_gone(void **state)
{
	struct memdisk *m = three_entries();

	(void)state;
	for (uint64_t mask = 0; mask < 256; mask++)
		torn_write(m, mask, 900);
	memdisk_free(m);
}

static void torn_write_of_two_blocks_in_every_subset_is_whole_or_gone(void **state)
{
	struct memdisk *m = three_entries();

	(void)state;
	for (uint64_t mask = 0; mask < 65536; mask += 1 + mask % 5)
		torn_write(m, mask, 2300);
	memdisk_free(m);
}

/* Entries 1, 2 and 3 in one write, of which only 2 and 3 reach the disk; then the same 1 and 2,
 * byte for byte, with another 3, of which only 1 and 2 do. The first 3 would now chain, but the
 * node had denied to have it. `sectors` are one entry's, `durable` says that an entry is in front
 * of them. */
static void revive(bool durable, unsigned sectors)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);
	uint64_t one = (UINT64_C(1) << sectors) - 1, first, second;
	size_t len = sectors * MEMDISK_SECTOR - RLOG_RECORD_HEADER;
	unsigned shift = durable ? sectors : 0;

	rlog_log_set_meta(l, 1, 0);
	if (durable) {
		append(l, 1, 100, len);
		write_all(m, l);
	}
	for (uint64_t i = 1; i <= 3; i++)
		append(l, 1, i, len);
	start_write(m, l);
	first = (one << sectors | one << 2 * sectors) << shift;
	memdisk_crash_keeping(m, in_mask, &first);
	rlog_log_close(l);
	l = open_log(m);
	assert_non_null(strstr(last_line, "dropped a torn write"));
	assert_non_null(strstr(last_line, SEGMENT_1));
	assert_int_equal(rlog_log_last(l), durable);
	for (uint64_t i = 1; i <= 3; i++)
		append(l, 1, i < 3 ? i : 33, len);
	start_write(m, l);
	second = (one | one << sectors) << shift;
	memdisk_crash_keeping(m, in_mask, &second);
	rlog_log_close(l);
	l = open_log(m);
	assert_int_equal(rlog_log_last(l), durable);
	rlog_log_close(l);
	memdisk_free(m);
}

static void torn_write_of_equal_bytes_again_does_not_revive_the_rest(void **state)
{
	(void)state;
	revive(false, 8); /* a block each */
	revive(true, 8);
	revive(true, 1); /* all in the block in which the log ends */
	revive(false, 1);
}

/* ---- damage ------------------------------------------------------------------------------- */

/* Flip one bit of each byte in turn. `last_from` is where the last write begins in the last
 * segment: from there on a crash could have done it. After an orderly close nothing is excused. */
static void flip_everywhere(bool closed)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);
	const char *names[] = {SEGMENT_1, SEGMENT_2};
	uint64_t used[2] = {0, 0}, last_from = 0, starts[32], seqs[32], count = 0;
	unsigned excused = 0;

	rlog_log_set_meta(l, 1, 0);
	for (uint64_t i = 1; i <= 11; i++) {
		struct rlog_log_write w;
		uint64_t seq;

		append(l, 1, i, i == 4 ? 0 : 1500 + i);
		assert_int_equal(rlog_log_write_begin(l, &w), 1);
		memdisk_write_start(m, &w);
		rlog_log_write_end(l, memdisk_write_finish(m));
		seq = memdisk_file_size(m, SEGMENT_2) >= 0;
		if (used[seq] == 0)
			used[seq] = RLOG_BLOCK;
		last_from = starts[count] = used[seq];
		seqs[count++] = seq;
		used[seq] += rlog_record_bytes(i == 4 ? 0 : 1500 + i);
	}
	assert_int_equal(memdisk_file_size(m, SEGMENT_3), -1);
	assert_true(used[1] > 0);
	if (closed)
		rlog_log_close(l);
	memdisk_crash(m);
	if (!closed)
		rlog_log_close(l);

	for (unsigned f = 0; f < 2; f++) {
		for (uint64_t at = 0; at < SMALL_SEGMENT; at++) {
			struct memdisk *c;
			char errmsg[RLOG_ERRMSG_SIZE] = "", place[80];
			uint64_t expect = 0;
			int err;

			if (at >= used[f] + 16 && at % 64)
				continue;
			c = memdisk_clone(m, at);
			memdisk_file_flip(c, names[f], at, at % 8);
			err = rlog_log_open(&l, memdisk_disk(c), &options, errmsg);
			if (at >= RLOG_BLOCK && at < used[f])
				for (uint64_t i = 0; i < count; i++)
					if (seqs[i] == f && starts[i] <= at)
						expect = starts[i];
			if (err < 0) {
				assert_int_equal(err, -EBADMSG);
				assert_true(at < used[f]);
				snprintf(place, sizeof(place), "file=%s offset=%llu ", names[f],
					 (unsigned long long)expect);
				if (!strstr(errmsg, place))
					fail_msg("flip at %s:%llu: expected %s in: %s", names[f],
						 (unsigned long long)at, place, errmsg);
			} else if (at < used[f]) {
				excused++;
				assert_false(closed);
				assert_true(f == 1 && at >= last_from);
				assert_int_equal(rlog_log_last(l), 10);
			} else {
				assert_int_equal(rlog_log_last(l), 11);
			}
			if (err == 0) {
				for (uint64_t i = 1; i <= rlog_log_last(l); i++)
					assert_entry(l, i, 1, i, i == 4 ? 0 : 1500 + i);
				rlog_log_close(l);
			}
			memdisk_free(c);
		}
	}
	assert_int_equal(excused, closed ? 0 : used[1] - last_from);
	memdisk_free(m);
}

static void flipped_bit_after_close_is_damage_with_file_and_offset(void **state)
{
	(void)state;
	flip_everywhere(true);
}

static void flipped_bit_after_crash_is_damage_except_in_the_last_write(void **state)
{
	(void)state;
	flip_everywhere(false);
}

static void become(struct memdisk *m, const char *name, uint64_t at, int byte)
{
	for (unsigned bit = 0; bit < 8; bit++)
		if ((memdisk_file_byte(m, name, at) ^ byte) >> bit & 1)
			memdisk_file_flip(m, name, at, bit);
}

/* Two full segments and a third with one entry. */
static struct memdisk *three_segments(void)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);

	rlog_log_set_meta(l, 1, 0);
	for (uint64_t i = 1; i <= 7; i++) {
		append(l, 1, i, 4096 - RLOG_RECORD_HEADER);
		write_all(m, l);
	}
	memdisk_crash(m);
	rlog_log_close(l);
	return m;
}

static void segment_missing_is_damage(void **state)
{
	static const char *names[] = {SEGMENT_1, SEGMENT_2};

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct memdisk *m = three_segments();

		memdisk_file_remove(m, names[i]);
		assert_damage(m, names[i], 0);
		memdisk_free(m);
	}
}

static void last_segment_missing_after_close_is_damage(void **state)
{
	struct memdisk *m = three_segments();

	(void)state;
	rlog_log_close(open_log(m));
	memdisk_file_remove(m, SEGMENT_3);
	assert_damage(m, SEGMENT_2, SMALL_SEGMENT);
	memdisk_free(m);
}

static void all_segments_missing_is_damage(void **state)
{
	struct memdisk *m = disk_with_log(1);

	(void)state;
	memdisk_file_remove(m, SEGMENT_1);
	assert_damage(m, SEGMENT_1, 0);
	memdisk_free(m);
}

static void segment_duplicated_or_swapped_is_damage(void **state)
{
	struct memdisk *m = three_segments();
	struct memdisk *c = memdisk_clone(m, 1);

	(void)state;
	memdisk_file_copy(c, SEGMENT_3, "segment-0000000000000004.log");
	assert_damage(c, "segment-0000000000000004.log", 0);
	memdisk_free(c);
	c = memdisk_clone(m, 1);
	memdisk_file_copy(c, SEGMENT_2, "saved");
	memdisk_file_copy(c, SEGMENT_3, SEGMENT_2);
	memdisk_file_copy(c, "saved", SEGMENT_3);
	assert_damage(c, SEGMENT_2, 0);
	memdisk_free(c);
	memdisk_free(m);
}

static void old_content_of_a_block_is_damage(void **state)
{
	struct memdisk *m = disk_with_log(1), *other;
	struct rlog_log *l = open_log(m);
	size_t len = 4096 - RLOG_RECORD_HEADER;

	(void)state;
	/* A disk that lost a write it had acknowledged, and shows what was there before: a valid
	 * record at its place, of the right batch, that only the chain of the next one tells from
	 * the right. */
	rlog_log_set_meta(l, 1, 0);
	memdisk_crash(m);
	rlog_log_close(l);
	other = memdisk_clone(m, 1);
	l = open_log(other);
	append(l, 1, 100, len);
	write_all(other, l);
	rlog_log_close(l);
	l = open_log(m);
	for (uint64_t i = 1; i <= 3; i++) {
		append(l, 1, i, len);
		write_all(m, l);
	}
	memdisk_crash(m);
	rlog_log_close(l);
	for (uint64_t at = 4096; at < 8192; at++)
		become(m, SEGMENT_1, at, memdisk_file_byte(other, SEGMENT_1, at));
	assert_damage(m, SEGMENT_1, 8192);
	memdisk_free(other);
	memdisk_free(m);
}

static void lost_replacement_of_an_entry_at_the_end_of_a_segment_is_damage(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);

	(void)state;
	/* Without its last write the segment holds as many entries as with it. */
	rlog_log_set_meta(l, 2, 0);
	append(l, 1, 1, 100);
	append(l, 1, 2, 4096 - 2 * RLOG_RECORD_HEADER - 104);
	write_all(m, l);
	assert_int_equal(rlog_log_truncate(l, 2), 0);
	append(l, 2, 3, 100);
	write_all(m, l);
	append(l, 2, 4, 12000);
	write_all(m, l);
	assert_int_equal(memdisk_file_size(m, SEGMENT_2), SMALL_SEGMENT);
	memdisk_crash(m);
	rlog_log_close(l);
	memdisk_file_flip(m, SEGMENT_1, 8192 + 50, 1);
	assert_damage(m, SEGMENT_1, 8192);
	memdisk_free(m);
}

static void segment_cut_short_is_damage(void **state)
{
	static const uint64_t sizes[] = {0, 100, 4096, 5000, SMALL_SEGMENT - 1};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct memdisk *m = three_segments();

		memdisk_file_cut(m, SEGMENT_2, sizes[i]);
		assert_damage(m, SEGMENT_2, -1);
		memdisk_free(m);
	}
}

static void segment_of_an_earlier_log_is_damage(void **state)
{
	struct memdisk *m = three_segments(), *other = disk_with_log(2);

	(void)state;
	/* Same cluster, same node, made again: only the epoch tells. */
	for (uint64_t at = 0; at < SMALL_SEGMENT; at++)
		become(m, SEGMENT_1, at, memdisk_file_byte(other, SEGMENT_1, at));
	assert_damage(m, SEGMENT_1, 0);
	memdisk_free(other);
	memdisk_free(m);
}

static void other_cluster_or_node_is_refused_by_name(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log_options o = options;
	char errmsg[RLOG_ERRMSG_SIZE];
	struct rlog_log *l;

	(void)state;
	o.cluster_id++;
	assert_int_equal(rlog_log_open(&l, memdisk_disk(m), &o, errmsg), -EXDEV);
	assert_non_null(strstr(errmsg, "another cluster"));
	o = options;
	o.node_id++;
	assert_int_equal(rlog_log_open(&l, memdisk_disk(m), &o, errmsg), -EXDEV);
	assert_non_null(strstr(errmsg, "another node"));
	memdisk_free(m);
}

static int open_reading(struct memdisk *m, unsigned level, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_log_options reading = options;
	struct rlog_log *l;
	int err;

	reading.format_reads = level;
	err = rlog_log_open(&l, memdisk_disk(m), &reading, errmsg);
	if (err == 0) {
		err = (int)rlog_log_format(l);
		rlog_log_close(l);
	}
	return err;
}

static void level_that_a_log_needs_outlives_power_failures_and_a_damaged_slot(void **state)
{
	char errmsg[RLOG_ERRMSG_SIZE] = "";

	(void)state;
	for (unsigned slot = 0; slot < 3; slot++) {
		struct memdisk *m = disk_with_log(1);
		struct rlog_log *l = open_log(m);

		assert_int_equal(rlog_log_format(l), 1);
		assert_int_equal(rlog_log_raise_format(l, 1), 0);
		assert_int_equal(rlog_log_raise_format(l, 3), 0);
		assert_int_equal(rlog_log_raise_format(l, 2), 0);
		assert_int_equal(rlog_log_format(l), 3);
		memdisk_crash(m);
		rlog_log_close(l);
		if (slot < 2)
			memdisk_file_flip(m, RLOG_META_NAME, slot * RLOG_BLOCK + 50, 1);
		assert_int_equal(open_reading(m, 2, errmsg), -ENOTSUP);
		assert_non_null(strstr(errmsg, "upgrade this node"));
		assert_int_equal(open_reading(m, 3, errmsg), 3);
		assert_int_equal(open_reading(m, 4, errmsg), 3);
		memdisk_free(m);
	}
}

/* It is noted ahead of the entry, and is what it was or what it was to be. */
static void level_raised_while_the_power_fails_is_the_old_or_the_new(void **state)
{
	char errmsg[RLOG_ERRMSG_SIZE] = "";

	(void)state;
	for (uint64_t seed = 0; seed < 50; seed++)
		for (unsigned call = 1; call <= 2; call++) {
			struct memdisk *m = disk_with_log(seed);
			struct rlog_log *l = open_log(m);
			int level;

			memdisk_power_fail_at(m, call);
			assert_int_equal(rlog_log_raise_format(l, 2), -EIO);
			memdisk_crash(m);
			rlog_log_close(l);
			level = open_reading(m, 2, errmsg);
			assert_true(level == 2 || (level == 1 && call == 1));
			memdisk_free(m);
		}
}

static void entries_later_than_the_term_are_damage(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);

	(void)state;
	append(l, 5, 1, 1);
	write_all(m, l);
	memdisk_crash(m);
	rlog_log_close(l);
	assert_damage(m, "meta", 0);
	memdisk_free(m);
}

static void unknown_files_are_left_alone_and_spares_removed(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l;

	(void)state;
	memdisk_file_copy(m, SEGMENT_1, "segment-1.log");
	memdisk_file_copy(m, SEGMENT_1, SEGMENT_2 ".bak");
	memdisk_file_copy(m, SEGMENT_1, "spare-00000007.tmp");
	l = open_log(m);
	assert_int_equal(memdisk_file_size(m, "segment-1.log"), SMALL_SEGMENT);
	assert_int_equal(memdisk_file_size(m, SEGMENT_2 ".bak"), SMALL_SEGMENT);
	assert_int_equal(memdisk_file_size(m, "spare-00000007.tmp"), -1);
	rlog_log_close(l);
	memdisk_free(m);
}

/* ---- failing calls ------------------------------------------------------------------------ */

static void write_failed_poisons_the_log(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);
	struct rlog_log_write w;
	struct rlog_record r = {.index = 2, .term = 1, .type = 1, .buf = payload(1, 1)};

	(void)state;
	append(l, 1, 1, 10);
	assert_int_equal(rlog_log_write_begin(l, &w), 1);
	rlog_log_write_end(l, -EIO);
	assert_non_null(strstr(last_line, SEGMENT_1));
	assert_int_equal(rlog_log_durable(l), 0);
	assert_int_equal(rlog_log_write_begin(l, &w), -EIO);
	assert_int_equal(rlog_log_append(l, &r, 1), -EIO);
	assert_int_equal(rlog_log_truncate(l, 1), -EIO);
	assert_int_equal(rlog_log_set_meta(l, 9, 9), -EIO);
	assert_entry(l, 1, 1, 1, 10);
	rlog_buf_unref(r.buf);
	rlog_log_close(l);
	memdisk_free(m);
}

static void disk_full_at_new_segment_can_be_tried_again(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);

	(void)state;
	rlog_log_set_meta(l, 1, 0);
	memdisk_set_capacity(m, 2 * 4096 + SMALL_SEGMENT + 5000);
	append(l, 1, 1, 9000);
	append(l, 1, 2, 9000);
	assert_int_equal(write_one(m, l), 1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(write_one(m, l), -ENOSPC);
	assert_int_equal(rlog_log_durable(l), 1);
	assert_int_equal(rlog_log_last(l), 2);
	append(l, 1, 3, 10);
	/* The term is written in place and needs no room. */
	assert_int_equal(rlog_log_set_meta(l, 2, 1), 0);
	memdisk_set_capacity(m, 0);
	write_all(m, l);
	l = crash(m, l);
	assert_int_equal(rlog_log_last(l), 3);
	assert_entry(l, 2, 1, 2, 9000);
	rlog_log_close(l);
	memdisk_free(m);
}

static void disk_full_at_each_call_of_a_new_segment_can_be_tried_again(void **state)
{
	(void)state;
	/* create, zeros, header, rename; the directory's sync is past the point of return */
	for (unsigned call = 1; call <= 4; call++) {
		struct memdisk *m = disk_with_log(1);
		struct rlog_log *l = open_log(m);

		rlog_log_set_meta(l, 1, 0);
		append(l, 1, 1, 9000);
		append(l, 1, 2, 9000);
		assert_int_equal(write_one(m, l), 1);
		memdisk_fail_at(m, call, -ENOSPC);
		assert_int_equal(write_one(m, l), -ENOSPC);
		write_all(m, l);
		l = crash(m, l);
		assert_int_equal(rlog_log_last(l), 2);
		rlog_log_close(l);
		memdisk_free(m);
	}
}

static void io_error_at_each_call_of_a_new_segment_poisons(void **state)
{
	(void)state;
	for (unsigned call = 1; call <= 5; call++) {
		struct memdisk *m = disk_with_log(1);
		struct rlog_log *l = open_log(m);

		rlog_log_set_meta(l, 1, 0);
		append(l, 1, 1, 9000);
		append(l, 1, 2, 9000);
		assert_int_equal(write_one(m, l), 1);
		memdisk_fail_at(m, call, call == 5 ? -ENOSPC : -EIO);
		assert_int_equal(write_one(m, l), -EIO);
		assert_int_equal(write_one(m, l), -EIO);
		l = crash(m, l);
		assert_int_equal(rlog_log_last(l), 1);
		rlog_log_close(l);
		memdisk_free(m);
	}
}

static void crash_during_each_call_of_a_new_segment_keeps_what_was_durable(void **state)
{
	(void)state;
	for (unsigned call = 1; call <= 6; call++) {
		for (uint64_t seed = 0; seed < 50; seed++) {
			struct memdisk *m = disk_with_log(seed);
			struct rlog_log *l = open_log(m);
			uint64_t last;

			rlog_log_set_meta(l, 1, 0);
			append(l, 1, 1, 9000);
			append(l, 1, 2, 9000);
			assert_int_equal(write_one(m, l), 1);
			memdisk_power_fail_at(m, call);
			write_one(m, l);
			assert_true(memdisk_is_off(m));
			l = crash(m, l);
			last = rlog_log_last(l);
			assert_true(last == 1 || (last == 2 && call == 6));
			assert_entry(l, 1, 1, 1, 9000);
			append(l, 1, 7, 9000);
			write_all(m, l);
			l = crash(m, l);
			assert_entry(l, last + 1, 1, 7, 9000);
			rlog_log_close(l);
			memdisk_free(m);
		}
	}
}

/* ---- everything at once ------------------------------------------------------------------- */

struct model_entry {
	uint64_t term, number;
	size_t len;
};

struct model {
	struct model_entry at[2000];
	size_t count;
};

struct random_run {
	uint64_t seed, random;
	struct memdisk *m;
	struct rlog_log *l;
	/* What readers see; what is on disk; what is on disk when the write in flight has ended. */
	struct model now, durable, written;
	bool in_flight;
	uint64_t numbers, term;
};

static uint64_t draw(struct random_run *r)
{
	r->random = r->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return r->random >> 33;
}

static bool model_equal(struct rlog_log *l, const struct model *model)
{
	if (rlog_log_last(l) != model->count)
		return false;
	for (size_t i = 0; i < model->count; i++) {
		struct rlog_buf *expected = payload(model->at[i].number, model->at[i].len);
		struct rlog_record got;
		bool same;

		assert_int_equal(rlog_log_read(l, i + 1, &got), 0);
		same = got.term == model->at[i].term && got.buf->len == expected->len &&
		       memcmp(got.buf->data, expected->data, expected->len) == 0;
		rlog_buf_unref(got.buf);
		rlog_buf_unref(expected);
		if (!same)
			return false;
	}
	return true;
}

static void random_crash(struct random_run *r, uint64_t new_term)
{
	struct memdisk *m = r->m;
	char errmsg[RLOG_ERRMSG_SIZE] = "";
	uint64_t term, vote;
	int err = -1;

	memdisk_crash(m);
	rlog_log_close(r->l);
	while (err < 0) {
		/* Opening writes too, and power may fail in that as well. */
		if (draw(r) % 2)
			memdisk_power_fail_at(m, 1 + draw(r) % 3);
		err = rlog_log_open(&r->l, memdisk_disk(m), &options, errmsg);
		if (err < 0 && !memdisk_is_off(m))
			fail_msg("seed=%llu: %s", (unsigned long long)r->seed, errmsg);
		if (err < 0) {
			memdisk_crash(m);
		} else if (memdisk_is_off(m)) {
			memdisk_crash(m);
			rlog_log_close(r->l);
			err = -1;
		} else {
			memdisk_power_fail_at(m, 0);
		}
	}
	rlog_log_meta(r->l, &term, &vote);
	assert_true(term == r->term || term == new_term);
	r->term = term;
	if (model_equal(r->l, &r->durable))
		r->now = r->durable;
	else if (r->in_flight && model_equal(r->l, &r->written))
		r->now = r->durable = r->written;
	else
		fail_msg("seed=%llu: neither what was durable nor what was being written",
			 (unsigned long long)r->seed);
	r->in_flight = false;
}

/* The index that the log on disk ends with once this write is done: its last record tells. */
static size_t last_of_write(struct memdisk *m, const struct rlog_log_write *w)
{
	const uint8_t *bytes = w->iov[0].iov_base;
	uint64_t epoch = 0, last = 0;
	struct rlog_record_header r;

	for (int i = 7; i >= 0; i--)
		epoch = epoch << 8 | (uint64_t)memdisk_file_byte(m, SEGMENT_1, 40 + (unsigned)i);
	for (size_t at = 0; at < w->bytes; at += 8)
		if (rlog_record_decode(bytes + at, w->bytes - at, epoch, &r))
			last = r.type == RLOG_RECORD_TRUNCATE ? r.index - 1 : r.index;
	return last;
}

static size_t random_len(struct random_run *r)
{
	switch (draw(r) % 10) {
	case 0:
		return 0;
	case 1:
		return 4096 - RLOG_RECORD_HEADER - draw(r) % 3;
	case 2:
		return SMALL_SEGMENT - 4096 - RLOG_RECORD_HEADER - draw(r) % 3;
	case 3:
		return draw(r) % 40000;
	case 4:
	case 5:
		return draw(r) % 4000;
	default:
		return draw(r) % 300;
	}
}

static void random_step(struct random_run *r)
{
	struct rlog_log_write w;
	uint64_t what = draw(r) % 100;
	int err;

	if (what < 35) {
		for (uint64_t n = 1 + draw(r) % 4; n > 0 && r->now.count < 1900; n--) {
			struct model_entry e = {r->term, ++r->numbers, random_len(r)};

			append(r->l, e.term, e.number, e.len);
			r->now.at[r->now.count++] = e;
		}
	} else if (what < 41 && r->now.count > 0) {
		uint64_t back = 1 + draw(r) % (draw(r) % 4 ? 5 : 60);

		if (back > r->now.count)
			back = r->now.count;
		r->now.count -= back;
		assert_int_equal(rlog_log_truncate(r->l, r->now.count + 1), 0);
		if (rlog_log_durable(r->l) > r->now.count)
			fail_msg("seed=%llu: durable behind the end", (unsigned long long)r->seed);
	} else if (what < 62 && !r->in_flight) {
		if (draw(r) % 20 == 0)
			memdisk_power_fail_at(r->m, 1 + draw(r) % 7);
		else if (draw(r) % 20 == 0)
			memdisk_set_capacity(r->m, 1);
		err = rlog_log_write_begin(r->l, &w);
		memdisk_set_capacity(r->m, 0);
		if (err == 1 && !memdisk_is_off(r->m)) {
			memdisk_write_start(r->m, &w);
			r->written = r->now;
			r->written.count = last_of_write(r->m, &w);
			r->in_flight = true;
		} else if (err < 0 && err != -ENOSPC) {
			assert_true(memdisk_is_off(r->m));
		}
		if (memdisk_is_off(r->m))
			random_crash(r, r->term);
	} else if (what < 85 && r->in_flight) {
		rlog_log_write_end(r->l, memdisk_write_finish(r->m));
		if (memdisk_is_off(r->m)) {
			random_crash(r, r->term);
			return;
		}
		r->in_flight = false;
		r->durable = r->written;
	} else if (what < 88) {
		rlog_log_applied(r->l, draw(r) % (rlog_log_durable(r->l) + 1));
	} else if (what < 91) {
		if (draw(r) % 4 == 0)
			memdisk_power_fail_at(r->m, 1);
		err = rlog_log_set_meta(r->l, r->term + 1, draw(r));
		if (err < 0)
			random_crash(r, r->term + 1);
		else
			r->term++;
	} else if (what < 95 && r->now.count > 0) {
		uint64_t i = draw(r) % r->now.count;

		assert_entry(r->l, i + 1, r->now.at[i].term, r->now.at[i].number, r->now.at[i].len);
	} else if (what < 96) {
		random_crash(r, r->term);
	} else if (what < 97 && !r->in_flight) {
		memdisk_power_fail_at(r->m, 0);
		rlog_log_close(r->l);
		r->l = open_log(r->m);
		if (!model_equal(r->l, &r->durable))
			fail_msg("seed=%llu: changed by closing", (unsigned long long)r->seed);
		r->now = r->durable;
	}
}

static void random_run(uint64_t seed)
{
	struct random_run *r = calloc(1, sizeof(*r));

	r->seed = r->random = seed;
	r->m = disk_with_log(seed);
	r->l = open_log(r->m);
	for (int i = 0; i < 400; i++) {
		random_step(r);
		assert_int_equal(rlog_log_last(r->l), r->now.count);
	}
	random_crash(r, r->term);
	rlog_log_close(r->l);
	memdisk_free(r->m);
	free(r);
}

/* RLOG_TEST_SEED repeats one run, RLOG_TEST_RUNS sets how many there are. */
static void random_steps_and_crashes_match_the_model(void **state)
{
	const char *seed = getenv("RLOG_TEST_SEED"), *runs = getenv("RLOG_TEST_RUNS");
	uint64_t first = seed ? strtoull(seed, NULL, 0) : 1;
	uint64_t count = runs ? strtoull(runs, NULL, 0) : seed ? 1 : 150;

	(void)state;
	print_message("# seeds %llu to %llu\n", (unsigned long long)first,
		      (unsigned long long)(first + count - 1));
	for (uint64_t i = first; i < first + count; i++)
		random_run(i);
}

/* ---- the real disk ------------------------------------------------------------------------ */

static void real_disk_keeps_the_log(void **state)
{
	char dir[] = "/tmp/test_raftlog_XXXXXX", command[64], errmsg[RLOG_ERRMSG_SIZE] = "";
	struct rlog_log_options o = options;
	struct rlog_disk *d;
	struct rlog_log *l;

	(void)state;
	o.segment_bytes = 0;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(rlog_disk_open(&d, "/nonexistent"), -ENOENT);
	assert_int_equal(rlog_disk_open(&d, dir), 0);
	assert_int_equal(rlog_log_open(&l, d, &o, errmsg), -ENOENT);
	assert_int_equal(rlog_log_create(d, &o, NULL, errmsg), 0);
	for (int pass = 0; pass < 2; pass++) {
		assert_int_equal(rlog_log_open(&l, d, &o, errmsg), 0);
		if (pass == 0)
			assert_int_equal(rlog_log_set_meta(l, 3, 2), 0);
		for (uint64_t i = 1; i <= 30; i++) {
			struct rlog_log_write w;

			if (pass == 1) {
				assert_entry(l, i, 3, i, i * 20000);
				continue;
			}
			append(l, 3, i, i * 20000);
			while (rlog_log_write_begin(l, &w) == 1)
				rlog_log_write_end(l, d->pwritev(d, w.handle, w.iov, w.iov_count,
								 w.offset));
			assert_int_equal(rlog_log_durable(l), i);
		}
		rlog_log_close(l);
	}
	rlog_disk_close(d);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(append_many_sizes_reads_back),
		cmocka_unit_test(append_batch_is_one_write),
		cmocka_unit_test(create_with_first_entry_holds_it),
		cmocka_unit_test(read_outside_log_is_enoent),
		cmocka_unit_test(cache_over_bound_keeps_unapplied_and_serves_the_rest_from_disk),
		cmocka_unit_test(segment_full_rolls_over),
		cmocka_unit_test(spare_made_ahead_is_taken_into_use),
		cmocka_unit_test(room_is_told_with_what_lies_behind_it),
		cmocka_unit_test(truncate_durable_then_append_survives_restart),
		cmocka_unit_test(truncate_staged_writes_nothing_of_it),
		cmocka_unit_test(truncate_in_flight_is_never_durable_again),
		cmocka_unit_test(torn_write_of_one_block_in_every_subset_is_whole_or_gone),
		cmocka_unit_test(torn_write_of_two_blocks_in_every_subset_is_whole_or_gone),
		cmocka_unit_test(torn_write_of_equal_bytes_again_does_not_revive_the_rest),
		cmocka_unit_test(flipped_bit_after_close_is_damage_with_file_and_offset),
		cmocka_unit_test(flipped_bit_after_crash_is_damage_except_in_the_last_write),
		cmocka_unit_test(segment_missing_is_damage),
		cmocka_unit_test(last_segment_missing_after_close_is_damage),
		cmocka_unit_test(all_segments_missing_is_damage),
		cmocka_unit_test(segment_duplicated_or_swapped_is_damage),
		cmocka_unit_test(old_content_of_a_block_is_damage),
		cmocka_unit_test(lost_replacement_of_an_entry_at_the_end_of_a_segment_is_damage),
		cmocka_unit_test(segment_cut_short_is_damage),
		cmocka_unit_test(segment_of_an_earlier_log_is_damage),
		cmocka_unit_test(other_cluster_or_node_is_refused_by_name),
		cmocka_unit_test(level_that_a_log_needs_outlives_power_failures_and_a_damaged_slot),
		cmocka_unit_test(level_raised_while_the_power_fails_is_the_old_or_the_new),
		cmocka_unit_test(entries_later_than_the_term_are_damage),
		cmocka_unit_test(unknown_files_are_left_alone_and_spares_removed),
		cmocka_unit_test(write_failed_poisons_the_log),
		cmocka_unit_test(disk_full_at_new_segment_can_be_tried_again),
		cmocka_unit_test(disk_full_at_each_call_of_a_new_segment_can_be_tried_again),
		cmocka_unit_test(io_error_at_each_call_of_a_new_segment_poisons),
		cmocka_unit_test(crash_during_each_call_of_a_new_segment_keeps_what_was_durable),
		cmocka_unit_test(random_steps_and_crashes_match_the_model),
		cmocka_unit_test(real_disk_keeps_the_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
