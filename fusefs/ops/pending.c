/* Requests in walrepl's hands. */
#include "ops/pending.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "ops/admission.h"

void fsd_pend_init(struct fsd_pend *pend, struct fsd *fs, fuse_req_t req)
{
	*pend = (struct fsd_pend){.fs = fs, .req = req, .tid = fuse_req_ctx(req)->pid};
	atomic_init(&pend->refs, 1);
}

struct fsd_pend *fsd_pend_new(struct fsd *fs, fuse_req_t req)
{
	struct fsd_pend *pend = malloc(sizeof(*pend));

	if (pend)
		fsd_pend_init(pend, fs, req);
	return pend;
}

void fsd_pend_unref(struct fsd_pend *pend)
{
	if (atomic_fetch_sub(&pend->refs, 1) != 1)
		return;
	free(pend->name);
	if (pend->unused)
		pend->unused(pend);
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
