/* file_format.c: the header of a database, its lock page, and its side files' names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include <sqlite3.h>

#include "sqlite/file_format.h"

/* The bytes of a database of SQLite's own. */
static unsigned char *make_database(int page_size, sqlite3_int64 *len)
{
	char sql[200];
	unsigned char *bytes;
	sqlite3 *db;

	assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
	snprintf(sql, sizeof sql, "PRAGMA page_size = %d; CREATE TABLE t(x)", page_size);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	bytes = sqlite3_serialize(db, "main", len, 0);
	assert_non_null(bytes);
	sqlite3_close(db);
	return bytes;
}

static void header_of_sqlite_says_page_size_and_count(void **state)
{
	(void)state;
	for (int size = 512; size <= 65536; size *= 2) {
		uint32_t page_size, page_count;
		sqlite3_int64 len;
		unsigned char *bytes = make_database(size, &len);

		assert_true(wrep_db_header_parse(bytes, &page_size, &page_count));
		assert_int_equal(page_size, size);
		assert_int_equal(page_count, len / size);
		assert_int_equal(wrep_page1_page_size(bytes), size);
		assert_false(wrep_page1_is_wal(bytes));
		bytes[18] = 2;
		assert_false(wrep_page1_is_wal(bytes));
		bytes[19] = 2;
		assert_true(wrep_page1_is_wal(bytes));
		sqlite3_free(bytes);
	}
}

static void size_in_a_header_counts_only_with_its_change_counter(void **state)
{
	uint32_t page_size, page_count;
	sqlite3_int64 len;
	unsigned char *bytes = make_database(4096, &len);

	(void)state;
	bytes[27]++;
	assert_true(wrep_db_header_parse(bytes, &page_size, &page_count));
	assert_int_equal(page_size, 4096);
	assert_int_equal(page_count, 0);
	sqlite3_free(bytes);
}

static void bytes_that_are_no_database_are_refused(void **state)
{
	static const uint16_t sizes[] = {0, 2, 256, 511, 513, 4095, 65535};
	uint32_t page_size, page_count;
	sqlite3_int64 len;
	unsigned char *bytes = make_database(4096, &len);

	(void)state;
	for (int i = 0; i < 16; i++) {
		bytes[i] ^= 1;
		assert_false(wrep_db_header_parse(bytes, &page_size, &page_count));
		bytes[i] ^= 1;
	}
	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		bytes[16] = (unsigned char)(sizes[i] >> 8);
		bytes[17] = (unsigned char)sizes[i];
		assert_false(wrep_db_header_parse(bytes, &page_size, &page_count));
	}
	sqlite3_free(bytes);
}

static void lock_page_holds_the_byte_at_one_gigabyte(void **state)
{
	(void)state;
	for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
		uint64_t pgno = wrep_lock_page(page_size);

		assert_true((pgno - 1) * page_size <= 0x40000000);
		assert_true(pgno * page_size > 0x40000000);
	}
	assert_int_equal(wrep_lock_page(4096), 262145);
}

static void side_files_are_called_as_sqlite_calls_them(void **state)
{
	(void)state;
	assert_string_equal(wrep_kind_suffix(WREP_DB), "");
	assert_string_equal(wrep_kind_suffix(WREP_WAL), "-wal");
	assert_string_equal(wrep_kind_suffix(WREP_SHM), "-shm");
	assert_string_equal(wrep_kind_suffix(WREP_JOURNAL), "-journal");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(header_of_sqlite_says_page_size_and_count),
		cmocka_unit_test(size_in_a_header_counts_only_with_its_change_counter),
		cmocka_unit_test(bytes_that_are_no_database_are_refused),
		cmocka_unit_test(lock_page_holds_the_byte_at_one_gigabyte),
		cmocka_unit_test(side_files_are_called_as_sqlite_calls_them),
	};

	return cmocka_run_group_tests_name("walrepl_file_format", tests, NULL, NULL);
}
