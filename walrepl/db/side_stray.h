/* Strays beside a database: those that bear the name of one of its side files. */
#ifndef WALREPL_DB_SIDE_STRAY_H
#define WALREPL_DB_SIDE_STRAY_H

#include "db/db.h"

/* A database was removed by entry `index`: its side file `kind`, if there is anything in it, is left. [applier] */
void wrep_stray_leave(struct wrep_db *db, enum wrep_kind kind, uint64_t index);
/* A database of that name begins with entry `index`; `copied`: copied by somebody here. [applier] */
void wrep_strays_begin(struct wrep *w, const char *name, uint64_t index, bool copied);
/* An application opens the database. 0; -EBUSY, with a line: something waits there. db->lock held. */
int wrep_strays_admit(struct wrep_db *db, int flags);
/* Would a database that comes to this name meet one that waits there? */
bool wrep_strays_wait(struct wrep *w, const char *name);
/* They belong to the database `to`, which is about to get the name `from`. 0 or -errno. */
int wrep_strays_move(struct wrep *w, const char *from, const char *to);
/* A side file of the database is gone by no application's doing. An empty file bears its name for a while: who listed
 * the directory before finds it, and removes or copies nothing. [applier] */
void wrep_stray_trace(struct wrep_db *db, enum wrep_kind kind, const struct stat *st);
/* The daemon makes the database's own: what is played goes at once. [applier] */
void wrep_strays_displaced(struct wrep_db *db);
/* Those that were played some time ago go. [snapshotter] */
void wrep_strays_tidy(struct wrep *w);

/* The side files of a database, in SQLite's order. */
extern const enum wrep_kind wrep_side_kinds[3];

#endif
