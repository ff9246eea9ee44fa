/* Which file names belong to databases. Private to walrepl.
 *
 * A database is a name that matches *.db, *.sqlite, *.sqlite3, *.db3 or one of the configured globs;
 * its side files are that name with -wal, -shm or -journal behind it, and its super-journals that name
 * with -mjXXXXXX9XX. A name that ends like a side file is never a database, whatever the globs say:
 * otherwise one file would have two meanings.
 */
#ifndef WALREPL_NAMES_H
#define WALREPL_NAMES_H

#include <stdbool.h>
#include "walrepl.h"

/* Is `name` a file of a database? `match`: further globs, NULL-terminated, or NULL. Fills `kind`
 * and, when not NULL, `base` with the name of the database. A database's name leaves room for
 * "-journal" within the 255 bytes of a file name. Any thread. */
bool wrep_names_kind(const char *const *match, const char *name, enum wrep_kind *kind,
		     char base[256]);

#endif
