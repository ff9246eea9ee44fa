/* What was written and not committed is thrown away. */
#ifndef WALREPL_TXN_DISCARD_H
#define WALREPL_TXN_DISCARD_H

#include "db/db.h"

/* Forget what was written and not committed; wrep_txn_unlock() tells the other nodes. db->lock held. */
void wrep_db_drop_overlay(struct wrep_db *db);
/* All who have the database open lose it: the name leads to a new incarnation of its file, and those of
 * its -wal and -shm are forgotten. `lost`: they are to learn that what they wrote is (they learn it anyway
 * where that was not committed yet). False, and nothing happens, while a transaction is undecided, or when the
 * database was removed, so that its names may be another's. The connection of the applier is closed before.
 * Applier only; no lock held. */
bool wrep_db_revoke(struct wrep_db *db, bool lost);
/* The overlay of the database, empty where there was none. db->lock held. */
int wrep_overlay_begin(struct wrep_file *f);

#endif
