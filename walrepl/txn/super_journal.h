/* Super-journals: the files by which SQLite commits a transaction over several databases. Private to
 * walrepl.
 *
 * They are local to this node, and live from the commit of a transaction to its end: those that are left
 * when nobody can roll back by them any more are removed (txn/super_journal.c). All functions may be called by any
 * thread; locks are named at each.
 */
#ifndef WALREPL_SUPER_H
#define WALREPL_SUPER_H

#include "db/db.h"

/* The super-journal of that name, with a reference; NULL: there is none. No lock held. */
struct wrep_file *wrep_super_find(struct wrep *w, const char *name);
/* As wrep_create(). */
int wrep_super_create(struct wrep *w, const char *name, const struct wrep_new_file *as,
		      struct wrep_op *op);
/* As wrep_list(). */
int wrep_super_list(struct wrep *w, int (*each)(void *arg, const char *name), void *arg);
/* Opened or closed by an application. -ESTALE: it is gone. */
int wrep_super_open(struct wrep_file *f);
void wrep_super_release(struct wrep_file *f);

/* An application removes it: commits what it is the super-journal of. As wrep_unlink(). */
int wrep_super_unlink(struct wrep *w, const char *name, struct wrep_op *op);

/* Forget all. Their names may go with the databases' (restore.c), or have gone. */
void wrep_super_forget_all(struct wrep *w);

/* The -journal that named `path` is gone, its writer too: so goes the super-journal, if it is of this
 * mount and no other -journal names it. No lock held. */
void wrep_super_orphaned(struct wrep *w, const char *path);

/* An application syncs the database file. If its transaction is one whose super-journal lies outside of
 * this mount, it is committed now, for nobody asks later. db->lock held; as wrep_commit_overlay(). */
int wrep_super_sync(struct wrep_db *db, struct wrep_op *op);

#endif
