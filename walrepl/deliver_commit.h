/* A COMMIT, or a GROUP, is delivered. [loop; w->delivery held, no other lock] */
#ifndef WALREPL_DELIVER_COMMIT_H
#define WALREPL_DELIVER_COMMIT_H

#include "base/wrep.h"
#include "record/entry.h"

struct wrep_db;
struct wrep_commit;

/* 1: it took effect; 0: it has none; -EAGAIN: nothing has happened, and this node's files are unfit. */
int wrep_deliver_commit(struct wrep *w, struct wrep_db *db, uint64_t index, uint64_t term,
			const struct wrep_entry *e, struct rlog_buf *buf, struct rlog_request *req);
/* The same for several databases: all or none. */
int wrep_deliver_group(struct wrep *w, uint64_t index, uint64_t term, const struct wrep_entry *e,
		       struct rlog_buf *buf, struct rlog_request *req);
void wrep_deliver_end_own(struct wrep_commit *c, int result);
bool wrep_deliver_is_moving(struct wrep_db *db);

#endif
