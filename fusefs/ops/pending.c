/* Requests in walrepl's hands. */
#include "ops/pending.h"

#include <errno.h>
#include <stdlib.h>
#include "ops/admission.h"
#include "ops/refusals.h"

struct fsd_pend *fsd_pend_new(struct fsd *fs, struct fuse_req *req)
{
	struct fsd_pend *pend = calloc(1, sizeof(*pend));

	if (pend) {
		pend->fs = fs;
		pend->req = req;
		atomic_init(&pend->refs, 1);
	}
	return pend;
}

void fsd_pend_unref(struct fsd_pend *pend)
{
	if (atomic_fetch_sub(&pend->refs, 1) != 1)
		return;
	free(pend->name);
	if (pend->spare)
		fsd_refusals_spare_back(pend->fs);
	else
		free(pend);
}

struct fsd_pend *fsd_pend_enter(fuse_req_t req, void (*done)(struct wrep_op *op, int result))
{
	struct fsd *fs = fsd_of(req);
	struct fsd_pend *pend;

	if (!fsd_enter_to_write(fs, req))
		return NULL;
	pend = fsd_pend_new(fs, req);
	if (pend) {
		pend->op.done = done;
		return pend;
	}
	fuse_reply_err(req, ENOMEM);
	fsd_leave(fs);
	return NULL;
}

void fsd_plain_done(struct wrep_op *op, int result)
{
	struct fsd_pend *pend = (struct fsd_pend *)op;

	fuse_reply_err(pend->req, -result);
	fsd_pend_unref(pend);
}
