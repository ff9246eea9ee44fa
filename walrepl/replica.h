/* What delivery has for the floors below it. */
#ifndef WALREPL_REPLICA_H
#define WALREPL_REPLICA_H

#include "base/wrep.h"
#include "state/parts.h"

struct wrep_db;

/* An entry of `term` was delivered: open transactions of older terms have no COMMIT to come. Takes
 * the locks it needs. [any thread] */
void wrep_parts_drop_dead(struct wrep *w, uint64_t term);

/* It is removed, as the log says: no entry finds it any more. */
void wrep_db_unlinked(struct wrep_db *db);

#endif
