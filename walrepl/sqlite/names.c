/* The naming rule: side files first, by their ending, then the globs for what is in front. */
#include "sqlite/names.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include "sqlite/file_format.h"

#define NAME_BYTES 255
#define LONGEST_SUFFIX_BYTES strlen(wrep_kind_suffix(WREP_JOURNAL))
#define COPY_SUFFIX_BYTES 7u /* ".XXXXXX" */

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
	for (enum wrep_kind side = WREP_WAL; side <= WREP_JOURNAL; side++) {
		const char *suffix = wrep_kind_suffix(side);
		size_t suffix_len = strlen(suffix);

		if (len >= suffix_len && memcmp(name + len - suffix_len, suffix, suffix_len) == 0) {
			*kind = side;
			return len - suffix_len;
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

/* The length of NAME in ".NAME.XXXXXX"; 0 when it is none. */
static size_t copied_name(const char *name, size_t len)
{
	if (len < 1 + 1 + COPY_SUFFIX_BYTES || name[0] != '.' ||
	    name[len - COPY_SUFFIX_BYTES] != '.')
		return 0;
	for (size_t i = len - COPY_SUFFIX_BYTES + 1; i < len; i++)
		if (!((name[i] >= '0' && name[i] <= '9') || (name[i] >= 'a' && name[i] <= 'z') ||
		      (name[i] >= 'A' && name[i] <= 'Z')))
			return 0;
	return len - 1 - COPY_SUFFIX_BYTES;
}

static bool is_database(const char *const *match, const char *name, size_t len)
{
	enum wrep_kind inner;

	return strip_suffix(name, len, &inner) == len &&
	       (matches(builtin, name) || matches(match, name));
}

bool wrep_names_path_valid(const char *path, size_t len)
{
	if (len == 0 || len > WREP_PATH_MAX || memchr(path, '\0', len) != NULL ||
	    (len >= strlen(WREP_STATE_DIR) &&
	     memcmp(path, WREP_STATE_DIR, strlen(WREP_STATE_DIR)) == 0))
		return false;
	for (size_t at = 0, end; at <= len; at = end + 1) {
		const char *slash = memchr(path + at, '/', len - at);

		end = slash != NULL ? (size_t)(slash - path) : len;
		if (end == at || end - at > NAME_BYTES ||
		    (end - at <= 2 && memcmp(path + at, "..", end - at) == 0))
			return false;
	}
	return true;
}

bool wrep_names_kind(const char *const *match, const char *path, enum wrep_kind *kind,
		     char base[WREP_PATH_MAX + 1])
{
	const char *slash = strrchr(path, '/');
	const char *name = slash != NULL ? slash + 1 : path;
	size_t len = strnlen(name, NAME_BYTES + 1);
	char db[NAME_BYTES + 1], copied[NAME_BYTES + 1];
	enum wrep_kind found, inner;
	size_t db_len, copied_len, inner_len;

	if (len == 0 || len > NAME_BYTES)
		return false;
	db_len = strip_suffix(name, len, &found);
	if (db_len == 0 || db_len > NAME_BYTES - LONGEST_SUFFIX_BYTES)
		return false;
	memcpy(db, name, db_len);
	db[db_len] = '\0';
	if (!wrep_names_path_valid(path, (size_t)(name - path) + db_len))
		return false;
	copied_len = copied_name(db, db_len);
	memcpy(copied, db + 1, copied_len);
	copied[copied_len] = '\0';
	if (!is_database(match, db, db_len) &&
	    (copied_len == 0 || !is_database(match, copied, copied_len))) {
		/* rsync's copy of a side file? */
		inner_len = strip_suffix(copied, copied_len, &inner);
		if (db_len != len || inner == WREP_DB || inner == WREP_SUPER || !inner_len)
			return false;
		copied[inner_len] = '\0';
		if (!is_database(match, copied, inner_len))
			return false;
		found = WREP_STRAY;
	}
	*kind = found;
	if (base != NULL) {
		memcpy(base, path, (size_t)(name - path));
		memcpy(base + (name - path), db, db_len + 1);
	}
	return true;
}

void wrep_names_file(const char *db, enum wrep_kind kind, char name[WREP_FILE_NAME_SIZE])
{
	snprintf(name, WREP_FILE_NAME_SIZE, "%s%s", db, wrep_kind_suffix(kind));
}

int wrep_names_refusal(const char *const *match, const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash != NULL ? slash + 1 : path;
	const size_t len = strlen(name);
	enum wrep_kind kind;
	char db[NAME_BYTES + 1];
	size_t db_len;

	if (len > NAME_BYTES)
		return -ENAMETOOLONG;
	db_len = strip_suffix(name, len, &kind);
	if ((size_t)(name - path) + db_len > WREP_PATH_MAX)
		return -ENAMETOOLONG;
	memcpy(db, name, db_len);
	db[db_len] = '\0';
	if (db_len > NAME_BYTES - LONGEST_SUFFIX_BYTES && is_database(match, db, db_len))
		return -ENAMETOOLONG; /* no room for the names of side files */
	return -EPERM;
}
