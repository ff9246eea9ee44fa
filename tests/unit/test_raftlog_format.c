/* The lowest level of several nodes: what all of them read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "raftlog.h"

static void lowest_of_nobody_is_the_own(void **state)
{
	(void)state;
	assert_int_equal(rlog_format_lowest(3, NULL, 0), 3);
	assert_int_equal(rlog_format_lowest(0, NULL, 0), 1);
}

static void lowest_of_members_is_that_of_the_one_that_reads_least(void **state)
{
	const unsigned levels[] = {4, 2, 3};

	(void)state;
	assert_int_equal(rlog_format_lowest(5, levels, 3), 2);
	assert_int_equal(rlog_format_lowest(5, levels, 1), 4);
	assert_int_equal(rlog_format_lowest(1, levels, 3), 1);
}

static void member_that_says_nothing_reads_the_first_level(void **state)
{
	const unsigned levels[] = {4, 0, 3};

	(void)state;
	assert_int_equal(rlog_format_lowest(5, levels, 3), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lowest_of_nobody_is_the_own),
		cmocka_unit_test(lowest_of_members_is_that_of_the_one_that_reads_least),
		cmocka_unit_test(member_that_says_nothing_reads_the_first_level),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
