/* The databases of this node, by name and by id, and their files. */
#ifndef WALREPL_DB_TABLE_H
#define WALREPL_DB_TABLE_H

#include "db/db.h"

struct wrep_db *wrep_db_ref(struct wrep_db *db);
void wrep_db_unref(struct wrep_db *db);
struct wrep_db *wrep_db_by_name(struct wrep *w, const char *name); /* a reference, or NULL */
struct wrep_db *wrep_db_by_id(struct wrep *w, uint64_t id);
/* Enter a database into the table of ids, or take it out (no entry finds it then). */
struct wrep_db *wrep_db_new(struct wrep *w, const char *name, uint64_t id); /* NULL: no memory */
void wrep_db_remove(struct wrep_db *db);
/* Let its name be found, or not; as of entry `index`. Nothing where it is so already. [applier] */
void wrep_db_show(struct wrep_db *db, uint64_t index);
void wrep_db_hide(struct wrep_db *db, uint64_t index);
void wrep_db_show_locked(struct wrep_db *db); /* w->lock held */
void wrep_db_hide_locked(struct wrep_db *db);
/* Give it another name. w->lock held. 0 or -ENOMEM. [applier] */
int wrep_db_set_name(struct wrep_db *db, const char *name);
/* Snapshot of all databases, also of removed ones whose name is still there: references in a malloc'd
 * array. */
int wrep_db_all(struct wrep *w, struct wrep_db ***out, size_t *count);
/* The database's file of `kind`, with a reference: the current incarnation, which is opened from the
 * backing directory if it is there; NULL if not. db->lock held. */
struct wrep_file *wrep_db_file(struct wrep_db *db, enum wrep_kind kind);
/* Forget the current incarnation of a file (its name went). db->lock held. */
void wrep_db_forget_file(struct wrep_db *db, enum wrep_kind kind);
void wrep_db_backing_name(const struct wrep_db *db, enum wrep_kind kind,
			  char name[WREP_NAME_MAX + 16]);
/* An incarnation over the open backing file `fd`, which it owns from then on; -1: opened with the next
 * hold, `ino` is its inode then. db->lock held. */
int wrep_file_make(struct wrep_db *db, enum wrep_kind kind, int fd, ino_t ino,
		   struct wrep_file **out);
/* Forget what was written and not committed; wrep_txn_unlock() tells the other nodes. db->lock held. */
void wrep_db_drop_overlay(struct wrep_db *db);
/* All who have the database open lose it: the name leads to a new incarnation of its file, and those of
 * its -wal and -shm are forgotten. `lost`: they are to learn that what they wrote is (they learn it anyway
 * where that was not committed yet). False, and nothing happens, while a transaction is undecided, or when the
 * database was removed, so that its names may be another's. The connection of the applier is closed before.
 * Applier only; no lock held. */
bool wrep_db_revoke(struct wrep_db *db, bool lost);
bool wrep_db_is_removed(struct wrep_db *db);
/* What the log says of it comes again: its names are another's. */
void wrep_db_retire(struct wrep_db *db);
/* The undecided transaction is decided: if the database was removed meanwhile, let its files go.
 * db->lock held. */
void wrep_db_settled(struct wrep_db *db);
int wrep_dir_fd(const struct wrep *w, enum wrep_kind kind);

#endif
