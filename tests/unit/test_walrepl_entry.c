/* Entries: what was encoded comes back, and damaged bytes are refused. The buffers are exactly as long
 * as the entry, so the address sanitizer sees a read behind the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "entry.h"
#include "pagesum.h"
#include "walrepl.h"

static uint64_t seed, rng;

static uint64_t random64(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng * UINT64_C(0x2545f4914f6cdd1d);
}

static uint32_t random_below(uint32_t n)
{
	return (uint32_t)((random64() >> 32) % n);
}

static int setup(void **state)
{
	const char *given = getenv("WREP_TEST_SEED");

	(void)state;
	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) << 16 ^ (uint64_t)getpid();
	rng = seed | 1;
	return 0;
}

#define check(cond)                                                      \
	do {                                                             \
		if (!(cond)) {                                           \
			print_error("repeat with WREP_TEST_SEED=%llu\n", \
				    (unsigned long long)seed);           \
			assert_true(cond);                               \
		}                                                        \
	} while (0)

/* A random valid entry with `image_count` images, encoded. */
static struct rlog_buf *random_images(struct wrep_entry *e, enum wrep_entry_type type,
				      uint32_t page_size, uint32_t image_count)
{
	uint32_t pgno = random_below(100);
	struct rlog_buf *buf;

	memset(e, 0, sizeof(*e));
	e->type = type;
	e->db_id = random64() | 1;
	e->origin = random64();
	e->sequence = random64();
	e->part = random_below(3);
	e->page_size = page_size;
	e->image_count = image_count;
	if (type == WREP_ENTRY_COMMIT) {
		e->commit_mode = random_below(2) + 1;
		e->base_version = random64();
		e->checksum = random64();
		e->page_count = UINT32_MAX;
		e->total_pages = e->part == 0 ? image_count : image_count + random_below(50);
	}
	if (type == WREP_ENTRY_COMMIT && e->part > 0 && image_count == 0)
		e->dropped_count = random_below(4);
	buf = image_count == 0 && e->dropped_count == 0 ? wrep_entry_encode(e)
							: wrep_entry_alloc(e);
	check(buf != NULL);
	for (uint32_t i = 0; i < e->dropped_count; i++)
		wrep_entry_set_dropped(e, i, pgno += random_below(3) + 1);
	for (uint32_t i = 0; i < image_count; i++) {
		do
			pgno += random_below(3) + 1;
		while (pgno == wrep_lock_page(page_size));
		wrep_entry_set_pgno(e, i, pgno);
		memset((uint8_t *)e->images + (size_t)i * page_size, (int)random_below(256),
		       page_size);
	}
	return buf;
}

static struct rlog_buf *random_entry(struct wrep_entry *e)
{
	enum wrep_entry_type type = random_below(6) + 1;
	struct rlog_buf *buf;

	if (type == WREP_ENTRY_PAGES)
		return random_images(e, type, 512u << random_below(3), random_below(4) + 1);
	if (type == WREP_ENTRY_COMMIT)
		return random_images(e, type, 512u << random_below(3), random_below(4));
	memset(e, 0, sizeof(*e));
	e->type = type;
	e->db_id = type == WREP_ENTRY_CREATE ? 0 : random64() | 1;
	if (type == WREP_ENTRY_CREATE)
		memset(e->name, 'n', random_below(WREP_NAME_MAX) + 1);
	if (type == WREP_ENTRY_DISCARD) {
		e->origin = random64();
		e->sequence = random64();
	} else if (type != WREP_ENTRY_UNLINK) {
		e->mode = random_below(0200000);
		e->uid = (uint32_t)random64();
		e->gid = (uint32_t)random64();
	}
	if (type == WREP_ENTRY_SETATTR) {
		e->attr_valid = random_below(16);
		e->atime_ns = (int64_t)random64();
		e->mtime_ns = (int64_t)random64();
		e->atime_omit = random_below(2);
		e->mtime_omit = random_below(2);
	}
	buf = wrep_entry_encode(e);
	check(buf != NULL);
	return buf;
}

static void check_equal(const struct wrep_entry *a, const struct wrep_entry *b)
{
	check(a->type == b->type);
	check(strcmp(a->name, b->name) == 0);
	check(a->db_id == b->db_id);
	check(a->mode == b->mode && a->uid == b->uid && a->gid == b->gid);
	check(a->attr_valid == b->attr_valid);
	check(a->atime_ns == b->atime_ns && a->mtime_ns == b->mtime_ns);
	check(a->atime_omit == b->atime_omit && a->mtime_omit == b->mtime_omit);
	check(a->origin == b->origin && a->sequence == b->sequence && a->part == b->part);
	check(a->commit_mode == b->commit_mode && a->base_version == b->base_version);
	check(a->checksum == b->checksum && a->page_count == b->page_count);
	check(a->total_pages == b->total_pages && a->page_size == b->page_size);
	check(a->image_count == b->image_count);
	for (uint32_t i = 0; i < a->image_count; i++)
		check(wrep_entry_pgno(a, i) == wrep_entry_pgno(b, i));
	check(a->dropped_count == b->dropped_count);
	for (uint32_t i = 0; i < a->dropped_count; i++)
		check(wrep_entry_dropped(a, i) == wrep_entry_dropped(b, i));
	if (a->image_count > 0)
		check(memcmp(a->images, b->images, (size_t)a->image_count * a->page_size) == 0);
}

static void random_entries_come_back(void **state)
{
	(void)state;
	for (int round = 0; round < 5000; round++) {
		struct wrep_entry in, out;
		struct rlog_buf *buf = random_entry(&in);

		check(wrep_entry_decode(buf, &out) == 0);
		check_equal(&in, &out);
		rlog_buf_unref(buf);
	}
}

static void every_page_size_comes_back(void **state)
{
	(void)state;
	for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
		struct wrep_entry in, out;
		uint32_t count = wrep_entry_images_max(page_size);
		struct rlog_buf *buf = random_images(&in, WREP_ENTRY_COMMIT, page_size, count);

		check(buf->len <= WREP_ENTRY_BYTES);
		check(wrep_entry_decode(buf, &out) == 0);
		check_equal(&in, &out);
		rlog_buf_unref(buf);
		buf = random_images(&in, WREP_ENTRY_COMMIT, page_size, count + 1);
		check(wrep_entry_decode(buf, &out) == -EBADMSG);
		rlog_buf_unref(buf);
	}
}

static void every_truncation_and_extension_is_refused(void **state)
{
	(void)state;
	for (int round = 0; round < 200; round++) {
		struct wrep_entry in, out;
		struct rlog_buf *buf = random_entry(&in);

		for (size_t len = 0; len <= buf->len + 9; len++) {
			struct rlog_buf *other = rlog_buf_new(len);
			size_t kept = len < buf->len ? len : buf->len;

			if (len == buf->len) {
				rlog_buf_unref(other);
				continue;
			}
			memset(other->data, 0, len);
			memcpy(other->data, buf->data, kept);
			/* A name has no end of its own: its length is in front. */
			check(wrep_entry_decode(other, &out) == -EBADMSG);
			rlog_buf_unref(other);
		}
		rlog_buf_unref(buf);
	}
}

/* Whatever decodes must keep the promises of the header, and encode to the same bytes. */
static void check_promises(const struct rlog_buf *buf, const struct wrep_entry *e)
{
	struct wrep_entry copy = *e;
	struct rlog_buf *again;

	if (e->type == WREP_ENTRY_PAGES || e->type == WREP_ENTRY_COMMIT) {
		uint32_t last = 0;

		for (uint32_t i = 0; i < e->image_count; i++) {
			uint32_t pgno = wrep_entry_pgno(e, i);

			check(pgno > last && pgno != wrep_lock_page(e->page_size));
			check(e->type == WREP_ENTRY_PAGES || pgno <= e->page_count);
			last = pgno;
		}
		last = 0;
		for (uint32_t i = 0; i < e->dropped_count; i++) {
			uint32_t pgno = wrep_entry_dropped(e, i);

			check(pgno > last && pgno <= e->page_count);
			last = pgno;
		}
		check(e->image_count <= (e->page_size ? buf->len / e->page_size : 0));
		check(!e->dropped_count || (e->image_count == 0 && e->part > 0));
		again = wrep_entry_alloc(&copy);
		check(again != NULL && again->len == buf->len);
		for (uint32_t i = 0; i < e->image_count; i++)
			wrep_entry_set_pgno(&copy, i, wrep_entry_pgno(e, i));
		for (uint32_t i = 0; i < e->dropped_count; i++)
			wrep_entry_set_dropped(&copy, i, wrep_entry_dropped(e, i));
		memcpy((uint8_t *)copy.images, e->images, (size_t)e->image_count * e->page_size);
	} else {
		check(strchr(e->name, '/') == NULL);
		again = wrep_entry_encode(e);
		check(again != NULL && again->len == buf->len);
	}
	again->data[1] = buf->data[1]; /* it may have been turned into an older version */
	check(memcmp(again->data, buf->data, buf->len) == 0);
	rlog_buf_unref(again);
}

static void random_damage_is_refused_or_harmless(void **state)
{
	int refused = 0;

	(void)state;
	for (int round = 0; round < 200000; round++) {
		struct wrep_entry in, out;
		struct rlog_buf *buf = random_entry(&in);

		for (uint32_t n = random_below(4) + 1; n > 0; n--) {
			/* Mostly in the header and in the page numbers, where it matters. */
			size_t at =
				random_below(4) == 0 ? random_below((uint32_t)buf->len)
				: random_below(3) == 0
					? buf->len - 1 -
						  random_below(buf->len < 16 ? (uint32_t)buf->len
									     : 16)
					: random_below(buf->len < 72 ? (uint32_t)buf->len : 72);

			buf->data[at] = random_below(2) ? (uint8_t)random_below(256)
							: buf->data[at] ^ 1u << random_below(8);
		}
		if (wrep_entry_decode(buf, &out) == 0)
			check_promises(buf, &out);
		else
			refused++;
		rlog_buf_unref(buf);
	}
	check(refused > 1000);
}

static int decode_changed(struct wrep_entry *e)
{
	struct wrep_entry out;
	struct rlog_buf *buf = wrep_entry_encode(e);
	int rc = wrep_entry_decode(buf, &out);

	rlog_buf_unref(buf);
	return rc;
}

static void names_that_are_no_names_are_refused(void **state)
{
	static const char *const names[] = {".", "..", "a/b", "/"};
	struct wrep_entry e = {.type = WREP_ENTRY_CREATE, .mode = 0100644};

	(void)state;
	strcpy(e.name, "a.db");
	assert_int_equal(decode_changed(&e), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		strcpy(e.name, names[i]);
		assert_int_equal(decode_changed(&e), -EBADMSG);
	}
}

static void commit_of_an_empty_database_has_no_page_size(void **state)
{
	struct wrep_entry e = {.type = WREP_ENTRY_COMMIT,
			       .db_id = 1,
			       .commit_mode = WREP_COMMIT_ROLLBACK};

	(void)state;
	assert_int_equal(decode_changed(&e), 0);
	e.page_count = 1;
	assert_int_equal(decode_changed(&e), -EBADMSG);
	e.page_size = 4096;
	assert_int_equal(decode_changed(&e), 0);
	e.page_size = 4097;
	assert_int_equal(decode_changed(&e), -EBADMSG);
	e.page_size = 131072;
	assert_int_equal(decode_changed(&e), -EBADMSG);
	e.page_size = 256;
	assert_int_equal(decode_changed(&e), -EBADMSG);
}

static void page_numbers_out_of_order_or_range_are_refused(void **state)
{
	struct wrep_entry e = {.type = WREP_ENTRY_COMMIT,
			       .db_id = 1,
			       .commit_mode = WREP_COMMIT_WAL,
			       .page_size = 65536,
			       .page_count = 20000,
			       .total_pages = 2,
			       .image_count = 2};
	struct wrep_entry out;
	struct rlog_buf *buf = wrep_entry_alloc(&e);
	static const struct {
		uint32_t a, b;
		int rc;
	} cases[] = {
		{1, 2, 0},	   {1, 20000, 0},	 {2, 1, -EBADMSG},     {2, 2, -EBADMSG},
		{0, 1, -EBADMSG},  {1, 20001, -EBADMSG}, {1, 16385, -EBADMSG}, /* the lock page */
		{16384, 16386, 0},
	};

	(void)state;
	memset((uint8_t *)e.images, 7, 2 * 65536);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		wrep_entry_set_pgno(&e, 0, cases[i].a);
		wrep_entry_set_pgno(&e, 1, cases[i].b);
		assert_int_equal(wrep_entry_decode(buf, &out), cases[i].rc);
	}
	rlog_buf_unref(buf);
}

/* What a data directory of an earlier release holds. */
static void entries_of_the_first_version_are_read(void **state)
{
	(void)state;
	for (int round = 0; round < 1000; round++) {
		struct wrep_entry in, out;
		struct rlog_buf *buf = random_entry(&in);

		buf->data[1] = 1;
		check(wrep_entry_decode(buf, &out) == (in.dropped_count ? -EBADMSG : 0));
		if (!in.dropped_count)
			check_equal(&in, &out);
		buf->data[1] = random_below(2) ? 0 : 3;
		check(wrep_entry_decode(buf, &out) == -EBADMSG);
		rlog_buf_unref(buf);
	}
}

static void dropped_pages_belong_to_parts(void **state)
{
	struct wrep_entry e = {.type = WREP_ENTRY_COMMIT,
			       .db_id = 1,
			       .commit_mode = WREP_COMMIT_WAL,
			       .part = 3,
			       .page_size = 4096,
			       .page_count = 100,
			       .total_pages = 7,
			       .dropped_count = 2};
	struct wrep_entry out;
	struct rlog_buf *buf = wrep_entry_alloc(&e);
	static const struct {
		uint32_t a, b;
		int rc;
	} cases[] = {
		{1, 100, 0},	  {2, 1, -EBADMSG},   {2, 2, -EBADMSG},
		{0, 1, -EBADMSG}, {1, 101, -EBADMSG},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		wrep_entry_set_dropped(&e, 0, cases[i].a);
		wrep_entry_set_dropped(&e, 1, cases[i].b);
		assert_int_equal(wrep_entry_decode(buf, &out), cases[i].rc);
	}
	wrep_entry_set_dropped(&e, 0, 1);
	wrep_entry_set_dropped(&e, 1, 2);
	buf->data[4] = 0; /* without a part */
	assert_int_equal(wrep_entry_decode(buf, &out), -EBADMSG);
	buf->data[4] = 3;
	assert_int_equal(wrep_entry_decode(buf, &out), 0);
	memset(buf->data + 32, 0, 4); /* of an emptied database */
	memset(buf->data + 56, 0, 8);
	assert_int_equal(wrep_entry_decode(buf, &out), -EBADMSG);
	rlog_buf_unref(buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(random_entries_come_back, setup),
		cmocka_unit_test_setup(every_page_size_comes_back, setup),
		cmocka_unit_test_setup(every_truncation_and_extension_is_refused, setup),
		cmocka_unit_test_setup(random_damage_is_refused_or_harmless, setup),
		cmocka_unit_test(names_that_are_no_names_are_refused),
		cmocka_unit_test(commit_of_an_empty_database_has_no_page_size),
		cmocka_unit_test(page_numbers_out_of_order_or_range_are_refused),
		cmocka_unit_test_setup(entries_of_the_first_version_are_read, setup),
		cmocka_unit_test(dropped_pages_belong_to_parts),
	};

	return cmocka_run_group_tests_name("walrepl_entry", tests, NULL, NULL);
}
