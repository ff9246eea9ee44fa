/* What names may be made, removed and renamed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "state/name_tree.h"

static struct wrep_tree *t;

/* In the place of the C library's (the linker's --wrap): the one after so many fails. */
static int allocations_left = -1;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);

void *__wrap_malloc(size_t bytes)
{
	return allocations_left >= 0 && allocations_left-- == 0 ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	return allocations_left >= 0 && allocations_left-- == 0 ? NULL
								 : __real_calloc(count, bytes);
}

static int set_up(void **state)
{
	(void)state;
	t = wrep_tree_new();
	return t ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	wrep_tree_free(t);
	return 0;
}

static void name_needs_its_directory(void **state)
{
	(void)state;
	assert_int_equal(wrep_tree_add(t, 1, "a/x.db", false), -ENOENT);
	assert_int_equal(wrep_tree_add(t, 2, "a", true), 0);
	assert_int_equal(wrep_tree_add(t, 3, "a/x.db", false), 0);
	assert_int_equal(wrep_tree_add(t, 4, "a/b/c", true), -ENOENT);
	assert_int_equal(wrep_tree_add(t, 5, "a/x.db/c", true), -ENOTDIR);
	assert_int_equal(wrep_tree_find_path(t, "a/x.db")->id, 3);
	assert_ptr_equal(wrep_tree_find(t, 3), wrep_tree_find_path(t, "a/x.db"));
	assert_null(wrep_tree_find(t, 1));
}

static void name_that_is_taken_is_refused(void **state)
{
	(void)state;
	assert_int_equal(wrep_tree_add(t, 2, "a", true), 0);
	assert_int_equal(wrep_tree_add(t, 3, "x.db", false), 0);
	assert_int_equal(wrep_tree_add(t, 4, "a", true), -EEXIST);
	assert_int_equal(wrep_tree_add(t, 4, "a", false), -EEXIST);
	assert_int_equal(wrep_tree_add(t, 4, "x.db", false), -EEXIST);
	assert_int_equal(wrep_tree_add(t, 3, "y.db", false), -EEXIST);
	assert_null(wrep_tree_find_path(t, "y.db"));
}

static void directory_goes_when_it_is_empty(void **state)
{
	(void)state;
	wrep_tree_add(t, 2, "a", true);
	wrep_tree_add(t, 3, "a/b", true);
	wrep_tree_add(t, 4, "a/b/x.db", false);
	assert_int_equal(wrep_tree_remove(t, 2), -ENOTEMPTY);
	assert_int_equal(wrep_tree_remove(t, 3), -ENOTEMPTY);
	assert_int_equal(wrep_tree_remove(t, 4), 0);
	assert_int_equal(wrep_tree_remove(t, 4), -ENOENT);
	assert_int_equal(wrep_tree_remove(t, 3), 0);
	assert_int_equal(wrep_tree_remove(t, 2), 0);
	assert_int_equal(wrep_tree_add(t, 5, "a/x.db", false), -ENOENT);
}

static void database_moves_and_replaces(void **state)
{
	uint64_t replaced;

	(void)state;
	wrep_tree_add(t, 2, "a", true);
	wrep_tree_add(t, 3, "x.db", false);
	wrep_tree_add(t, 4, "y.db", false);
	assert_int_equal(wrep_tree_rename(t, 3, "a/x.db", false, &replaced), 1);
	assert_int_equal(replaced, 0);
	assert_int_equal(wrep_tree_remove(t, 2), -ENOTEMPTY);
	assert_int_equal(wrep_tree_rename(t, 3, "a/x.db", false, &replaced), 0);
	assert_int_equal(wrep_tree_rename(t, 3, "y.db", true, &replaced), -EEXIST);
	assert_int_equal(wrep_tree_rename(t, 3, "y.db", false, &replaced), 1);
	assert_int_equal(replaced, 4);
	assert_null(wrep_tree_find(t, 4));
	assert_int_equal(wrep_tree_find_path(t, "y.db")->id, 3);
	assert_int_equal(wrep_tree_remove(t, 2), 0);
	/* a chain, and the freed name again */
	assert_int_equal(wrep_tree_add(t, 5, "x.db", false), 0);
	assert_int_equal(wrep_tree_rename(t, 3, "z.db", false, &replaced), 1);
	assert_int_equal(wrep_tree_rename(t, 5, "y.db", false, &replaced), 1);
	assert_int_equal(replaced, 0);
}

static void rename_without_sense_is_refused(void **state)
{
	uint64_t replaced;

	(void)state;
	wrep_tree_add(t, 2, "a", true);
	wrep_tree_add(t, 3, "x.db", false);
	assert_int_equal(wrep_tree_rename(t, 9, "y.db", false, &replaced), -ENOENT);
	assert_int_equal(wrep_tree_rename(t, 2, "b", false, &replaced), -EXDEV);
	assert_int_equal(wrep_tree_rename(t, 3, "a", false, &replaced), -EISDIR);
	assert_int_equal(wrep_tree_rename(t, 3, "b/x.db", false, &replaced), -ENOENT);
	assert_int_equal(wrep_tree_rename(t, 3, "x.db/y.db", false, &replaced), -ENOTDIR);
	assert_string_equal(wrep_tree_find(t, 3)->path, "x.db");
	wrep_tree_clear(t);
	assert_null(wrep_tree_find(t, 3));
	assert_null(wrep_tree_find_path(t, "a"));
}

static void many_names_are_found(void **state)
{
	char path[32];

	(void)state;
	for (unsigned i = 1; i <= 3000; i++) {
		snprintf(path, sizeof(path), "%u.db", i);
		assert_int_equal(wrep_tree_add(t, i, path, false), 0);
	}
	for (unsigned i = 1; i <= 3000; i += 2)
		assert_int_equal(wrep_tree_remove(t, i), 0);
	for (unsigned i = 1; i <= 3000; i++) {
		snprintf(path, sizeof(path), "%u.db", i);
		assert_ptr_equal(wrep_tree_find(t, i), wrep_tree_find_path(t, path));
		assert_int_equal(wrep_tree_find(t, i) != NULL, i % 2 == 0);
	}
}

/* Each time another allocation fails, until the name is entered. */
static void add_despite_want_of_memory(uint64_t id, const char *path)
{
	int rc = -ENOMEM;

	for (int after = 0; rc == -ENOMEM; after++) {
		assert_true(after < 20);
		allocations_left = after;
		rc = wrep_tree_add(t, id, path, false);
		allocations_left = -1;
		assert_int_equal(wrep_tree_find(t, id) != NULL, rc == 0);
		assert_int_equal(wrep_tree_find_path(t, path) != NULL, rc == 0);
	}
	assert_int_equal(rc, 0);
}

static void want_of_memory_changes_nothing(void **state)
{
	uint64_t replaced;
	char path[32];
	int rc = -ENOMEM;

	(void)state;
	for (unsigned i = 1; i <= 1000; i++) { /* the tables grow meanwhile */
		snprintf(path, sizeof(path), "%u.db", i);
		add_despite_want_of_memory(i, path);
	}
	for (int after = 0; rc == -ENOMEM; after++) {
		assert_non_null(wrep_tree_find_path(t, "7.db"));
		assert_int_equal(wrep_tree_find_path(t, "8.db")->id, 8);
		allocations_left = after;
		rc = wrep_tree_rename(t, 7, "8.db", false, &replaced);
		allocations_left = -1;
	}
	assert_int_equal(rc, 1);
	assert_int_equal(replaced, 8);
	assert_null(wrep_tree_find_path(t, "7.db"));
	assert_int_equal(wrep_tree_find_path(t, "8.db")->id, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(name_needs_its_directory, set_up, tear_down),
		cmocka_unit_test_setup_teardown(name_that_is_taken_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(directory_goes_when_it_is_empty, set_up, tear_down),
		cmocka_unit_test_setup_teardown(database_moves_and_replaces, set_up, tear_down),
		cmocka_unit_test_setup_teardown(rename_without_sense_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(many_names_are_found, set_up, tear_down),
		cmocka_unit_test_setup_teardown(want_of_memory_changes_nothing, set_up, tear_down),
	};

	return cmocka_run_group_tests_name("walrepl_tree", tests, NULL, NULL);
}
