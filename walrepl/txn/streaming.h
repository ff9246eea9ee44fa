/* What is sent of a transaction before it is complete. db->lock held, but for
 * wrep_ahead_look(). Where something may be to be submitted afterwards, wrep_commit_feed() does it. */
#ifndef WALREPL_TXN_STREAMING_H
#define WALREPL_TXN_STREAMING_H

#include "db/db.h"

/* An ordinary write of the application's is in the -wal: to be fed. */
void wrep_ahead_wrote_wal(struct wrep_db *db);
/* One is in the overlay, where there was nothing yet: to be fed. */
void wrep_ahead_wrote_overlay(struct wrep_db *db, size_t len, uint64_t off);
/* The next part, if there is enough for one and room for it; NULL. */
struct rlog_request *wrep_ahead_next(struct wrep_db *db);
/* Their owner from now on is `c`, the commit of what they are parts of: fills in which images are left to
 * be sent. NULL: there are none, or none of use, and all images are. */
struct wrep_outgoing *wrep_ahead_take(struct wrep_db *db, struct wrep_commit *c);
/* Those that are out now, or NULL. */
struct wrep_outgoing *wrep_ahead_outgoing(struct wrep_db *db);
/* Send no more of the transaction that the application is at, and have discarded what was: to be fed. */
void wrep_ahead_stop(struct wrep_db *db);
void wrep_ahead_forget(struct wrep_db *db); /* and that transaction is over: to be fed */
/* Stop those that lead nowhere, or all. No lock held. */
void wrep_ahead_look(struct wrep *w, bool all);

#endif
