/* A transaction of an application here over several databases, on its way through Raft; and what a
 * manifest says of those that took effect (state/multi_list.h). Private to walrepl.
 */
#ifndef WALREPL_TXN_MULTI_COMMIT_H
#define WALREPL_TXN_MULTI_COMMIT_H

#include "db/db.h"
#include "record/manifest.h"

struct wrep_multi_commit {
	struct rlog_request request; /* first */
	struct wrep *w;
	struct wrep_op *op;   /* who waits for it */
	struct wrep_op alone; /* the op of its only member, when it has no other */
	/* One thread at a time is at it: who started it, then who ended the last part of a member. */
	uint32_t current; /* the member whose parts are being submitted, or the next */
	uint32_t count;
	struct wrep_commit *members[]; /* in ascending order of the databases' ids */
};

/* Commit what the overlays of `dbs` hold, by one entry. 0 (there is nothing to be agreed on), WREP_PENDING,
 * -errno. No lock held. */
int wrep_multi_commit_start(struct wrep *w, struct wrep_db **dbs, size_t count, struct wrep_op *op);
/* It took no effect on the files here: forget it, and tell the application. No lock held. */
void wrep_multi_commit_end(struct wrep_multi_commit *g, int result);
/* It is in the files: tell the application. Its members were freed. No lock held. */
void wrep_multi_commit_done(struct wrep_multi_commit *g);

/* ---- what took effect ---- */

/* Put into the manifest what it has to say of groups: everything that is delivered. Takes the lock. */
int wrep_multi_commits_note(struct wrep *w, struct wrep_manifest *m);
/* The snapshot is at `index` now: those before it need not be known any more. Takes the lock. */
void wrep_multi_commits_forget(struct wrep *w, uint64_t index);

#endif
