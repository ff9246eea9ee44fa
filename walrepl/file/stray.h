/* Strays: files that are named like side files of a database and belong to none. Private to walrepl.
 *
 * They are local to this node: in the state directory, under a number, so that nothing takes them for a database's own,
 * and found there again by a restart. There are two sorts. What a removed database *left*: kept, as on a
 * local disk, until somebody removes or renames it, or a database of that name begins. And what was *copied*: by
 * programs that have not the database open, as SQLite has when it makes a side file.
 *
 * How a copied directory becomes what it is on a local disk, whatever came first. The content of a copied -wal or
 * -journal counts when its database is a copy as well. When the copy of a database is closed, what lies beside it,
 * complete, is played into it (playback.h), and both are one transaction, which the close waits for. When
 * the side file is closed after its database, nothing else having been committed to that since and nobody having it
 * open, it is played then, and its close waits. The file goes with that commit. So at each of these closes
 * the replicated database becomes what SQLite would read from the files as they lie there, or the close
 * fails; and a stray is played once, and then goes, since no commit lies between the copy of the database and its own. A
 * stray that is played into nothing waits, and while it does nobody gets the database open: neither is it
 * passed over, nor mixed with what it does not belong to. The remedy stands in a line of the log.
 *
 * The table's lock is a leaf, but for file descriptors: any other may be held.
 */
#ifndef WALREPL_STRAY_H
#define WALREPL_STRAY_H

#include "base/work.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/pin.h"
#include "db/table.h"
#include "file/file.h"
#include "txn/commit.h"
#include "txn/streaming.h"
#include "txn/unjournaled.h"

/* Does who opens, or makes, a file so copy it? (SQLite opens for reading and writing, and truncates nothing.) */
bool wrep_stray_copies(int flags);

/* In wrep_open(), when the names of the snapshot are known. 0 or -errno. Then, in the end. */
int wrep_strays_load(struct wrep *w);
void wrep_strays_forget_all(struct wrep *w);
void wrep_stray_free(struct wrep_stray *s); /* with its file */

/* With a reference, or NULL. */
struct wrep_file *wrep_stray_find(struct wrep *w, const char *name);
/* As wrep_list(), but with whole names. */
int wrep_strays_list(struct wrep *w, int (*each)(void *arg, const char *name), void *arg);
/* Is one of them in this directory, or below? */
bool wrep_strays_are_in(struct wrep *w, const char *path);

/* As wrep_create() and so on. */
int wrep_stray_create(struct wrep *w, const char *name, mode_t mode, uid_t uid, gid_t gid,
		      int flags, struct wrep_op *op);
int wrep_stray_open(struct wrep_file *f, int flags, struct wrep_op *op);
void wrep_stray_release(struct wrep_file *f);
int wrep_stray_write(struct wrep_file *f, const void *buf, size_t len, uint64_t off);
int wrep_stray_truncate(struct wrep_file *f, uint64_t size);
int wrep_stray_stat(struct wrep_file *f, struct stat *st);
int wrep_stray_setattr(struct wrep_file *f, const struct wrep_attr *attr);
int wrep_stray_flush(struct wrep_file *f, struct wrep_op *op);
int wrep_stray_unlink(struct wrep *w, const char *name); /* -ENOENT: none is called so */
int wrep_stray_rename(struct wrep *w, const char *from, const char *to, unsigned flags,
		      struct wrep_op *op);

/* A database was removed by entry `index`: its side file `kind`, if there is anything in it, is left. [applier] */
void wrep_stray_leave(struct wrep_db *db, enum wrep_kind kind, uint64_t index);
/* A database of that name begins with entry `index`; `copied`: copied by somebody here. [applier] */
void wrep_strays_begin(struct wrep *w, const char *name, uint64_t index, bool copied);
/* The directory is gone. [applier] */
void wrep_strays_end_in(struct wrep *w, const char *path);

/* An application opens the database. 0; -EBUSY, with a line: something waits there. db->lock held. */
int wrep_strays_admit(struct wrep_db *db, int flags);
/* Would a database that comes to this name meet one that waits there? */
bool wrep_strays_wait(struct wrep *w, const char *name);
/* They belong to the database `to`, which is about to get the name `from`. 0 or -errno. */
int wrep_strays_move(struct wrep *w, const char *from, const char *to);
/* Play those of the database into its overlay; `*some`: there is something in them. 0 or -errno, with a line. db->lock held. */
int wrep_strays_play(struct wrep_db *db, bool *some);
/* That is committed, with entry `index`. db->lock held. */
void wrep_strays_played(struct wrep_db *db, uint64_t index);
/* A side file of the database is gone by no application's doing. An empty file bears its name for a while: who listed
 * the directory before finds it, and removes or copies nothing. [applier] */
void wrep_stray_trace(struct wrep_db *db, enum wrep_kind kind, const struct stat *st);
/* The daemon makes the database's own: what is played goes at once. [applier] */
void wrep_strays_displaced(struct wrep_db *db);
/* Those that were played some time ago go. [keeper] */
void wrep_strays_tidy(struct wrep *w);

#endif
