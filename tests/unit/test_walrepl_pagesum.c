/* The checksum over all pages, against one that is computed from scratch. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <string.h>
#include <unistd.h>
#include "../rig/random.h"
#include "pages/pagesum.h"
#include "sqlite/file_format.h"

#define PAGES_MAX 600

static int setup(void **state)
{
	(void)state;
	random_begin();
	return 0;
}

static void hash_depends_on_page_number_and_content(void **state)
{
	uint8_t a[512] = {0}, b[512] = {0};

	(void)state;
	b[511] = 1;
	assert_true(wrep_page_hash(1, a, 512) != 0);
	assert_true(wrep_page_hash(1, a, 512) == wrep_page_hash(1, a, 512));
	assert_true(wrep_page_hash(1, a, 512) != wrep_page_hash(2, a, 512));
	assert_true(wrep_page_hash(1, a, 512) != wrep_page_hash(1, b, 512));
}

static void hash_is_the_same_in_every_build(void **state)
{
	uint8_t page[4096];

	(void)state;
	for (size_t i = 0; i < sizeof(page); i++)
		page[i] = (uint8_t)(i * 7);
	/* Nodes compare these numbers: a change of the function needs a new version of the entries. */
	assert_int_equal(wrep_page_hash(3, page, sizeof(page)), UINT64_C(0x1aa50ca89651fc93));
}

static void lock_page_counts_nothing(void **state)
{
	struct wrep_pagesum s = {0};
	uint32_t lock = wrep_lock_page(65536);
	struct wrep_page_change with[] = {{1, 10}, {lock, 77}, {lock + 1, 5}};

	(void)state;
	assert_int_equal(wrep_pagesum_preview(&s, 65536, lock + 1, with, 3), 15);
	assert_int_equal(wrep_pagesum_apply(&s, 65536, lock + 1, with, 3), 0);
	assert_int_equal(s.sum, 15);
	assert_int_equal(s.hash[lock - 1], 0);
	wrep_pagesum_close(&s);
}

static void page_size_changed_forgets_former_pages(void **state)
{
	struct wrep_pagesum s = {0};
	struct wrep_page_change first[] = {{1, 10}, {2, 20}, {3, 30}}, second[] = {{1, 7}};

	(void)state;
	assert_int_equal(wrep_pagesum_apply(&s, 512, 3, first, 3), 0);
	assert_int_equal(wrep_pagesum_preview(&s, 1024, 2, second, 1), 7);
	assert_int_equal(wrep_pagesum_apply(&s, 1024, 2, second, 1), 0);
	assert_int_equal(s.sum, 7);
	assert_int_equal(s.page_count, 2);
	assert_int_equal(s.hash[1], 0);
	assert_int_equal(wrep_pagesum_apply(&s, 0, 0, NULL, 0), 0);
	assert_int_equal(s.sum, 0);
	wrep_pagesum_close(&s);
}

static void random_commits_match_a_sum_from_scratch(void **state)
{
	struct wrep_pagesum s = {0};
	uint64_t model[PAGES_MAX] = {0};
	uint32_t count = 0;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		struct wrep_page_change changes[20];
		uint32_t new_count = random_below(8) == 0 ? random_below(PAGES_MAX) + 1 : count;
		uint64_t preview, sum = 0;
		size_t n = 0;

		if (new_count == 0)
			new_count = 1;
		for (uint32_t i = new_count; i < count; i++)
			model[i] = 0;
		count = new_count;
		for (uint32_t tries = random_below(20); tries > 0; tries--) {
			uint32_t pgno = random_below(count) + 1;
			bool seen = false;

			for (size_t i = 0; i < n; i++)
				seen = seen || changes[i].pgno == pgno;
			if (seen)
				continue;
			changes[n].pgno = pgno;
			changes[n].hash =
				(uint64_t)random_below(UINT32_MAX) << 32 | random_below(9);
			model[pgno - 1] = changes[n].hash;
			n++;
		}
		preview = wrep_pagesum_preview(&s, 4096, count, changes, n);
		check(wrep_pagesum_apply(&s, 4096, count, changes, n) == 0);
		for (uint32_t i = 0; i < count; i++)
			sum += model[i];
		check(s.sum == sum);
		check(preview == sum);
		check(s.page_count == count);
		check(memcmp(s.hash, model, count * sizeof(*model)) == 0);
	}
	wrep_pagesum_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hash_depends_on_page_number_and_content),
		cmocka_unit_test(hash_is_the_same_in_every_build),
		cmocka_unit_test(lock_page_counts_nothing),
		cmocka_unit_test(page_size_changed_forgets_former_pages),
		cmocka_unit_test_setup(random_commits_match_a_sum_from_scratch, setup),
	};

	return cmocka_run_group_tests_name("walrepl_pagesum", tests, NULL, NULL);
}
