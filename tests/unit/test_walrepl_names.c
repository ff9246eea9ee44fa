/* The naming rule, case by case. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include "sqlite/names.h"

static const struct {
	const char *name, *base; /* base NULL: no file of a database */
	enum wrep_kind kind;
} builtin_cases[] = {
	{"a.db", "a.db", WREP_DB},
	{"a.sqlite", "a.sqlite", WREP_DB},
	{"a.sqlite3", "a.sqlite3", WREP_DB},
	{"a.db3", "a.db3", WREP_DB},
	{"a.db-wal", "a.db", WREP_WAL},
	{"a.db-shm", "a.db", WREP_SHM},
	{"a.db-journal", "a.db", WREP_JOURNAL},
	{"a.db-mj0A1B2C9FF", "a.db", WREP_SUPER},
	{"b-mj0A1B2C9FF.sqlite-mj00000090A", "b-mj0A1B2C9FF.sqlite", WREP_SUPER},
	{"with space.and.dots.sqlite3-wal", "with space.and.dots.sqlite3", WREP_WAL},
	{".db", ".db", WREP_DB},
	{"a-wal.db", "a-wal.db", WREP_DB},
	{"", NULL, 0},
	{".", NULL, 0},
	{"..", NULL, 0},
	{"-wal", NULL, 0},
	{"a", NULL, 0},
	{"a-wal", NULL, 0},
	{"a.db-", NULL, 0},
	{"a.db-wal-wal", NULL, 0},
	{"a.db-WAL", NULL, 0},
	{"a.db4", NULL, 0},
	{"a.dbx-wal", NULL, 0},
	{"a.db-mj0A1B2C3D", NULL, 0},
	{"a.db-mj0A1B2C8FF", NULL, 0},
	{"a.db-mj0a1b2c9ff", NULL, 0},
	{"a.db-mj0A1B2C9FF-journal", NULL, 0},
	{"a-mj0A1B2C9FF", NULL, 0},
	{"-mj0A1B2C9FF", NULL, 0},
	{"d/a.db", "d/a.db", WREP_DB},
	{"d.db/e-wal/a.db-shm", "d.db/e-wal/a.db", WREP_SHM},
	{"d/a", NULL, 0},
	{"/a.db", NULL, 0},
	{"d//a.db", NULL, 0},
	{"d/a.db/", NULL, 0},
	{"./a.db", NULL, 0},
	{"d/../a.db", NULL, 0},
	{"d/./a.db", NULL, 0},
	{"../a.db", NULL, 0},
	{"..d/a.db", "..d/a.db", WREP_DB},
	{".dqlitefs/a.db", NULL, 0},
	{".dqlitefs.db", NULL, 0},
	{"d/.dqlitefs/a.db", "d/.dqlitefs/a.db", WREP_DB},
	/* rsync's */
	{".a.db.aZ09xy", ".a.db.aZ09xy", WREP_DB},
	{"d/.a.sqlite.000000", "d/.a.sqlite.000000", WREP_DB},
	{".a.db.aZ09xy-wal", ".a.db.aZ09xy", WREP_WAL},
	{".a.db.aZ09x", NULL, 0},
	{".a.db.aZ09xyz", NULL, 0},
	{".a.db.aZ09x-", NULL, 0},
	{"a.db.aZ09xy", NULL, 0},
	{".a.aZ09xy", NULL, 0},
	{".a.db-wal.aZ09xy", ".a.db-wal.aZ09xy", WREP_STRAY},
	{".a.db-journal.aZ09xy-wal", NULL, 0},
	{".a.txt-wal.aZ09xy", NULL, 0},
	{"..aZ09xy", NULL, 0},
	{".db.aZ09xy", NULL, 0},
};

static void check(const char *const *match, const char *name, const char *base, enum wrep_kind kind)
{
	enum wrep_kind found = WREP_DB;
	char found_base[WREP_PATH_MAX + 1];

	if (base == NULL) {
		if (wrep_names_kind(match, name, &found, found_base))
			fail_msg("\"%s\" was taken for a file of \"%s\"", name, found_base);
		return;
	}
	if (!wrep_names_kind(match, name, &found, found_base))
		fail_msg("\"%s\" was not recognised", name);
	assert_string_equal(found_base, base);
	assert_int_equal(found, kind);
	assert_true(wrep_names_kind(match, name, &found, NULL));
}

static void builtin_names_follow_the_rule(void **state)
{
	static const char *const no_globs[] = {NULL};

	(void)state;
	for (size_t i = 0; i < sizeof(builtin_cases) / sizeof(builtin_cases[0]); i++) {
		check(NULL, builtin_cases[i].name, builtin_cases[i].base, builtin_cases[i].kind);
		check(no_globs, builtin_cases[i].name, builtin_cases[i].base,
		      builtin_cases[i].kind);
	}
}

static void globs_add_databases_and_their_side_files(void **state)
{
	static const char *const globs[] = {"*.data", "places", "v[0-9]*", NULL};

	(void)state;
	check(globs, "x.data", "x.data", WREP_DB);
	check(globs, "x.data-journal", "x.data", WREP_JOURNAL);
	check(globs, "places", "places", WREP_DB);
	check(globs, "places-wal", "places", WREP_WAL);
	check(globs, "placesx", NULL, 0);
	check(globs, "v1", "v1", WREP_DB);
	check(globs, "vx", NULL, 0);
	check(globs, "a.db-shm", "a.db", WREP_SHM);
}

static void glob_for_everything_keeps_side_files_side_files(void **state)
{
	static const char *const all[] = {"*", NULL};

	(void)state;
	check(all, "anything", "anything", WREP_DB);
	check(all, "anything-wal", "anything", WREP_WAL);
	check(all, "anything-wal-wal", NULL, 0);
	check(all, "anything-mj0A1B2C9FF", "anything", WREP_SUPER);
	check(all, "anything-mj0A1B2C9FF-wal", NULL, 0);
	check(all, "-wal", NULL, 0);
	check(all, ".", NULL, 0);
	check(all, "..", NULL, 0);
	check(all, "..-wal", NULL, 0);
	check(all, "a/b", "a/b", WREP_DB);
	check(all, "a/..-wal", NULL, 0);
}

static void database_name_leaves_room_for_its_journal(void **state)
{
	char name[300], side[320];

	(void)state;
	memset(name, 'a', sizeof(name));
	memcpy(name + 247 - 3, ".db", 4);
	check(NULL, name, name, WREP_DB);
	strcpy(side, name);
	strcat(side, "-journal");
	check(NULL, side, name, WREP_JOURNAL);
	memset(name, 'a', sizeof(name));
	memcpy(name + 248 - 3, ".db", 4);
	check(NULL, name, NULL, 0);
	memset(name, 'a', sizeof(name));
	memcpy(name + 290, ".db", 4);
	check(NULL, name, NULL, 0);
}

static void path_is_bounded_as_a_whole_and_in_parts(void **state)
{
	char path[1100];

	(void)state;
	memset(path, 'a', sizeof(path));
	for (size_t i = 200; i < sizeof(path); i += 200)
		path[i] = '/';
	assert_true(wrep_names_path_valid(path, WREP_PATH_MAX - 1));
	assert_false(wrep_names_path_valid(path, WREP_PATH_MAX + 1));
	assert_false(wrep_names_path_valid(path, 0));
	assert_false(wrep_names_path_valid(path, 201));
	path[10] = '\0';
	assert_false(wrep_names_path_valid(path, 100));
	memset(path, 'a', sizeof(path));
	path[3] = '/';
	assert_true(wrep_names_path_valid(path, 4 + 255));
	assert_false(wrep_names_path_valid(path, 4 + 256));
	memcpy(path + WREP_PATH_MAX - 3, ".db", 4);
	for (size_t i = 200; i < WREP_PATH_MAX - 10; i += 200)
		path[i] = '/';
	check(NULL, path, path, WREP_DB);
}

/* A name that is refused is too long, or it is no database's whatever its length. */
static void refusal_says_whether_a_shorter_name_would_do(void **state)
{
	static const struct {
		size_t dir_bytes; /* of "ddd/", 0 for none */
		size_t name_bytes;
		const char *end;
		int refusal; /* 0: it is a name */
	} cases[] = {
		{0, 247, ".db", 0},
		{0, 248, ".db", -ENAMETOOLONG},
		{0, 255, ".db", -ENAMETOOLONG},
		{0, 256, ".db", -ENAMETOOLONG},
		{0, 255, ".db-journal", 0},
		{0, 255, ".db-wal", -ENAMETOOLONG},
		{0, 10, ".txt", -EPERM},
		{0, 255, ".txt", -EPERM},
		{0, 256, ".txt", -ENAMETOOLONG},
		{800, 200, ".db", 0},
		{800, 201, ".db", -ENAMETOOLONG},
		{800, 215, ".db", -ENAMETOOLONG},
		{800, 204, ".db-wal", 0},
		{800, 205, ".db-wal", -ENAMETOOLONG},
		{800, 200, ".txt", -EPERM},
		{900, 101, ".txt", -ENAMETOOLONG},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const size_t end_bytes = strlen(cases[i].end);
		char path[1200] = "", base[WREP_PATH_MAX + 1];
		enum wrep_kind kind;
		bool is_name;

		for (size_t at = 0; at < cases[i].dir_bytes; at++)
			path[at] = at % 100 == 99 ? '/' : 'd';
		memset(path + cases[i].dir_bytes, 'n', cases[i].name_bytes - end_bytes);
		strcat(path, cases[i].end);
		is_name = wrep_names_kind(NULL, path, &kind, base);
		assert_int_equal(is_name, !cases[i].refusal);
		if (!is_name)
			assert_int_equal(wrep_names_refusal(NULL, path), cases[i].refusal);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(builtin_names_follow_the_rule),
		cmocka_unit_test(globs_add_databases_and_their_side_files),
		cmocka_unit_test(glob_for_everything_keeps_side_files_side_files),
		cmocka_unit_test(database_name_leaves_room_for_its_journal),
		cmocka_unit_test(path_is_bounded_as_a_whole_and_in_parts),
		cmocka_unit_test(refusal_says_whether_a_shorter_name_would_do),
	};

	return cmocka_run_group_tests_name("walrepl_names", tests, NULL, NULL);
}
