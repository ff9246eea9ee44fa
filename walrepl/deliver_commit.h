/* A COMMIT, or a GROUP, is delivered. [loop; w->delivery held, no other lock] */
#ifndef WALREPL_DELIVER_COMMIT_H
#define WALREPL_DELIVER_COMMIT_H

#include "base/wrep.h"
#include "record/entry.h"
#include "state/state.h"

struct wrep_db;
struct wrep_commit;

/* A committed entry, as raftlog hands it over. */
struct wrep_delivery {
	struct wrep *w;
	struct wrep_log_position at;
	struct rlog_buf *buf;
	struct rlog_request
		*req; /* of who submitted it here, or NULL; whoever deals with it ends it */
	struct wrep_entry e;
};

/* 0; -EAGAIN: nothing has happened, and this node's files are unfit: it is delivered again, after a fetch. */
int wrep_deliver_commit(struct wrep_delivery *d, struct wrep_db *db);
int wrep_deliver_multi_commit(struct wrep_delivery *d);
/* The transaction of an application here changes nothing in the files that it has open: it takes no
 * effect (-EIO), or the database was retired meanwhile, and it is applied to what has taken its place
 * like any other node's (0). */
void wrep_deliver_end_own(struct wrep_commit *c, int result);

#endif
