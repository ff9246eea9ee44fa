#include "ops/pending.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "ops/admission.h"
#include "ops/inode.h"

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

struct fsd_pend *fsd_pend_begin(fuse_req_t req, void (*done)(struct wrep_op *op, int result))
{
	struct fsd *fs = fsd_of(req);
	struct fsd_pend *pend = fsd_pend_new(fs, req);

	if (pend) {
		pend->op.done = done;
		return pend;
	}
	fuse_reply_err(req, ENOMEM);
	fsd_leave(fs);
	return NULL;
}

static void begin_failed(struct fsd_pend *pend, int error)
{
	struct fsd *fs = pend->fs;

	fuse_reply_err(pend->req, error);
	fsd_pend_unref(pend);
	fsd_leave(fs);
}

bool fsd_pend_find_inode(struct fsd_pend *pend, uint64_t number)
{
	pend->inode = fsd_inode_find(pend->fs, number);
	if (pend->inode)
		return true;
	begin_failed(pend, ESTALE);
	return false;
}

bool fsd_pend_set_name(struct fsd_pend *pend, const char *name)
{
	pend->name = strdup(name);
	if (pend->name)
		return true;
	begin_failed(pend, ENOMEM);
	return false;
}

void fsd_pend_end(struct fsd *fs, struct fsd_pend *pend, int rv)
{
	if (rv != WREP_PENDING)
		pend->op.done(&pend->op, rv);
	fsd_leave(fs);
}

struct fsd_pend *fsd_pend_enter_to_write(fuse_req_t req,
					 void (*done)(struct wrep_op *op, int result))
{
	return fsd_enter_to_write(fsd_of(req), req) ? fsd_pend_begin(req, done) : NULL;
}

void fsd_plain_done(struct wrep_op *op, int result)
{
	struct fsd_pend *pend = fsd_pend_of(op);

	fuse_reply_err(pend->req, -result);
	fsd_pend_unref(pend);
}
