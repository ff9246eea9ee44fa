/* A session without a journal is taken back. */
#ifndef WALREPL_TXN_REVERT_H
#define WALREPL_TXN_REVERT_H

#include "base/work.h"
#include "db/db.h"
#include "txn/commit.h"

/* The session `sequence`, if it is still there, and what ended it; then `result` is told to those who wait for
 * `commit`, which is taken, or to `op`. Both may be NULL. */
struct wrep_revert {
	uint64_t sequence;
	enum wrep_trigger trigger;
	struct wrep_commit *commit;
	struct wrep_op *op;
	int result;
};

struct wrep_work *wrep_revert_new(struct wrep_db *db,
				  const struct wrep_revert *what);	    /* to be pushed */
void wrep_revert_queue(struct wrep_db *db, const struct wrep_revert *what); /* no lock held */

#endif
