/* Entries that are no transaction: CREATE, UNLINK, SETATTR, MKDIR, RMDIR, RENAME. An application asks for it, the
 * entry is submitted, and the applier ends the request when it has done what the entry says. */
#include "txn/proposal.h"

#include <errno.h>
#include <stdlib.h>
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "record/entry.h"
#include "txn/sender.h"

static void meta_done(struct rlog_request *req, enum rlog_outcome outcome)
{
	struct wrep_proposal *m = (struct wrep_proposal *)req;

	if (outcome == RLOG_UNKNOWN)
		wrep_logf(m->w, 'W',
			  "outcome unknown: no majority answered in time; the "
			  "application got EIO");
	m->op->done(m->op, outcome == RLOG_REFUSED && !req->error
				   ? -EROFS
				   : wrep_request_error(req, outcome));
	free(m);
}

int wrep_propose(struct wrep *w, struct wrep_db *db, const struct wrep_entry *e, int open_flags,
		 struct wrep_op *op)
{
	struct wrep_proposal *m = calloc(1, sizeof *m);

	(void)db;
	if (!m)
		return -ENOMEM;
	m->request.buf = wrep_entry_encode(e);
	if (!m->request.buf) {
		free(m);
		return -ENOMEM;
	}
	m->request.done = meta_done;
	m->w = w;
	m->open_flags = open_flags;
	m->op = op;
	rlog_submit(w->log, &m->request);
	return WREP_PENDING;
}

int wrep_propose_attr(struct wrep_db *db, const struct wrep_attr *attr, struct wrep_op *op)
{
	struct wrep_entry e;

	wrep_setattr_entry(db->id, attr, &e);
	return wrep_propose(db->w, db, &e, 0, op);
}

void wrep_proposal_finish(struct rlog_request *req, int result)
{
	struct wrep_proposal *m = (struct wrep_proposal *)req;

	if (!m)
		return;
	if (m->op)
		m->op->done(m->op, result);
	free(m);
}

struct wrep_op *wrep_proposal_take_op(struct rlog_request *req, int *open_flags)
{
	struct wrep_proposal *m = (struct wrep_proposal *)req;
	struct wrep_op *op = m ? m->op : NULL;

	if (m && open_flags)
		*open_flags = m->open_flags;
	free(m);
	return op;
}

void wrep_setattr_entry(uint64_t id, const struct wrep_attr *attr, struct wrep_entry *e)
{
	*e = (struct wrep_entry){
		.type = WREP_ENTRY_SETATTR,
		.db_id = id,
		.attr_valid = attr->valid,
		.mode = attr->mode & 07777,
		.uid = attr->uid,
		.gid = attr->gid,
	};
	e->atime_omit = attr->atime.tv_nsec == UTIME_OMIT;
	e->mtime_omit = attr->mtime.tv_nsec == UTIME_OMIT;
	if (!e->atime_omit)
		e->atime_ns = attr->atime.tv_sec * 1000000000LL + attr->atime.tv_nsec;
	if (!e->mtime_omit)
		e->mtime_ns = attr->mtime.tv_sec * 1000000000LL + attr->mtime.tv_nsec;
}
