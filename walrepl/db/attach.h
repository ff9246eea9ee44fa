/* The daemon's own connection to a database. [applier, no lock held] */
#ifndef WALREPL_DB_ATTACH_H
#define WALREPL_DB_ATTACH_H

#include "db/db.h"

/* Make the connection, if there is none. 0 or -errno. */
int wrep_db_attach(struct wrep_db *db);
/* Let the writers of a database in; its connection goes. */
void wrep_db_detach(struct wrep_db *db);
/* As wrep_conn_checkpoint(). What is copied into the database file is not on the disk yet. */
int wrep_db_checkpoint(struct wrep_db *db, bool all, uint32_t *frames, uint32_t *copied);
/* Drop what the kernel keeps of the database's file of `kind`: as struct wrep_host's `invalidate`. */
void wrep_db_invalidate(struct wrep_db *db, enum wrep_kind kind, uint64_t off, uint64_t len);

#endif
