/* Files of databases made durable. */
#ifndef WALREPL_DB_SYNC_H
#define WALREPL_DB_SYNC_H

#include "db/db.h"

/* The files of a database that are to be synced. */
struct wrep_synced {
	struct wrep_file *files[2]; /* the database's, and its -wal or NULL; references */
};
/* Of a database that is held; the hold passes to `s`. db->lock held. */
void wrep_synced_take(struct wrep_db *db, struct wrep_synced *s, bool wal);
void wrep_synced_drop(struct wrep_db *db, struct wrep_synced *s); /* no lock held */
/* Make them durable. 0, or -errno: the node stops. No lock held. */
int wrep_db_sync(struct wrep_db *db, const struct wrep_synced *s);
void wrep_unsynced_trim(struct wrep *w);

/* A sync failed, errno says why: the node stops. Returns -errno. */
int wrep_db_sync_failed(struct wrep_db *db);

#endif
