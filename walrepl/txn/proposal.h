/* Entries that are no transaction, from the request to its end. */
#ifndef WALREPL_TXN_PROPOSAL_H
#define WALREPL_TXN_PROPOSAL_H

#include "db/db.h"

/* What a SETATTR of a database or directory says. */
void wrep_setattr_entry(uint64_t id, const struct wrep_attr *attr, struct wrep_entry *e);
/* Submit a SETATTR entry: as wrep_submit_meta(). */
int wrep_submit_attr(struct wrep_db *db, const struct wrep_attr *attr, struct wrep_op *op);
/* Submit an entry of CREATE, UNLINK, SETATTR, MKDIR, RMDIR or RENAME; `op` is finished by the applier. */
int wrep_submit_meta(struct wrep *w, struct wrep_db *db, const struct wrep_entry *e, int open_flags,
		     struct wrep_op *op);
/* A request as it comes back to deliver.c: the kind is told by which struct it heads. */
struct wrep_meta_request {
	struct rlog_request request; /* first */
	struct wrep *w;
	int open_flags;
	struct wrep_op *op;
};
/* End the request of a CREATE, UNLINK, SETATTR, MKDIR, RMDIR or RENAME; NULL: it was another node's. */
void wrep_meta_finish(struct rlog_request *req, int result);
/* What the applier has to end when it has done what the entry says; takes `req`. NULL: it was another node's. */
struct wrep_op *wrep_meta_take_op(struct rlog_request *req, int *open_flags);

#endif
