/* A database that nobody has open is complete in its file. */
#ifndef WALREPL_APPLY_FOLD_H
#define WALREPL_APPLY_FOLD_H

#include "db/db.h"

/* Has the last who had it open left something? db->lock held. */
bool wrep_fold_is_due(struct wrep_db *db);
/* See to that; `db->folding` ends. Applier only, no lock held, not the snapshotter's either. */
void wrep_fold(struct wrep_db *db);
/* The same, in its turn; `db->folding` is set. No lock held. [any thread] */
void wrep_fold_queue(struct wrep_db *db);

#endif
