/* Strays: files that are named like side files of a database and belong to none.
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
#ifndef WALREPL_DB_STRAY_H
#define WALREPL_DB_STRAY_H

#include "db/db.h"

struct wrep_stray {
	struct wrep *w;
	/* guarded by w->stray_lock */
	struct wrep_stray *next;
	struct wrep_file *file; /* the table's reference */
	char *name;
	uint64_t number, index;
	bool left;     /* by a removed database; else copied */
	bool gone;     /* its name is */
	bool complete; /* whoever wrote to it has closed it */
	bool played;   /* its database has what it says: it goes soon, or with a restart */
	uint64_t played_ms;
	/* The COMMIT that it was played with, 0: since then it was not only appended to; and how much of it. */
	uint64_t played_index, played_bytes;
	unsigned opens;
};

/* Does who opens, or makes, a file so copy it? (SQLite opens for reading and writing, and truncates nothing.) */
bool wrep_stray_copies(int flags);
/* In wrep_open(), when the names of the snapshot are known. 0 or -errno. Then, in the end. */
int wrep_strays_load(struct wrep *w);

void wrep_strays_forget_all(struct wrep *w);
/* With a reference, or NULL. */
struct wrep_file *wrep_stray_find(struct wrep *w, const char *name);
/* As wrep_list(), but with whole names. */
int wrep_strays_list(struct wrep *w, int (*each)(void *arg, const char *name), void *arg);
/* Is one of them in this directory, or below? */
bool wrep_strays_are_in(struct wrep *w, const char *path);
/* The directory is gone. [applier] */
void wrep_strays_end_in(struct wrep *w, const char *path);
int wrep_stray_stat(struct wrep_file *f, struct stat *st);
int wrep_stray_setattr(struct wrep_file *f, const struct wrep_attr *attr);
int wrep_stray_unlink(struct wrep *w, const char *name); /* -ENOENT: none is called so */

/* For those who deal with one, below. `_locked`: w->stray_lock held. */

#define WREP_STRAY_ABOUT ".is" /* the suffix of what is said of it */
#define WREP_STRAY_FILE_NAME_SIZE 48
/* Of its file in the state directory; `suffix`: of what is said of it. */
void wrep_stray_file_name(char name[WREP_STRAY_FILE_NAME_SIZE], uint64_t number,
			  const char *suffix);
/* Say on the disk what it is. 0 or -errno. */
int wrep_stray_describe(const struct wrep_stray *s);
void wrep_stray_remove_files(struct wrep *w, uint64_t number);
/* With its file, which has a reference for the table, but not in that yet. NULL: no memory. */
struct wrep_stray *wrep_stray_new(struct wrep *w, const char *name, uint64_t number, bool left);
void wrep_stray_insert_locked(struct wrep_stray *s);
/* Where the table links the one of that name; there NULL: none. */
struct wrep_stray **wrep_stray_link_locked(struct wrep *w, const char *name);
/* Out of the table and off the disk. */
void wrep_stray_drop_locked(struct wrep_stray **from);
int wrep_stray_open_locked(struct wrep_stray *s); /* 0, -ESTALE, -EMFILE, -errno */
void wrep_stray_close_locked(struct wrep_stray *s);
/* From now on it is somebody's copy, and not whole before its close. What is in front of `off` stays. */
int wrep_stray_change_locked(struct wrep_stray *s, uint64_t off);
int wrep_stray_create_locked(struct wrep *w, const char *name, const struct wrep_new_file *as,
			     struct wrep_stray **out);

#endif
