/* journal_format.c: which journals hold something, and which super-journal they name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "sqlite/journal_format.h"

static const uint8_t magic[8] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};

static int temporary(void)
{
	int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);

	assert_true(fd >= 0);
	return fd;
}

static void journal_is_hot_while_it_begins_with_the_magic(void **state)
{
	int fd = temporary();

	(void)state;
	assert_false(wrep_journal_fd_is_hot(fd));
	for (off_t len = 1; len <= 8; len++) {
		assert_int_equal(pwrite(fd, magic, (size_t)len, 0), len);
		assert_int_equal(wrep_journal_fd_is_hot(fd), len == 8);
		assert_int_equal(wrep_journal_begins(magic, (size_t)len), len == 8);
	}
	/* journal_mode=PERSIST and TRUNCATE commit so */
	assert_int_equal(pwrite(fd, "", 1, 0), 1);
	assert_false(wrep_journal_fd_is_hot(fd));
	assert_int_equal(pwrite(fd, magic, 8, 0), 8);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_false(wrep_journal_fd_is_hot(fd));
	close(fd);
	assert_false(wrep_journal_fd_is_hot(-1));
}

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void header_of_impossible_sizes_is_none(void **state)
{
	static const uint32_t good[] = {512, 4096, 65536}, bad[] = {0, 31, 513, 131072, UINT32_MAX};
	struct wrep_journal_header h;
	uint8_t bytes[28] = {0};
	int fd = temporary();

	(void)state;
	memcpy(bytes, magic, sizeof magic);
	put32(bytes + 8, 7);
	put32(bytes + 12, 0x01020304);
	put32(bytes + 16, 9);
	for (unsigned i = 0; i < 3; i++) {
		put32(bytes + 20, good[i]);
		put32(bytes + 24, good[2 - i]);
		assert_int_equal(pwrite(fd, bytes, sizeof bytes, 100), sizeof bytes);
		assert_true(wrep_journal_read_header(fd, 100, &h));
		assert_int_equal(h.records, 7);
		assert_int_equal(h.nonce, 0x01020304);
		assert_int_equal(h.page_count, 9);
		assert_int_equal(h.sector, good[i]);
		assert_int_equal(h.page_size, good[2 - i]);
	}
	for (unsigned i = 0; i < 5; i++) {
		for (unsigned k = 20; k <= 24; k += 4) {
			put32(bytes + 20, 512);
			put32(bytes + 24, 512);
			put32(bytes + k, bad[i]);
			assert_int_equal(pwrite(fd, bytes, sizeof bytes, 100), sizeof bytes);
			assert_false(wrep_journal_read_header(fd, 100, &h));
		}
	}
	put32(bytes + 24, 512);
	assert_int_equal(pwrite(fd, bytes, sizeof bytes, 100), sizeof bytes);
	assert_true(wrep_journal_read_header(fd, 100, &h));
	assert_false(wrep_journal_read_header(fd, 101, &h));
	assert_int_equal(ftruncate(fd, 127), 0);
	assert_false(wrep_journal_read_header(fd, 100, &h));
	close(fd);
}

/* A hot journal that names `super`, as SQLite writes it. */
static size_t fill_journal(uint8_t *out, const char *super)
{
	uint32_t len = (uint32_t)strlen(super), sum = 0;
	uint8_t *p = out + 516;

	memset(out, 0, 516);
	memcpy(out, magic, sizeof(magic));
	memcpy(p, super, len);
	for (uint32_t i = 0; i < len; i++)
		sum += (uint32_t)super[i];
	put32(p + len, len);
	put32(p + len + 4, sum);
	memcpy(p + len + 8, magic, sizeof(magic));
	return (size_t)(p + len + 16 - out);
}

static void only_a_whole_record_at_the_end_names_a_super_journal(void **state)
{
	char path[WREP_SUPER_PATH_MAX];
	uint8_t journal[1024];
	size_t len = fill_journal(journal, "/x/a.db-mj1234AB9CD");
	int fd = temporary();

	(void)state;
	assert_int_equal(pwrite(fd, journal, len, 0), (ssize_t)len);
	assert_true(wrep_journal_super(fd, path));
	assert_string_equal(path, "/x/a.db-mj1234AB9CD");
	/* what a journal that is kept has behind its end is nothing */
	assert_int_equal(ftruncate(fd, (off_t)len + 1), 0);
	assert_false(wrep_journal_super(fd, path));
	for (size_t cut = 0; cut < len; cut++) {
		assert_int_equal(ftruncate(fd, (off_t)cut), 0);
		assert_false(wrep_journal_super(fd, path));
		assert_int_equal(ftruncate(fd, (off_t)len), 0);
		assert_int_equal(pwrite(fd, journal, len, 0), (ssize_t)len);
	}
	for (size_t at = 516; at < len; at++) {
		journal[at] ^= 4;
		assert_int_equal(pwrite(fd, journal, len, 0), (ssize_t)len);
		assert_false(wrep_journal_super(fd, path));
		journal[at] ^= 4;
	}
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(journal_is_hot_while_it_begins_with_the_magic),
		cmocka_unit_test(header_of_impossible_sizes_is_none),
		cmocka_unit_test(only_a_whole_record_at_the_end_names_a_super_journal),
	};

	return cmocka_run_group_tests_name("walrepl_journal_format", tests, NULL, NULL);
}
