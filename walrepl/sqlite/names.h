/* Which file names belong to databases. Private to walrepl.
 *
 * A name is a path relative to the mount: "app.db", "a/b/app.db". Its last part says what it is.
 * A database is a name that matches *.db, *.sqlite, *.sqlite3, *.db3 or one of the configured globs;
 * its side files are that name with -wal, -shm or -journal behind it, and its super-journals that name
 * with -mjXXXXXX9XX. A name that ends like a side file is never a database, whatever the globs say:
 * otherwise one file would have two meanings.
 * ".NAME.XXXXXX", six letters or digits behind a database's name, is what rsync calls a copy of it that is
 * not complete: a database as well.
 */
#ifndef WALREPL_SQLITE_NAMES_H
#define WALREPL_SQLITE_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include "walrepl.h"

/* Can that be the path of a database or a directory? `len` bytes, at most WREP_PATH_MAX; each part has 1 to
 * 255, none is "." or "..", none is empty, and the first does not begin like the directory of the
 * daemon's own files. Any thread. */
bool wrep_names_path_valid(const char *path, size_t len);

/* Is `name` a file of a database? `match`: further globs, NULL-terminated, or NULL. Fills `kind`
 * and, when not NULL, `base` with the name of the database. A database's name leaves room for
 * "-journal" within the 255 bytes of a file name. Any thread. */
bool wrep_names_kind(const char *const *match, const char *name, enum wrep_kind *kind,
		     char base[WREP_PATH_MAX + 1]);

/* The name of the database's file of `kind`, WREP_DB to WREP_JOURNAL. Any thread. */
#define WREP_FILE_NAME_SIZE (WREP_PATH_MAX + 16)
void wrep_names_file(const char *db, enum wrep_kind kind, char name[WREP_FILE_NAME_SIZE]);

/* Why such a name is refused: -ENAMETOOLONG where a shorter one would be taken, else -EPERM. Any thread. */
int wrep_names_refusal(const char *const *match, const char *path);

#endif
