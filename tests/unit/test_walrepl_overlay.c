/* The overlay against a plain array of bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "../rig/random.h"
#include "pages/overlay.h"

#define BYTES_MAX (96u << 10)

static int dir_fd, base_fd;
static char dir[] = "/tmp/wrep-overlay-XXXXXX";

/* What the writer sees, what the database file holds, and which bytes the overlay has to answer for
 * (written, or zeros after a shrink). */
static uint8_t seen[BYTES_MAX], base[BYTES_MAX];
static size_t seen_size, base_size;
static bool changed[BYTES_MAX];

static int setup(void **state)
{
	(void)state;
	random_begin();
	base_fd = openat(dir_fd, "base", O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
	memset(seen, 0, sizeof(seen));
	memset(base, 0, sizeof(base));
	memset(changed, 0, sizeof(changed));
	seen_size = base_size = 0;
	return base_fd < 0;
}

static int teardown(void **state)
{
	(void)state;
	close(base_fd);
	return unlinkat(dir_fd, "base", 0);
}

static void fill_base(size_t size)
{
	for (size_t i = 0; i < size; i++)
		base[i] = seen[i] = (uint8_t)random_below(256);
	check(pwrite(base_fd, base, size, 0) == (ssize_t)size);
	base_size = seen_size = size;
}

static void check_read(struct wrep_overlay *o, size_t off, size_t len)
{
	static uint8_t bytes[BYTES_MAX];
	size_t expected = off >= seen_size ? 0 : seen_size - off < len ? seen_size - off : len;

	check(wrep_overlay_read(o, base_fd, bytes, len, off) == (ssize_t)expected);
	check(memcmp(bytes, seen + off, expected) == 0);
}

static void check_base_file(void)
{
	static uint8_t bytes[BYTES_MAX];
	struct stat st;

	check(fstat(base_fd, &st) == 0 && (size_t)st.st_size == base_size);
	check(pread(base_fd, bytes, sizeof(bytes), 0) == (ssize_t)base_size);
	check(memcmp(bytes, base, base_size) == 0);
}

static uint64_t bytes_now(const struct wrep_overlay *o)
{
	return wrep_overlay_bytes_with(o, 0, 0);
}

static void do_write(struct wrep_overlay *o, size_t off, size_t len)
{
	static uint8_t bytes[BYTES_MAX];
	uint64_t before = bytes_now(o), announced = wrep_overlay_bytes_with(o, len, off);

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)random_below(256);
	check(wrep_overlay_write(o, base_fd, bytes, len, off) == 0);
	check(bytes_now(o) == announced && announced >= before);
	check(announced <= before + len + 1024);
	check(wrep_overlay_bytes_with(o, len, off) == announced); /* once more costs nothing */
	memcpy(seen + off, bytes, len);
	for (size_t i = off; i < off + len; i++)
		changed[i] = true;
	/* Filling a hole is zeros that nobody wrote; within the database file they are a change. */
	for (size_t i = seen_size; i < off; i++)
		changed[i] = changed[i] || i < base_size;
	if (off + len > seen_size)
		seen_size = off + len;
}

static void do_truncate(struct wrep_overlay *o, size_t size)
{
	check(wrep_overlay_truncate(o, size) == 0);
	check(bytes_now(o) <= (size + 511) / 512 * 512);
	for (size_t i = size; i < seen_size; i++) {
		seen[i] = 0;
		changed[i] = false;
	}
	for (size_t i = seen_size; i < size; i++)
		changed[i] = i < base_size;
	seen_size = size;
}

/* Exact as long as all is done in whole units, as SQLite does; else a unit of which a shrink left
 * only what was not written may be reported, too. */
static void check_next(struct wrep_overlay *o, uint32_t page_size, bool exact)
{
	uint32_t pages = (uint32_t)((seen_size + page_size - 1) / page_size);
	uint32_t next = wrep_overlay_next(o, page_size, 1);

	for (uint32_t pgno = 1; pgno <= pages; pgno++) {
		bool expected = false;

		for (size_t i = (size_t)(pgno - 1) * page_size;
		     i < (size_t)pgno * page_size && i < seen_size; i++)
			expected = expected || changed[i];
		check(!expected || next == pgno);
		if (next == pgno) {
			check(expected || !exact);
			next = wrep_overlay_next(o, page_size, pgno + 1);
		}
	}
	check(next == 0);
}

static void do_commit(struct wrep_overlay *o)
{
	check_base_file(); /* nothing reached it before */
	check(wrep_overlay_commit(o, base_fd) == 0);
	memcpy(base, seen, sizeof(base));
	memset(changed, 0, sizeof(changed));
	base_size = seen_size;
	check_base_file();
	check(!wrep_overlay_dirty(o));
	check(bytes_now(o) == 0);
	check(wrep_overlay_next(o, 512, 1) == 0);
}

static void random_operations(bool whole_units)
{
	struct wrep_overlay *o;
	uint32_t grain = whole_units ? 512 : 1;

	fill_base(random_below(BYTES_MAX / 2 / grain) * grain);
	check(wrep_overlay_open(&o, dir_fd, base_size) == 0);
	for (int step = 0; step < 300; step++) {
		uint32_t kind = random_below(100);
		size_t off = random_below(BYTES_MAX / 2 / grain) * grain;
		size_t len =
			(random_below(random_below(4) == 0 ? 20000 / grain : 1200 / grain) + 1) *
			grain;

		if (kind < 45) {
			/* Mostly near what is there, so that holes stay rare. */
			if (off > seen_size && random_below(4) != 0)
				off = seen_size;
			do_write(o, off, len);
		} else if (kind < 60) {
			do_truncate(o, off);
		} else if (kind < 63) {
			do_commit(o);
		} else {
			check_read(o, off, len);
		}
		check(wrep_overlay_size(o) == seen_size);
		if (step % 10 == 0) {
			check_read(o, 0, BYTES_MAX);
			for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2)
				check_next(o, page_size, whole_units);
		}
	}
	do_commit(o);
	wrep_overlay_close(o);
}

static void random_operations_match_a_byte_array(void **state)
{
	(void)state;
	for (int round = 0; round < 60; round++) {
		setup(NULL);
		random_round(round);
		random_operations(round % 2 == 0);
		close(base_fd);
	}
	setup(NULL);
}

static void shrunk_and_grown_reads_as_zeros(void **state)
{
	struct wrep_overlay *o;

	(void)state;
	fill_base(20 * 1024);
	assert_int_equal(wrep_overlay_open(&o, dir_fd, base_size), 0);
	assert_false(wrep_overlay_dirty(o));
	do_write(o, 8192, 4096);
	do_truncate(o, 4096);
	do_truncate(o, 12288);
	assert_true(wrep_overlay_dirty(o));
	check_read(o, 0, BYTES_MAX);
	/* Zeros where the database file has content are a change, too. */
	assert_int_equal(wrep_overlay_next(o, 4096, 1), 2);
	assert_int_equal(wrep_overlay_next(o, 4096, 3), 3);
	assert_int_equal(wrep_overlay_next(o, 4096, 4), 0);
	do_commit(o);
	wrep_overlay_close(o);
}

static void dropped_overlay_leaves_the_database_alone(void **state)
{
	struct wrep_overlay *o;

	(void)state;
	fill_base(10000);
	assert_int_equal(wrep_overlay_open(&o, dir_fd, base_size), 0);
	do_write(o, 1000, 5000);
	do_truncate(o, 2000);
	wrep_overlay_close(o);
	check_base_file();
	wrep_overlay_close(NULL);
}

static void offsets_beyond_a_file_are_refused(void **state)
{
	struct wrep_overlay *o;
	uint8_t byte = 0;

	(void)state;
	assert_int_equal(wrep_overlay_open(&o, dir_fd, 0), 0);
	assert_int_equal(wrep_overlay_write(o, base_fd, &byte, 1, UINT64_MAX), -EFBIG);
	assert_int_equal(wrep_overlay_write(o, base_fd, &byte, 1, INT64_MAX), -EFBIG);
	assert_int_equal(wrep_overlay_truncate(o, UINT64_MAX), -EFBIG);
	assert_int_equal(wrep_overlay_write(o, base_fd, &byte, 0, 10), 0);
	assert_false(wrep_overlay_dirty(o));
	assert_int_equal(wrep_overlay_size(o), 0);
	wrep_overlay_close(o);
}

/* A sparse gigabyte: memory is a bit per 512 bytes, and what lies between costs nothing. */
static void pages_far_apart_are_found(void **state)
{
	static const uint64_t places[] = {0, 0x40000000 - 4096, 0x40000000 + 4096};
	uint8_t page[4096];
	struct wrep_overlay *o;

	(void)state;
	assert_int_equal(wrep_overlay_open(&o, dir_fd, 0), 0);
	memset(page, 'x', sizeof(page));
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(wrep_overlay_write(o, base_fd, page, 4096, places[i]), 0);
	assert_int_equal(wrep_overlay_next(o, 4096, 1), 1);
	assert_int_equal(wrep_overlay_next(o, 4096, 2), 262144);
	assert_int_equal(wrep_overlay_next(o, 4096, 262145), 262146);
	assert_int_equal(wrep_overlay_next(o, 4096, 262147), 0);
	assert_int_equal(wrep_overlay_commit(o, base_fd), 0);
	for (size_t i = 0; i < 3; i++) {
		memset(page, 0, sizeof(page));
		assert_int_equal(pread(base_fd, page, 4096, (off_t)places[i]), 4096);
		assert_int_equal(page[4095], 'x');
	}
	wrep_overlay_close(o);
}

static int group_setup(void **state)
{
	(void)state;
	if (mkdtemp(dir) == NULL)
		return -1;
	dir_fd = open(dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	return dir_fd < 0;
}

static int group_teardown(void **state)
{
	(void)state;
	close(dir_fd);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(shrunk_and_grown_reads_as_zeros, setup, teardown),
		cmocka_unit_test_setup_teardown(dropped_overlay_leaves_the_database_alone, setup,
						teardown),
		cmocka_unit_test_setup_teardown(offsets_beyond_a_file_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(pages_far_apart_are_found, setup, teardown),
		cmocka_unit_test_setup_teardown(random_operations_match_a_byte_array, setup,
						teardown),
	};

	return cmocka_run_group_tests_name("walrepl_overlay", tests, group_setup, group_teardown);
}
