/* Whose files are open. */
#ifndef WALREPL_DB_PIN_H
#define WALREPL_DB_PIN_H

#include "db/db.h"

void wrep_pin_init(struct wrep *w);
void wrep_pin_destroy(struct wrep *w);
/* Until the counterpart the descriptors of all incarnations in db->files are there. 0; -ENOENT: the
 * database's own is gone from the data directory (wrep_db_missing()); -EMFILE; -errno. `internal`: not
 * for an application. db->lock held. */
int wrep_db_pin(struct wrep_db *db, bool internal);
void wrep_db_unpin(struct wrep_db *db);
/* The counterpart of the hold that an open of `f` took. db->lock held. */
void wrep_file_unpin(struct wrep_file *f);
/* Something that kept the files open has ended: close them if it was the last. db->lock held. */
void wrep_db_close_unpinned(struct wrep_db *db);
/* A hold found the database file missing: repair it. No lock held. */
void wrep_db_missing(struct wrep_db *db);
/* Does `error` say that there are no descriptors left? Then a line says so, now and then. */
bool wrep_out_of_descriptors(struct wrep *w, int error, const char *name);
/* Is this descriptor one of the last, which applications may not use up? */
bool wrep_descriptor_is_spare(const struct wrep *w, int fd);
/* Sync and close some of those that are idle, if they are many. Keeper only. */
bool wrep_unsynced_many(struct wrep *w);
void wrep_unsynced_clear(struct wrep *w); /* nothing is enlisted any more */
/* The undecided transaction is decided: if the database was removed meanwhile, let its files go.
 * db->lock held. */
void wrep_db_settled(struct wrep_db *db);

/* So many idle databases may be unsynced. */
#define WREP_UNSYNCED_MAX 64
/* The first of them if they are more than `max`, else NULL; a reference. */
struct wrep_db *wrep_unsynced_pop(struct wrep *w, unsigned max);

#endif
