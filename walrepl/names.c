/* The naming rule: side files first, by their ending, then the globs for what is in front. */
#include "names.h"

#include <fnmatch.h>
#include <string.h>

#define NAME_BYTES 255
#define LONGEST_SUFFIX "-journal"

static const struct {
	const char *suffix;
	enum wrep_kind kind;
} side_files[] = {
	{"-wal", WREP_WAL},
	{"-shm", WREP_SHM},
	{"-journal", WREP_JOURNAL},
};

/* "-mj" and nine hexadecimal digits, the seventh of which is a 9: the name of a super-journal behind that
 * of a database (SQLite's vdbeCommit()). */
#define SUPER_SUFFIX_BYTES 12u

static bool is_super_suffix(const char *s)
{
	if (memcmp(s, "-mj", 3) != 0 || s[9] != '9')
		return false;
	for (unsigned i = 3; i < SUPER_SUFFIX_BYTES; i++)
		if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'A' && s[i] <= 'F')))
			return false;
	return true;
}

static const char *const builtin[] = {"*.db", "*.sqlite", "*.sqlite3", "*.db3", NULL};

/* The length of `name` without the suffix of a side file, and its kind; all of it for none. */
static size_t strip_suffix(const char *name, size_t len, enum wrep_kind *kind)
{
	*kind = WREP_DB;
	for (size_t i = 0; i < sizeof(side_files) / sizeof(side_files[0]); i++) {
		size_t suffix = strlen(side_files[i].suffix);

		if (len >= suffix &&
		    memcmp(name + len - suffix, side_files[i].suffix, suffix) == 0) {
			*kind = side_files[i].kind;
			return len - suffix;
		}
	}
	if (len >= SUPER_SUFFIX_BYTES && is_super_suffix(name + len - SUPER_SUFFIX_BYTES)) {
		*kind = WREP_SUPER;
		return len - SUPER_SUFFIX_BYTES;
	}
	return len;
}

static bool matches(const char *const *globs, const char *name)
{
	if (globs == NULL)
		return false;
	for (; *globs != NULL; globs++)
		if (fnmatch(*globs, name, 0) == 0)
			return true;
	return false;
}

bool wrep_names_kind(const char *const *match, const char *name, enum wrep_kind *kind,
		     char base[256])
{
	size_t len = strnlen(name, NAME_BYTES + 1);
	char db[NAME_BYTES + 1];
	enum wrep_kind found, inner;
	size_t db_len;

	if (len == 0 || len > NAME_BYTES || memchr(name, '/', len) != NULL)
		return false;
	db_len = strip_suffix(name, len, &found);
	if (db_len == 0 || db_len > NAME_BYTES - strlen(LONGEST_SUFFIX))
		return false;
	memcpy(db, name, db_len);
	db[db_len] = '\0';
	if (strcmp(db, ".") == 0 || strcmp(db, "..") == 0)
		return false;
	if (strip_suffix(db, db_len, &inner) != db_len)
		return false;
	if (!matches(builtin, db) && !matches(match, db))
		return false;
	*kind = found;
	if (base != NULL)
		memcpy(base, db, db_len + 1);
	return true;
}
