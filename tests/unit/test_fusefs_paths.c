/* Paths that somebody has given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "node/paths.h"

static void resolve_of_what_does_not_exist_keeps_its_end(void **state)
{
	char out[PATH_MAX], cwd[PATH_MAX], want[PATH_MAX + 16];

	assert_int_equal(fsd_path_resolve("/no-such-dir/a//b/", out), 0);
	assert_string_equal(out, "/no-such-dir/a/b");
	assert_int_equal(fsd_path_resolve("/", out), 0);
	assert_string_equal(out, "/");
	assert_int_equal(fsd_path_resolve("/proc/../no-such-dir", out), 0);
	assert_string_equal(out, "/no-such-dir");
	assert_int_equal(fsd_path_resolve("/no-such-dir/../x", out), -ENOENT);
	assert_non_null(realpath(".", cwd));
	assert_int_equal(fsd_path_resolve("no-such-dir/./x", out), 0);
	snprintf(want, sizeof(want), "%s%sno-such-dir/x", cwd, strcmp(cwd, "/") ? "/" : "");
	assert_string_equal(out, want);
}

static void within_compares_whole_components(void **state)
{
	assert_true(fsd_path_within("/a/b", "/a"));
	assert_true(fsd_path_within("/a", "/a"));
	assert_true(fsd_path_within("/a", "/"));
	assert_false(fsd_path_within("/ab", "/a"));
	assert_false(fsd_path_within("/a", "/a/b"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(resolve_of_what_does_not_exist_keeps_its_end),
		cmocka_unit_test(within_compares_whole_components),
	};

	return cmocka_run_group_tests_name("fusefs_paths", tests, NULL, NULL);
}
