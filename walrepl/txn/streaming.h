/* What is sent of a transaction before it is complete. db->lock held, but for wrep_streaming_tick(). "Due": the
 * caller unlocks by wrep_txn_unlock(), which submits what is to be submitted. */
#ifndef WALREPL_TXN_STREAMING_H
#define WALREPL_TXN_STREAMING_H

#include "db/db.h"
#include "txn/sender.h"

/* An ordinary write of the application's is in the -wal: due. */
void wrep_streaming_wrote_wal(struct wrep_db *db);
/* One is in the overlay, where there was nothing yet: due. */
void wrep_streaming_wrote_overlay(struct wrep_db *db, size_t len, uint64_t off);
/* A complete transaction. */
struct wrep_complete {
	enum wrep_commit_mode mode;
	uint32_t page_size, page_count;
	const struct wrep_page_change *changes; /* by page number */
	uint32_t change_count;
};
/* The parts that left ahead of it. */
struct wrep_streamed {
	struct wrep_outgoing *out;
	uint32_t *unsent; /* which of its changes are not in them; malloc'd */
	uint32_t unsent_count;
	uint32_t *dropped; /* pages that are in them and not of it; malloc'd */
	uint32_t dropped_count;
};
/* The caller owns them from now on. False: there are none, or none of use. */
bool wrep_streaming_take(struct wrep_db *db, const struct wrep_complete *c,
			 struct wrep_streamed *s);
/* Send no more of the transaction that the application is at, and have discarded what was: due. */
void wrep_streaming_stop(struct wrep_db *db);
void wrep_streaming_forget(struct wrep_db *db); /* and that transaction is over: due */
/* Stop those that lead nowhere, or all. No lock held. */
void wrep_streaming_tick(struct wrep *w, bool all);

#endif
