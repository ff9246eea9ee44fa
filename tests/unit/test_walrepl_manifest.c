/* The manifest's bytes: what is written is read, and nothing else is taken for one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include "record/manifest.h"

static void fill(struct wrep_manifest *m)
{
	struct wrep_manifest_db *d;

	memset(m, 0, sizeof(*m));
	m->redo_until = 77;
	for (unsigned i = 0; i < 40; i++) {
		d = wrep_manifest_add(m);
		assert_non_null(d);
		memset(d->name, 'a' + (int)(i % 26), i + 1);
		d->id = i + 1;
		d->version = 100 + i;
		d->index = 200 + i;
		d->checksum = UINT64_C(0x0123456789abcdef) * (i + 1);
		d->page_size = 512u << i % 8;
		d->page_count = 1000 + i;
		d->wal_mode = i % 2;
		d->wal_frames = i % 3 ? i : 0;
		d->wal_salt[0] = i;
		d->wal_salt[1] = ~i;
		d->gone = i % 5 == 0;
	}
	m->names_index = 300;
	for (unsigned i = 0; i < 20; i++) {
		struct wrep_manifest_dir *dir = wrep_manifest_add_dir(m);

		assert_non_null(dir);
		memset(dir->path, 'A' + (int)i, i + 1);
		dir->id = 100 + 2 * i;
		dir->mode = 0700 + i;
		dir->uid = i;
		dir->gid = 2 * i;
		dir->mtime_ns = -1 - (int64_t)i;
	}
}

static void round_trip_same(void **state)
{
	struct wrep_manifest m, back;
	struct rlog_buf *buf;

	(void)state;
	fill(&m);
	buf = wrep_manifest_encode(&m);
	assert_non_null(buf);
	assert_int_equal(wrep_manifest_decode(buf, &back), 0);
	assert_int_equal(back.redo_until, 77);
	assert_int_equal(back.count, m.count);
	for (size_t i = 0; i < m.count; i++)
		assert_memory_equal(&back.dbs[i], &m.dbs[i], sizeof(m.dbs[i]));
	back.dbs[3].id = 1000;
	wrep_manifest_sort(&back);
	assert_ptr_equal(wrep_manifest_find(&back, 1000), &back.dbs[back.count - 1]);
	assert_ptr_equal(wrep_manifest_find(&back, 40), &back.dbs[back.count - 2]);
	assert_ptr_equal(wrep_manifest_find(&back, 1), &back.dbs[0]);
	assert_null(wrep_manifest_find(&back, 4));
	assert_int_equal(back.names_index, 300);
	assert_int_equal(back.dir_count, m.dir_count);
	for (size_t i = 0; i < m.dir_count; i++)
		assert_memory_equal(&back.dirs[i], &m.dirs[i], sizeof(m.dirs[i]));
	assert_null(wrep_manifest_find(&back, 41));
	wrep_manifest_clear(&m);
	wrep_manifest_clear(&back);
	rlog_buf_unref(buf);
}

static const uint64_t groups[] = {80, 81, 95, UINT64_C(1) << 40};

static void groups_come_back(void **state)
{
	struct wrep_manifest m, back;
	struct rlog_buf *buf;

	(void)state;
	fill(&m);
	assert_int_equal(wrep_manifest_set_groups(&m, (UINT64_C(1) << 40) + 1, groups, 4), 0);
	buf = wrep_manifest_encode(&m);
	assert_int_equal(wrep_manifest_decode(buf, &back), 0);
	assert_int_equal(back.count, m.count);
	assert_int_equal(back.judged_until, (UINT64_C(1) << 40) + 1);
	assert_int_equal(back.group_count, 4);
	assert_memory_equal(back.groups, groups, sizeof(groups));
	wrep_manifest_clear(&back);
	rlog_buf_unref(buf);
	/* named twice, out of order, or not judged */
	for (int i = 0; i < 3; i++) {
		assert_int_equal(wrep_manifest_set_groups(&m, i == 2 ? 94 : 100, groups, 3), 0);
		if (i < 2)
			m.groups[1] = i == 0 ? 80 : 96;
		buf = wrep_manifest_encode(&m);
		assert_int_equal(wrep_manifest_decode(buf, &back), -EBADMSG);
		assert_null(back.groups);
		rlog_buf_unref(buf);
	}
	wrep_manifest_clear(&m);
}

/* Version 1 knew of no groups, version 2 of no directories. */
static void earlier_versions_are_read(void **state)
{
	struct wrep_manifest m, back;
	struct rlog_buf *buf, *old;

	(void)state;
	fill(&m);
	m.dir_count = 0;
	for (size_t i = 0; i < m.count; i++)
		m.dbs[i].gone = false;
	for (uint8_t version = 1; version <= 2; version++) {
		if (version == 2)
			assert_int_equal(wrep_manifest_set_groups(&m, 100, groups, 3), 0);
		buf = wrep_manifest_encode(&m);
		old = rlog_buf_new(buf->len - 16 - (version == 1 ? 8 : 0));
		memcpy(old->data, buf->data, old->len);
		old->data[4] = version;
		assert_int_equal(wrep_manifest_decode(old, &back), 0);
		assert_int_equal(back.count, m.count);
		assert_int_equal(back.group_count, version == 1 ? 0 : 3);
		assert_int_equal(back.judged_until, version == 1 ? 0 : 100);
		assert_int_equal(back.dir_count, 0);
		assert_int_equal(back.names_index, 0);
		wrep_manifest_clear(&back);
		old->data[20]++;
		assert_int_equal(wrep_manifest_decode(old, &back), -EBADMSG);
		old->data[20]--;
		old->data[4] = version + 1;
		assert_int_equal(wrep_manifest_decode(old, &back), -EBADMSG);
		rlog_buf_unref(old);
		rlog_buf_unref(buf);
	}
	wrep_manifest_clear(&m);
}

static void cut_or_longer_refused(void **state)
{
	struct wrep_manifest m, back;
	struct rlog_buf *buf, *other;

	(void)state;
	fill(&m);
	assert_int_equal(wrep_manifest_set_groups(&m, 100, groups, 3), 0);
	buf = wrep_manifest_encode(&m);
	for (size_t len = 0; len <= buf->len + 1; len++) {
		if (len == buf->len)
			continue;
		other = rlog_buf_new(len);
		memset(other->data, 0, len);
		memcpy(other->data, buf->data, len < buf->len ? len : buf->len);
		assert_int_equal(wrep_manifest_decode(other, &back), -EBADMSG);
		assert_null(back.dbs);
		rlog_buf_unref(other);
	}
	wrep_manifest_clear(&m);
	rlog_buf_unref(buf);
}

static void what_no_database_is_called_refused(void **state)
{
	static const char *const names[] = {"a//b", ".", "..", "", "/a", "a/", "a/../b", ".dqlitefs"};
	struct wrep_manifest back;

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct wrep_manifest m = {0};
		struct wrep_manifest_db *d = wrep_manifest_add(&m);
		struct rlog_buf *buf;

		strcpy(d->name, names[i]);
		d->id = 1;
		buf = wrep_manifest_encode(&m);
		assert_int_equal(wrep_manifest_decode(buf, &back), -EBADMSG);
		rlog_buf_unref(buf);
		strcpy(d->name, "a.db");
		d->page_count = 1;
		d->page_size = 1000;
		buf = wrep_manifest_encode(&m);
		assert_int_equal(wrep_manifest_decode(buf, &back), -EBADMSG);
		rlog_buf_unref(buf);
		wrep_manifest_clear(&m);
	}
}

static void directories_out_of_order_refused(void **state)
{
	struct wrep_manifest m, back;
	struct rlog_buf *buf;

	(void)state;
	fill(&m);
	m.dirs[3].id = m.dirs[2].id;
	buf = wrep_manifest_encode(&m);
	assert_int_equal(wrep_manifest_decode(buf, &back), -EBADMSG);
	rlog_buf_unref(buf);
	m.dirs[3].id = 1000;
	wrep_manifest_sort_dirs(&m);
	buf = wrep_manifest_encode(&m);
	assert_int_equal(wrep_manifest_decode(buf, &back), 0);
	wrep_manifest_clear(&back);
	rlog_buf_unref(buf);
	wrep_manifest_clear(&m);
}

static void copy_is_the_same(void **state)
{
	struct wrep_manifest m, copy = {0};
	struct rlog_buf *a, *b;

	(void)state;
	fill(&m);
	assert_int_equal(wrep_manifest_copy(&m, &copy), 0);
	a = wrep_manifest_encode(&m);
	b = wrep_manifest_encode(&copy);
	assert_int_equal(a->len, b->len);
	assert_memory_equal(a->data, b->data, a->len);
	rlog_buf_unref(a);
	rlog_buf_unref(b);
	wrep_manifest_clear(&m);
	wrep_manifest_clear(&copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip_same),
		cmocka_unit_test(groups_come_back),
		cmocka_unit_test(earlier_versions_are_read),
		cmocka_unit_test(cut_or_longer_refused),
		cmocka_unit_test(what_no_database_is_called_refused),
		cmocka_unit_test(directories_out_of_order_refused),
		cmocka_unit_test(copy_is_the_same),
	};

	return cmocka_run_group_tests_name("walrepl_manifest", tests, NULL, NULL);
}
