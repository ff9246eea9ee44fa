/* Entries: what was encoded comes back, and damaged bytes are refused. The buffers are exactly as long
 * as the entry, so the address sanitizer sees a read behind the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>
#include "../rig/random.h"
#include "record/entry.h"
#include "sqlite/names.h"
#include "sqlite/file_format.h"
#include "walrepl.h"

static int setup(void **state)
{
	(void)state;
	random_begin();
	return 0;
}

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

static bool has_name(enum wrep_entry_type type)
{
	return type == WREP_ENTRY_CREATE || type == WREP_ENTRY_MKDIR || type == WREP_ENTRY_RENAME;
}

static void random_path(char name[WREP_NAME_MAX + 1])
{
	size_t len = random_below(WREP_NAME_MAX) + 1;

	memset(name, 'n', len);
	for (size_t i = 0; i + 1 < len; i += random_below(100) + 2)
		if (i > 0)
			name[i] = '/';
}

static struct rlog_buf *random_entry(struct wrep_entry *e)
{
	static const enum wrep_entry_type types[] = {
		WREP_ENTRY_CREATE, WREP_ENTRY_UNLINK,  WREP_ENTRY_SETATTR,
		WREP_ENTRY_PAGES,  WREP_ENTRY_COMMIT,  WREP_ENTRY_DISCARD,
		WREP_ENTRY_MKDIR,  WREP_ENTRY_RMDIR,   WREP_ENTRY_RENAME,
	};
	enum wrep_entry_type type = types[random_below(sizeof(types) / sizeof(types[0]))];
	struct rlog_buf *buf;

	if (type == WREP_ENTRY_PAGES)
		return random_images(e, type, 512u << random_below(3), random_below(4) + 1);
	if (type == WREP_ENTRY_COMMIT)
		return random_images(e, type, 512u << random_below(3), random_below(4));
	memset(e, 0, sizeof(*e));
	e->type = type;
	e->db_id = type == WREP_ENTRY_CREATE || type == WREP_ENTRY_MKDIR ? 0 : random64() | 1;
	if (has_name(type))
		random_path(e->name);
	if (type == WREP_ENTRY_RENAME)
		e->keep = random_below(2);
	if (type == WREP_ENTRY_DISCARD) {
		e->origin = random64();
		e->sequence = random64();
	} else if (type == WREP_ENTRY_CREATE || type == WREP_ENTRY_MKDIR ||
		   type == WREP_ENTRY_SETATTR) {
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
	check(a->db_id == b->db_id && a->keep == b->keep);
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
		check(!has_name(e->type) || wrep_names_path_valid(e->name, strlen(e->name)));
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
	static const char *const names[] = {".",    "..",    "a//b",      "/",	 "/a",
					    "a/",   "a/..",  "../a",      "a/./b", ".dqlitefs",
					    ".dqlitefs/x.db"};
	static const enum wrep_entry_type types[] = {WREP_ENTRY_CREATE, WREP_ENTRY_MKDIR,
						     WREP_ENTRY_RENAME};

	(void)state;
	for (size_t t = 0; t < 3; t++) {
		struct wrep_entry e = {.type = types[t], .mode = 0100644, .db_id = 7};

		strcpy(e.name, "a/b.db");
		assert_int_equal(decode_changed(&e), 0);
		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
			strcpy(e.name, names[i]);
			assert_int_equal(decode_changed(&e), -EBADMSG);
		}
		memset(e.name, 'n', 256);
		e.name[256] = '\0';
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

/* A group of COMMITs with these numbers of images. */
static struct rlog_buf *make_group(struct wrep_entry *members, const uint32_t *images,
				   uint32_t count)
{
	struct rlog_buf *buf;

	for (uint32_t i = 0; i < count; i++)
		members[i] = (struct wrep_entry){
			.type = WREP_ENTRY_COMMIT,
			.db_id = 5 + i * 3,
			.origin = 7,
			.sequence = 100 + i,
			.part = images[i] ? 0 : 2,
			.commit_mode = WREP_COMMIT_ROLLBACK,
			.base_version = 40 + i,
			.checksum = 1000 + i,
			.page_count = 90,
			.total_pages = images[i] ? images[i] : 80,
			.page_size = 512u << i % 4,
			.image_count = images[i],
		};
	buf = wrep_entry_alloc_group(members, count);
	assert_non_null(buf);
	for (uint32_t i = 0; i < count; i++) {
		for (uint32_t n = 0; n < images[i]; n++)
			wrep_entry_set_pgno(&members[i], n, n * 2 + 1);
		memset((uint8_t *)members[i].images, (int)(i + 1),
		       (size_t)images[i] * members[i].page_size);
	}
	return buf;
}

static void members_of_a_group_come_back(void **state)
{
	static const uint32_t images[] = {3, 0, 1, 7, 2};
	struct wrep_entry in[5], out;
	struct rlog_buf *buf = make_group(in, images, 5);
	size_t at = 0;

	(void)state;
	assert_int_equal(wrep_entry_decode(buf, &out), 0);
	assert_int_equal(out.type, WREP_ENTRY_GROUP);
	assert_int_equal(out.db_id, 0);
	assert_int_equal(out.member_count, 5);
	for (uint32_t i = 0; i < 5; i++) {
		assert_true(wrep_entry_member(buf, &at, &out));
		assert_int_equal(((uintptr_t)out.images - (uintptr_t)buf->data) % 8, 0);
		check_equal(&in[i], &out);
	}
	assert_false(wrep_entry_member(buf, &at, &out));
	rlog_buf_unref(buf);
}

static void group_that_is_cut_or_out_of_order_is_refused(void **state)
{
	static const uint32_t images[] = {1, 2};
	struct wrep_entry in[2], out;
	struct rlog_buf *buf = make_group(in, images, 2), *other;
	const size_t second = 16 + 8 + ((72 + 516 + 7) & ~7u) + 8;

	(void)state;
	for (size_t len = 0; len < buf->len + 9; len++) {
		other = rlog_buf_new(len);
		memset(other->data, 0, len);
		memcpy(other->data, buf->data, len < buf->len ? len : buf->len);
		assert_int_equal(wrep_entry_decode(other, &out), len == buf->len ? 0 : -EBADMSG);
		rlog_buf_unref(other);
	}
	for (int i = 0; i < 8; i++) {
		other = rlog_buf_new(buf->len);
		memcpy(other->data, buf->data, buf->len);
		switch (i) {
		case 0: /* the same database twice */
			other->data[second + 8] = 5;
			break;
		case 1: /* in descending order */
			other->data[second + 8] = 4;
			break;
		case 2: /* a member that is no COMMIT */
			other->data[second] = WREP_ENTRY_DISCARD;
			break;
		case 3: /* a group in a group */
			other->data[second] = WREP_ENTRY_GROUP;
			break;
		case 4: /* more members than there are */
			other->data[2] = 3;
			break;
		case 5: /* fewer */
			other->data[2] = 1;
			break;
		case 6: /* not zero in the padding */
			other->data[16 + 8 + 72 + 516] = 1;
			break;
		case 7: /* a database of its own */
			other->data[8] = 1;
			break;
		}
		assert_int_equal(wrep_entry_decode(other, &out), -EBADMSG);
		rlog_buf_unref(other);
	}
	rlog_buf_unref(buf);
}

static void group_of_full_members_fits_an_entry(void **state)
{
	(void)state;
	for (uint32_t count = 2; count <= 130; count++) {
		for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
			uint32_t max = wrep_entry_group_images_max(page_size, count);
			uint64_t each = 8 + ((72 + (uint64_t)max * (page_size + 4) + 7) & ~7ull);

			assert_true(16 + count * each <= WREP_ENTRY_BYTES);
			/* and not much is given away */
			assert_true(16 + count * (each + page_size + 4 + 16) > WREP_ENTRY_BYTES);
		}
	}
}

static void random_damage_of_a_group_is_refused_or_harmless(void **state)
{
	(void)state;
	for (int round = 0; round < 20000; round++) {
		uint32_t images[] = {random_below(3), random_below(3) + 1, random_below(2)};
		struct wrep_entry in[3], out;
		struct rlog_buf *buf = make_group(in, images, 2 + random_below(2));
		size_t at = 0, near = (size_t)((const uint8_t *)in[1].images - buf->data);

		for (uint32_t n = random_below(4) + 1; n > 0; n--)
			buf->data[random_below(random_below(2) ? (uint32_t)near
							       : (uint32_t)buf->len)] ^=
				(uint8_t)(1u << random_below(8));
		if (wrep_entry_decode(buf, &out) == 0 && out.type == WREP_ENTRY_GROUP)
			while (wrep_entry_member(buf, &at, &out))
				for (uint32_t i = 0; i < out.image_count; i++)
					check(wrep_entry_pgno(&out, i) <= out.page_count);
		rlog_buf_unref(buf);
	}
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
		cmocka_unit_test(members_of_a_group_come_back),
		cmocka_unit_test(group_that_is_cut_or_out_of_order_is_refused),
		cmocka_unit_test(group_of_full_members_fits_an_entry),
		cmocka_unit_test_setup(random_damage_of_a_group_is_refused_or_harmless, setup),
	};

	return cmocka_run_group_tests_name("walrepl_entry", tests, NULL, NULL);
}
