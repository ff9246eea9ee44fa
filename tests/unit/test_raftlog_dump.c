/* Dumping a log for people: everything is told, damage is named, nothing is written. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <raft.h>

#include "../rig/log_rig.h"
#include "log/compact.h"
#include "log/meta.h"
#include "log/segment.h"
#include "offline/dump.h"

/* ---- helpers ------------------------------------------------------------------------------ */

/* All that a dump told. */
struct told {
	struct rlog_dump_node node;
	unsigned nodes;
	struct {
		struct rlog_dump_segment segment;
		char file[32];
		unsigned entries;
		uint64_t end; /* of the last record told */
	} segments[8];
	unsigned segment_count;
	struct {
		struct rlog_dump_entry entry;
		uint8_t first_byte;
		struct rlog_member member;
	} entries[64];
	unsigned entry_count;
	unsigned stop_at; /* entry number; 0: never */
	struct rlog_dump_end end;
	char errmsg[RLOG_ERRMSG_SIZE];
};

static int tell_node(void *arg, const struct rlog_dump_node *node)
{
	struct told *t = arg;

	t->node = *node;
	t->nodes++;
	return 0;
}

static int tell_segment(void *arg, const struct rlog_dump_segment *segment)
{
	struct told *t = arg;

	assert_true(t->segment_count < 8);
	t->segments[t->segment_count].segment = *segment;
	strcpy(t->segments[t->segment_count++].file, segment->file);
	return 0;
}

static int tell_entry(void *arg, const struct rlog_dump_entry *entry)
{
	struct told *t = arg;
	unsigned i = t->entry_count++;

	assert_true(i < 64 && t->segment_count > 0);
	assert_string_equal(entry->file, t->segments[t->segment_count - 1].file);
	t->entries[i].entry = *entry;
	if (entry->type == RLOG_DUMP_COMMAND) {
		assert_int_equal(entry->buf->len, entry->bytes);
		if (entry->bytes > 0)
			t->entries[i].first_byte = entry->buf->data[0];
	} else {
		assert_null(entry->buf);
	}
	if (entry->member_count > 0)
		t->entries[i].member = entry->members[0];
	if (entry->type != RLOG_DUMP_TRUNCATION)
		t->segments[t->segment_count - 1].entries++;
	t->segments[t->segment_count - 1].end = entry->offset + rlog_record_bytes(entry->bytes);
	return t->stop_at != 0 && t->entry_count == t->stop_at ? 42 : 0;
}

static const struct rlog_dump_ops ops = {
	.node = tell_node,
	.segment = tell_segment,
	.entry = tell_entry,
};

/* Dumps, and checks what holds of every dump. */
static int dump(struct memdisk *m, struct told *t)
{
	unsigned changes = memdisk_changes(m), stop_at = t->stop_at;
	bool whole;
	int rv;

	memset(t, 0, sizeof(*t));
	t->stop_at = stop_at;
	rv = rlog_dump_disk(memdisk_disk(m), &ops, t, &t->end, t->errmsg);
	assert_int_equal(memdisk_changes(m), changes);
	assert_int_equal(rv == -EBADMSG, t->end.damage != NULL);
	/* Everything was told that was counted, but for what a callback or its content ended. */
	whole = rv != 42 && !(t->end.damage && strstr(t->end.damage, "membership"));
	for (unsigned i = 0; whole && i < t->segment_count; i++) {
		assert_int_equal(t->segments[i].entries, t->segments[i].segment.entries);
		assert_int_equal(t->segments[i].segment.all_bytes, SMALL_SEGMENT);
		if (t->segments[i].end > 0)
			assert_int_equal(t->segments[i].end, t->segments[i].segment.used_bytes);
		else
			assert_int_equal(t->segments[i].segment.used_bytes, RLOG_BLOCK);
	}
	return rv;
}

static void assert_damage(struct memdisk *m, struct told *t, const char *file, uint64_t offset)
{
	char place[96];

	assert_int_equal(dump(m, t), -EBADMSG);
	assert_string_equal(t->end.damage_file, file);
	assert_int_equal(t->end.damage_offset, offset);
	snprintf(place, sizeof(place), "file=%s offset=%llu ", file, (unsigned long long)offset);
	if (!strstr(t->errmsg, place) || !strstr(t->errmsg, "join again"))
		fail_msg("expected \"%s\" in \"%s\"", place, t->errmsg);
}

/* Each entry a write of its own. */
static void append(struct memdisk *m, struct rlog_log *l, uint64_t term, uint8_t type, uint8_t byte,
		   size_t len)
{
	struct rlog_record r = {.index = rlog_log_last(l) + 1, .term = term, .type = type};

	r.buf = rlog_buf_new(len);
	assert_non_null(r.buf);
	memset(r.buf->data, byte, len);
	assert_int_equal(rlog_log_append(l, &r, 1), 0);
	rlog_buf_unref(r.buf);
	write_all(m, l);
}

/* Ten commands of 3000 bytes, three to a segment. */
static struct memdisk *disk_with_ten(void)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);

	rlog_log_set_meta(l, 1, NODE);
	for (uint8_t i = 1; i <= 10; i++)
		append(m, l, 1, RAFT_COMMAND, i, 3000);
	rlog_log_close(l);
	return m;
}

/* ---- tests -------------------------------------------------------------------------------- */

static void log_of_many_segments_is_told_in_order(void **state)
{
	struct memdisk *m = disk_with_ten();
	struct told t = {0};

	(void)state;
	assert_int_equal(dump(m, &t), 0);
	assert_int_equal(t.nodes, 1);
	assert_int_equal(t.node.id, NODE);
	assert_int_equal(t.node.cluster_id, CLUSTER);
	assert_int_equal(t.node.term, 1);
	assert_int_equal(t.node.voted_for, NODE);
	assert_false(t.node.torn);
	assert_true(t.segment_count > 2);
	assert_string_equal(t.segments[1].file, SEGMENT_2);
	for (unsigned i = 0, next = 1; i < t.segment_count; i++) {
		assert_int_equal(t.segments[i].segment.first_index, next);
		assert_int_equal(t.segments[i].segment.state,
				 i + 1 < t.segment_count ? RLOG_SEGMENT_FULL : RLOG_SEGMENT_LAST);
		next += (unsigned)t.segments[i].segment.entries;
	}
	assert_int_equal(t.entry_count, 10);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(t.entries[i].entry.index, i + 1);
		assert_int_equal(t.entries[i].entry.term, 1);
		assert_int_equal(t.entries[i].entry.type, RLOG_DUMP_COMMAND);
		assert_int_equal(t.entries[i].entry.bytes, 3000);
		assert_int_equal(t.entries[i].first_byte, i + 1);
		assert_false(t.entries[i].entry.dropped);
	}
	assert_int_equal(t.end.torn_bytes, 0);
	memdisk_free(m);
}

static void log_without_entries_is_told(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct told t = {0};

	(void)state;
	assert_int_equal(dump(m, &t), 0);
	assert_int_equal(t.segment_count, 1);
	assert_int_equal(t.segments[0].segment.state, RLOG_SEGMENT_LAST);
	assert_int_equal(t.entry_count, 0);
	assert_int_equal(t.node.voted_for, 0);
	memdisk_free(m);
}

static void truncations_mark_what_they_drop(void **state)
{
	/* index, dropped; 0 stands for a truncation */
	static const struct {
		uint64_t index;
		bool dropped, truncation;
	} expected[] = {
		{1, false, false}, {2, false, false}, {3, true, false}, {4, true, false},
		{4, false, true},  {4, true, false},  {5, true, false}, {3, false, true},
		{3, false, false}, {4, true, false},  {4, false, true}, {4, false, false},
	};
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);
	struct told t = {0};

	(void)state;
	rlog_log_set_meta(l, 9, 0);
	for (unsigned i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		if (expected[i].truncation)
			rlog_log_truncate(l, expected[i].index);
		else
			append(m, l, 1 + i / 4, RAFT_COMMAND, (uint8_t)i, 8);
	}
	rlog_log_close(l);
	assert_int_equal(dump(m, &t), 0);
	assert_int_equal(t.entry_count, sizeof(expected) / sizeof(expected[0]));
	for (unsigned i = 0; i < t.entry_count; i++) {
		assert_int_equal(t.entries[i].entry.index, expected[i].index);
		assert_int_equal(t.entries[i].entry.dropped, expected[i].dropped);
		assert_int_equal(t.entries[i].entry.type,
				 expected[i].truncation ? RLOG_DUMP_TRUNCATION : RLOG_DUMP_COMMAND);
	}
	memdisk_free(m);
}

static void damage_in_the_middle_is_named_and_ends_the_dump(void **state)
{
	struct memdisk *m = disk_with_ten();
	struct told whole = {0}, t = {0};

	(void)state;
	assert_int_equal(dump(m, &whole), 0);
	for (unsigned i = 0; i < whole.entry_count; i++) {
		struct memdisk *copy = memdisk_clone(m, 1);
		const struct rlog_dump_entry *entry = &whole.entries[i].entry;
		unsigned segment = 0;
		char file[32];

		while (i >= whole.segments[segment].segment.first_index - 1 +
				    whole.segments[segment].segment.entries)
			segment++;
		strcpy(file, whole.segments[segment].file);
		memdisk_file_flip(copy, file, entry->offset + 1000, 3);
		assert_damage(copy, &t, file, entry->offset);
		assert_int_equal(t.entry_count, i);
		assert_int_equal(t.segment_count, segment + 1);
		assert_int_equal(t.segments[segment].segment.state, RLOG_SEGMENT_DAMAGED);
		/* Damage at the start of a segment may have been told by the one behind. */
		assert_int_equal(t.end.segments_unread, whole.segment_count - segment - 1);
		memdisk_free(copy);
	}
	memdisk_free(m);
}

static void damage_of_a_header_names_offset_zero(void **state)
{
	struct memdisk *m = disk_with_ten();
	struct told t = {0};

	(void)state;
	memdisk_file_flip(m, SEGMENT_2, 70, 0);
	assert_damage(m, &t, SEGMENT_2, 0);
	assert_int_equal(t.segment_count, 1);
	assert_int_equal(t.segments[0].segment.state, RLOG_SEGMENT_FULL);
	assert_true(t.end.segments_unread >= 2);
	memdisk_free(m);
}

static void segment_missing_is_named(void **state)
{
	struct memdisk *m = disk_with_ten();
	struct told t = {0};

	(void)state;
	memdisk_file_remove(m, SEGMENT_2);
	assert_damage(m, &t, SEGMENT_2, 0);
	assert_int_equal(t.entry_count, 0);
	memdisk_free(m);
}

static void damage_of_term_and_vote_is_named(void **state)
{
	struct memdisk *m = disk_with_ten();
	struct told t = {0};

	(void)state;
	memdisk_file_flip(m, RLOG_META_NAME, 60, 0);
	memdisk_file_flip(m, RLOG_META_NAME, RLOG_BLOCK + 60, 0);
	assert_damage(m, &t, RLOG_META_NAME, 0);
	assert_int_equal(t.nodes, 0);
	memdisk_free(m);
}

static void log_of_a_level_not_known_here_is_not_read(void **state)
{
	struct memdisk *m = disk_with_ten();
	struct rlog_log *l = open_log(m);
	struct told t;

	(void)state;
	assert_int_equal(rlog_log_raise_format(l, RLOG_FORMAT_LEVEL + 1), 0);
	rlog_log_close(l);
	assert_int_equal(dump(m, &t), -ENOTSUP);
	assert_null(t.end.damage);
	assert_non_null(strstr(t.errmsg, "upgrade this node"));
	memdisk_free(m);
}

static void torn_update_of_the_term_is_told(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct told t = {0};

	(void)state;
	memdisk_file_flip(m, RLOG_META_NAME, RLOG_BLOCK + 60, 0);
	assert_int_equal(dump(m, &t), 0);
	assert_true(t.node.torn);
	memdisk_free(m);
}

static void term_older_than_the_log_is_damage(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);
	struct told t = {0};

	(void)state;
	rlog_log_set_meta(l, 2, 0);
	append(m, l, 3, RAFT_COMMAND, 1, 8);
	rlog_log_close(l);
	assert_damage(m, &t, RLOG_META_NAME, 0);
	assert_int_equal(t.entry_count, 1);
	memdisk_free(m);
}

static bool keep_every_other(void *arg, size_t sector)
{
	(void)arg;
	return sector % 2 == 0;
}

static void torn_write_is_told_and_left_alone(void **state)
{
	struct memdisk *m = disk_with_ten();
	struct rlog_log *l = open_log(m);
	struct rlog_record r = {.index = 11, .term = 1, .type = RAFT_COMMAND};
	struct rlog_log_write w;
	struct told t = {0};

	(void)state;
	r.buf = rlog_buf_new(3000);
	memset(r.buf->data, 0x5a, 3000);
	assert_int_equal(rlog_log_append(l, &r, 1), 0);
	rlog_buf_unref(r.buf);
	assert_int_equal(rlog_log_write_begin(l, &w), 1);
	memdisk_write_start(m, &w);
	memdisk_crash_keeping(m, keep_every_other, NULL);
	rlog_log_write_end(l, -EIO);
	rlog_log_close(l);
	for (int pass = 0; pass < 2; pass++) {
		assert_int_equal(dump(m, &t), 0);
		assert_int_equal(t.entry_count, 10);
		assert_int_equal(t.segments[t.segment_count - 1].segment.state, RLOG_SEGMENT_TORN);
		assert_true(t.end.torn_bytes > 1000);
	}
	memdisk_free(m);
}

static void membership_that_is_none_is_damage(void **state)
{
	struct memdisk *m = disk_with_log(1);
	struct rlog_log *l = open_log(m);
	struct told t = {0};

	(void)state;
	rlog_log_set_meta(l, 1, 0);
	append(m, l, 1, RAFT_BARRIER, 0, 8);
	append(m, l, 1, RAFT_CHANGE, 0xff, 24);
	rlog_log_close(l);
	assert_damage(m, &t, SEGMENT_1, RLOG_BLOCK + rlog_record_bytes(8));
	assert_int_equal(t.entry_count, 1);
	assert_int_equal(t.entries[0].entry.type, RLOG_DUMP_BARRIER);
	memdisk_free(m);
}

static void callback_ends_the_dump(void **state)
{
	struct memdisk *m = disk_with_ten();
	struct told t = {.stop_at = 4};

	(void)state;
	assert_int_equal(dump(m, &t), 42);
	assert_int_equal(t.entry_count, 4);
	memdisk_free(m);
}

static void real_directory_is_dumped_read_only(void **state)
{
	char base[] = "/tmp/rlog-dump-XXXXXX", dir[64], path[128];
	struct told t = {0};

	(void)state;
	assert_non_null(mkdtemp(base));
	snprintf(dir, sizeof(dir), "%s/raft", base);
	assert_int_equal(rlog_dump(dir, &ops, &t, &t.end, t.errmsg), -ENOENT);
	assert_non_null(strstr(t.errmsg, dir));
	assert_int_equal(rlog_bootstrap(dir, NODE, CLUSTER, "127.0.0.1:7000", t.errmsg), 0);
	assert_int_equal(rlog_dump(dir, &ops, &t, &t.end, t.errmsg), 0);
	assert_int_equal(t.segment_count, 1);
	assert_int_equal(t.entry_count, 1);
	assert_int_equal(t.entries[0].entry.type, RLOG_DUMP_MEMBERS);
	assert_int_equal(t.entries[0].entry.member_count, 1);
	assert_int_equal(t.entries[0].member.id, NODE);
	assert_int_equal(t.entries[0].member.role, RLOG_VOTER);
	assert_string_equal(t.entries[0].member.address, "127.0.0.1:7000");
	snprintf(path, sizeof(path), "%s/%s", dir, RLOG_META_NAME);
	unlink(path);
	snprintf(path, sizeof(path), "%s/%s", dir, SEGMENT_1);
	unlink(path);
	assert_int_equal(rmdir(dir), 0); /* nothing else was there */
	rmdir(base);
}

static void read_only_disk_refuses_changes(void **state)
{
	char dir[] = "/tmp/rlog-dump-XXXXXX";
	uint8_t byte = 0;
	struct iovec iov = {&byte, 1};
	struct rlog_disk *d;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(rlog_disk_open_read_only(&d, dir), 0);
	assert_int_equal(d->open(d, "a", true), -EROFS);
	assert_int_equal(d->open(d, "a", false), -ENOENT);
	assert_int_equal(d->pwritev(d, 0, &iov, 1, 0), -EROFS);
	assert_int_equal(d->rename(d, "a", "b"), -EROFS);
	assert_int_equal(d->unlink(d, "a"), -EROFS);
	assert_int_equal(d->sync_dir(d), -EROFS);
	rlog_disk_close(d);
	assert_int_equal(rmdir(dir), 0);
}

/* ---- with a snapshot ---------------------------------------------------------------------- */

static void snapshot_and_what_is_left_of_the_log_are_told(void **state)
{
	struct memdisk *m = disk_with_ten();
	struct rlog_log *l = open_log(m);
	struct told t = {0};

	(void)state;
	assert_int_equal(take_snapshot(m, l, 5, 1), 0);
	rlog_log_compact(l, 0);
	rlog_log_close(l);
	assert_int_equal(dump(m, &t), 0);
	assert_int_equal(t.node.snapshot_index, 5);
	assert_int_equal(t.node.snapshot_term, 1);
	assert_int_equal(t.entry_count, 6);
	assert_string_equal(t.segments[0].file, SEGMENT_2);
	assert_int_equal(t.segments[0].segment.first_index, 5);
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(t.entries[i].entry.index, i + 5);
		assert_int_equal(t.entries[i].first_byte, i + 5);
		assert_false(t.entries[i].entry.dropped);
	}
	memdisk_free(m);
}

static void log_that_begins_behind_the_snapshot_is_damage(void **state)
{
	struct memdisk *m = disk_with_ten();
	struct rlog_log *l = open_log(m);
	struct told t = {0};

	(void)state;
	assert_int_equal(take_snapshot(m, l, 5, 1), 0);
	rlog_log_compact(l, 0);
	rlog_log_close(l);
	memdisk_file_remove(m, SEGMENT_2);
	assert_damage(m, &t, RLOG_SNAPSHOT_NAME, 0);
	assert_int_equal(t.entry_count, 2);
	memdisk_free(m);
}

static void truncation_below_the_first_segment_left_drops_what_it_names(void **state)
{
	struct memdisk *m = disk_with_ten();
	struct rlog_log *l = open_log(m);
	struct told t = {0};

	(void)state;
	rlog_log_truncate(l, 3);
	append(m, l, 1, RAFT_COMMAND, 33, 3000);
	assert_int_equal(take_snapshot(m, l, 2, 1), 0);
	rlog_log_compact(l, 0);
	assert_int_equal(rlog_log_first(l), 3);
	rlog_log_close(l);
	assert_int_equal(dump(m, &t), 0);
	assert_int_equal(t.entry_count, 4);
	assert_int_equal(t.entries[0].entry.index, 9);
	assert_true(t.entries[0].entry.dropped);
	assert_true(t.entries[1].entry.dropped);
	assert_int_equal(t.entries[2].entry.type, RLOG_DUMP_TRUNCATION);
	assert_int_equal(t.entries[3].entry.index, 3);
	assert_false(t.entries[3].entry.dropped);
	memdisk_free(m);
}

static void log_that_began_anew_drops_what_is_left_in_front(void **state)
{
	struct memdisk *m = disk_with_ten();
	struct rlog_log *l = open_log(m);
	char name[RLOG_SEGMENT_NAME_SIZE];
	struct told t = {0};

	(void)state;
	rlog_segment_name(name, 3);
	memdisk_file_copy(m, name, "aside");
	rlog_log_truncate(l, 10);
	assert_int_equal(take_snapshot(m, l, 20, 1), 0);
	assert_int_equal(rlog_log_replace(l), 0);
	append(m, l, 1, RAFT_COMMAND, 21, 3000);
	rlog_log_close(l);
	memdisk_file_copy(m, "aside", name);
	assert_int_equal(dump(m, &t), 0);
	assert_int_equal(t.segment_count, 2);
	assert_int_equal(t.entry_count, 3);
	assert_int_equal(t.entries[0].entry.index, 9);
	assert_true(t.entries[0].entry.dropped);
	assert_true(t.entries[1].entry.dropped);
	assert_int_equal(t.entries[2].entry.index, 21);
	assert_false(t.entries[2].entry.dropped);
	memdisk_free(m);
}

static void snapshot_that_is_damaged_is_named(void **state)
{
	struct memdisk *m = disk_with_ten();
	struct rlog_log *l = open_log(m);
	struct told t = {0};

	(void)state;
	assert_int_equal(take_snapshot(m, l, 5, 1), 0);
	rlog_log_close(l);
	memdisk_file_flip(m, RLOG_SNAPSHOT_NAME, 9, 1);
	assert_damage(m, &t, RLOG_SNAPSHOT_NAME, 0);
	memdisk_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(log_of_many_segments_is_told_in_order),
		cmocka_unit_test(log_without_entries_is_told),
		cmocka_unit_test(truncations_mark_what_they_drop),
		cmocka_unit_test(damage_in_the_middle_is_named_and_ends_the_dump),
		cmocka_unit_test(damage_of_a_header_names_offset_zero),
		cmocka_unit_test(segment_missing_is_named),
		cmocka_unit_test(damage_of_term_and_vote_is_named),
		cmocka_unit_test(log_of_a_level_not_known_here_is_not_read),
		cmocka_unit_test(torn_update_of_the_term_is_told),
		cmocka_unit_test(term_older_than_the_log_is_damage),
		cmocka_unit_test(torn_write_is_told_and_left_alone),
		cmocka_unit_test(membership_that_is_none_is_damage),
		cmocka_unit_test(callback_ends_the_dump),
		cmocka_unit_test(real_directory_is_dumped_read_only),
		cmocka_unit_test(read_only_disk_refuses_changes),
		cmocka_unit_test(snapshot_and_what_is_left_of_the_log_are_told),
		cmocka_unit_test(log_that_begins_behind_the_snapshot_is_damage),
		cmocka_unit_test(truncation_below_the_first_segment_left_drops_what_it_names),
		cmocka_unit_test(log_that_began_anew_drops_what_is_left_in_front),
		cmocka_unit_test(snapshot_that_is_damaged_is_named),
	};

	return cmocka_run_group_tests_name("raftlog_dump", tests, NULL, NULL);
}
