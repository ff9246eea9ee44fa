/* playback.c: what SQLite left in a -wal or -journal, and what it makes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pages/playback.h"
#include "sqlite/wal_format.h"

#define PAGE 512u

struct files {
	int dir_fd, base_fd, side_fd;
	struct wrep_overlay *overlay;
};

static void fill_page(uint8_t *page, uint8_t with)
{
	memset(page, with, PAGE);
}

/* A database of `pages` pages, page i full of i; the first says how large a page is. */
static int setup(void **state)
{
	struct files *f = calloc(1, sizeof *f);
	uint8_t page[PAGE];

	f->dir_fd = open("/tmp", O_RDONLY | O_DIRECTORY);
	f->base_fd = openat(f->dir_fd, ".", O_TMPFILE | O_RDWR, 0600);
	f->side_fd = openat(f->dir_fd, ".", O_TMPFILE | O_RDWR, 0600);
	assert_true(f->base_fd >= 0 && f->side_fd >= 0);
	for (uint8_t i = 1; i <= 4; i++) {
		fill_page(page, i);
		page[16] = PAGE >> 8;
		page[17] = 0;
		assert_int_equal(pwrite(f->base_fd, page, PAGE, (i - 1) * (off_t)PAGE), PAGE);
	}
	assert_int_equal(wrep_overlay_open(&f->overlay, f->dir_fd, 4 * PAGE), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct files *f = *state;

	wrep_overlay_close(f->overlay);
	close(f->base_fd);
	close(f->side_fd);
	close(f->dir_fd);
	free(f);
	return 0;
}

/* The last byte of page `pgno`; -1: behind the end. */
static int shown(struct files *f, uint32_t pgno)
{
	uint8_t byte;

	return wrep_overlay_read(f->overlay, f->base_fd, &byte, 1, (uint64_t)pgno * PAGE - 1) == 1
		       ? byte
		       : -1;
}

/* ---- a -wal ------------------------------------------------------------------------------------- */

struct frame {
	uint32_t pgno, page_count;
	uint8_t with;
};

static void write_wal(struct files *f, uint32_t page_size, const struct frame *frames,
		      unsigned count)
{
	struct wrep_wal_header h = {.page_size = page_size, .salt = {1, 2, 3, 4, 5, 6, 7, 8}};
	uint8_t bytes[WREP_FRAME_HEADER_BYTES], page[8192];
	uint32_t sum[2];

	wrep_wal_header_encode(&h, page);
	assert_int_equal(pwrite(f->side_fd, page, WREP_WAL_HEADER_BYTES, 0), WREP_WAL_HEADER_BYTES);
	memcpy(sum, h.sum, sizeof sum);
	for (unsigned i = 0; i < count; i++) {
		struct wrep_wal_frame frame = {.pgno = frames[i].pgno,
					       .page_count = frames[i].page_count};
		off_t at = (off_t)wrep_wal_frame_offset(page_size, i);

		memset(page, frames[i].with, page_size);
		wrep_wal_frame_encode(&h, sum, &frame, page, bytes);
		memcpy(sum, frame.sum, sizeof sum);
		assert_int_equal(pwrite(f->side_fd, bytes, sizeof bytes, at), sizeof bytes);
		assert_int_equal(pwrite(f->side_fd, page, page_size, at + (off_t)sizeof bytes),
				 page_size);
	}
}

static void wal_counts_up_to_its_last_commit(void **state)
{
	static const struct frame frames[] = {{2, 0, 20}, {6, 6, 60}, {2, 0, 21},
					      {3, 5, 31}, {1, 0, 99}, {5, 0, 99}};
	struct files *f = *state;

	write_wal(f, PAGE, frames, 6);
	assert_int_equal(wrep_playback_wal_holds(f->side_fd), 1);
	assert_int_equal(wrep_playback_wal(f->side_fd, f->overlay, f->base_fd), 0);
	assert_int_equal(shown(f, 1), 1);
	assert_int_equal(shown(f, 2), 21);
	assert_int_equal(shown(f, 3), 31);
	assert_int_equal(shown(f, 4), 4);
	assert_int_equal(wrep_overlay_size(f->overlay), 5 * PAGE);
}

static void wal_ends_at_the_first_frame_that_is_not_right(void **state)
{
	static const struct frame frames[] = {{2, 4, 20}, {3, 4, 30}, {4, 4, 40}};
	struct files *f = *state;

	write_wal(f, PAGE, frames, 3);
	assert_int_equal(pwrite(f->side_fd, "x", 1,
				(off_t)wrep_wal_frame_offset(PAGE, 1) + WREP_FRAME_HEADER_BYTES),
			 1);
	assert_int_equal(wrep_playback_wal(f->side_fd, f->overlay, f->base_fd), 0);
	assert_int_equal(shown(f, 2), 20);
	assert_int_equal(shown(f, 3), 3);
	assert_int_equal(shown(f, 4), 4);
}

static void wal_without_a_commit_holds_nothing(void **state)
{
	static const struct frame frames[] = {{2, 0, 20}, {3, 0, 30}};
	struct files *f = *state;

	assert_int_equal(wrep_playback_wal_holds(f->side_fd), 0);
	write_wal(f, PAGE, frames, 2);
	assert_int_equal(wrep_playback_wal_holds(f->side_fd), 0);
	assert_int_equal(wrep_playback_wal(f->side_fd, f->overlay, f->base_fd), 0);
	assert_false(wrep_overlay_dirty(f->overlay));
}

static void wal_of_another_page_size_is_refused(void **state)
{
	static const struct frame frames[] = {{2, 2, 20}};
	struct files *f = *state;

	write_wal(f, 1024, frames, 1);
	assert_int_equal(wrep_playback_wal(f->side_fd, f->overlay, f->base_fd), -EBADMSG);
	assert_false(wrep_overlay_dirty(f->overlay));
}

/* ---- a -journal --------------------------------------------------------------------------------- */

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void write_header(struct files *f, off_t at, uint32_t records, uint32_t pages)
{
	static const uint8_t magic[8] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};
	uint8_t sector[PAGE] = {0};

	memcpy(sector, magic, sizeof magic);
	put32(sector + 8, records);
	put32(sector + 12, 77); /* the nonce */
	put32(sector + 16, pages);
	put32(sector + 20, PAGE);
	put32(sector + 24, PAGE);
	assert_int_equal(pwrite(f->side_fd, sector, PAGE, at), PAGE);
}

static void write_record(struct files *f, off_t at, uint32_t pgno, uint8_t with, uint32_t wrong)
{
	uint8_t record[PAGE + 8];
	uint32_t sum = 77 + wrong;

	put32(record, pgno);
	fill_page(record + 4, with);
	for (int i = (int)PAGE - 200; i > 0; i -= 200)
		sum += record[4 + i];
	put32(record + 4 + PAGE, sum);
	assert_int_equal(pwrite(f->side_fd, record, sizeof record, at), sizeof record);
}

static void journal_brings_back_what_was(void **state)
{
	struct files *f = *state;

	write_header(f, 0, 2, 3);
	write_record(f, PAGE, 2, 20, 0);
	write_record(f, PAGE + PAGE + 8, 4, 40, 0); /* behind the end of what was */
	/* the next sector after these, with records up to the end of the file */
	write_header(f, 4 * (off_t)PAGE, UINT32_MAX, 3);
	write_record(f, 5 * (off_t)PAGE, 2, 99, 0); /* the first one counts */
	write_record(f, 5 * (off_t)PAGE + PAGE + 8, 3, 30, 0);
	assert_int_equal(wrep_playback_journal_holds(f->side_fd), 1);
	assert_int_equal(wrep_playback_journal(f->side_fd, f->overlay, f->base_fd), 0);
	assert_int_equal(wrep_overlay_size(f->overlay), 3 * PAGE);
	assert_int_equal(shown(f, 1), 1);
	assert_int_equal(shown(f, 2), 20);
	assert_int_equal(shown(f, 3), 30);
}

static void journal_ends_at_the_first_record_that_is_not_right(void **state)
{
	struct files *f = *state;

	write_header(f, 0, 3, 4);
	write_record(f, PAGE, 2, 20, 0);
	write_record(f, PAGE + PAGE + 8, 3, 30, 1);
	write_record(f, PAGE + 2 * (PAGE + 8), 4, 40, 0);
	assert_int_equal(wrep_playback_journal(f->side_fd, f->overlay, f->base_fd), 0);
	assert_int_equal(shown(f, 2), 20);
	assert_int_equal(shown(f, 3), 3);
	assert_int_equal(shown(f, 4), 4);
}

static void journal_with_a_zeroed_header_holds_nothing(void **state)
{
	static const uint8_t zero[28];
	struct files *f = *state;

	write_header(f, 0, 1, 4);
	write_record(f, PAGE, 2, 20, 0);
	assert_int_equal(pwrite(f->side_fd, zero, sizeof zero, 0), sizeof zero);
	assert_int_equal(wrep_playback_journal_holds(f->side_fd), 0);
	assert_int_equal(wrep_playback_journal(f->side_fd, f->overlay, f->base_fd), 0);
	assert_false(wrep_overlay_dirty(f->overlay));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(wal_counts_up_to_its_last_commit, setup, teardown),
		cmocka_unit_test_setup_teardown(wal_ends_at_the_first_frame_that_is_not_right,
						setup, teardown),
		cmocka_unit_test_setup_teardown(wal_without_a_commit_holds_nothing, setup,
						teardown),
		cmocka_unit_test_setup_teardown(wal_of_another_page_size_is_refused, setup,
						teardown),
		cmocka_unit_test_setup_teardown(journal_brings_back_what_was, setup, teardown),
		cmocka_unit_test_setup_teardown(journal_ends_at_the_first_record_that_is_not_right,
						setup, teardown),
		cmocka_unit_test_setup_teardown(journal_with_a_zeroed_header_holds_nothing, setup,
						teardown),
	};

	return cmocka_run_group_tests_name("walrepl_playback", tests, NULL, NULL);
}
