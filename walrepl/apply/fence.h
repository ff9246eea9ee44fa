/* The write fence. All functions are called by the applier's thread, without a lock held. */
#ifndef WALREPL_APPLY_FENCE_H
#define WALREPL_APPLY_FENCE_H

#include "base/work.h"
#include "db/db.h"

/* Close the fence of a database, making its connection if there is none. 0, -EBUSY, -errno. */
int wrep_fence_close(struct wrep_db *db);
/* Bring every fence to where it belongs; those that cannot be closed yet are left for the next time. */
void wrep_fences_settle(struct wrep *w);
void wrep_fences_settle_later(struct wrep *w); /* there is one that could not be closed */
/* The last application closed a database that has a fence: its connection may go. No lock held. [any thread] */
void wrep_idle_queue(struct wrep_db *db);
/* Keep `max` of the connections that nobody needs, those of the databases that were closed last. How many
 * others there were. */
unsigned wrep_fences_trim(struct wrep *w, unsigned max);
/* Nobody here has the database open: fold its -wal into the database file and let go of it. 0, -EBUSY, -errno. */
int wrep_fence_make_cold(struct wrep_db *db);
/* SQLite is about to start the -wal over, or to remove it: until wrep_fence_wal_gone() no manifest will count
 * on it. If the last one does, the database file is made durable first. 0, -EBUSY (readers keep frames from
 * being copied, so the -wal stays as it is anyway), -errno. */
int wrep_fence_wal_goes(struct wrep_db *db);
void wrep_fence_wal_gone(struct wrep_db *db);
/* May the next append start the -wal over? SQLite does so once all of it has been copied. */
bool wrep_fence_wal_is_used_up(struct wrep_db *db);

#endif
