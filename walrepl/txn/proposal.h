/* Entries that are no transaction, from the request to its end. */
#ifndef WALREPL_TXN_PROPOSAL_H
#define WALREPL_TXN_PROPOSAL_H

#include "db/db.h"

/* What a SETATTR of a database or directory says. */
void wrep_setattr_entry(uint64_t id, const struct wrep_attr *attr, struct wrep_entry *e);
/* Submit a SETATTR entry: as wrep_propose(). */
int wrep_propose_attr(struct wrep_db *db, const struct wrep_attr *attr, struct wrep_op *op);
/* Submit an entry of CREATE, UNLINK, SETATTR, MKDIR, RMDIR or RENAME; `op` is finished by the applier. */
int wrep_propose(struct wrep *w, struct wrep_db *db, const struct wrep_entry *e, int open_flags,
		 struct wrep_op *op);
/* A request as it comes back to deliver.c: the kind is told by which struct it heads. */
struct wrep_proposal {
	struct rlog_request request; /* first */
	struct wrep *w;
	int open_flags;
	struct wrep_op *op;
};
/* End the request of a CREATE, UNLINK, SETATTR, MKDIR, RMDIR or RENAME; NULL: it was another node's. */
void wrep_proposal_finish(struct rlog_request *req, int result);
/* What the applier has to end when it has done what the entry says; takes `req`. NULL: it was another node's. */
struct wrep_op *wrep_proposal_take_op(struct rlog_request *req, int *open_flags);

#endif
