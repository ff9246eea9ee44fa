/* Directories made and removed, files removed, databases renamed.
 *
 * walrepl knows a thing by its path (path.c), and answers once the entry is committed.
 */
#include "ops/name.h"

#include <errno.h>
#include "ops/admission.h"
#include "ops/lookup.h"
#include "ops/path.h"
#include "ops/pending.h"
#include "ops/reply.h"
#include "ops/settle.h"

/* ---- directories --------------------------------------------------------------------------------- */

static void mkdir_done(struct wrep_op *op, int result)
{
	struct fsd_pend *pend = fsd_pend_of(op);

	if (result)
		fuse_reply_err(pend->req, -result);
	else
		fsd_lookup_reply(pend->fs, pend->req, pend->parent, pend->name);
	fsd_pend_unref(pend);
}

void fsd_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct fsd *fs = fsd_of(req);
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	char path[FSD_PATH_SIZE];
	struct fsd_pend *pend = fsd_pend_enter_to_write(req, mkdir_done);
	gid_t gid = ctx->gid;
	int rv;

	if (!pend || !fsd_pend_set_name(pend, name))
		return;
	pend->parent = parent;
	fsd_inherit(fs, parent, &gid, &mode);
	rv = fsd_path(fs, parent, name, path);
	if (!rv)
		rv = wrep_mkdir(fs->wrep, path,
				&(struct wrep_new_file){.mode = mode & 07777,
							.uid = ctx->uid,
							.gid = gid},
				&pend->op);
	if (rv == -EPERM) {
		fsd_refuse(req, "to make a directory called like a database's file", name);
		fsd_pend_unref(pend);
		fsd_leave(fs);
		return;
	}
	fsd_pend_end(fs, pend, rv);
}

void fsd_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fsd *fs = fsd_of(req);
	char path[FSD_PATH_SIZE];
	struct fsd_pend *pend = fsd_pend_enter_to_write(req, fsd_plain_done);
	int rv;

	if (!pend)
		return;
	rv = fsd_path(fs, parent, name, path);
	if (!rv)
		rv = wrep_rmdir(fs->wrep, path, &pend->op);
	fsd_pend_end(fs, pend, rv);
}

/* ---- removal ------------------------------------------------------------------------------------ */

void fsd_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fsd *fs = fsd_of(req);
	char path[FSD_PATH_SIZE];
	struct fsd_pend *pend = fsd_pend_enter_to_write(req, fsd_plain_done);
	int rv;

	if (!pend)
		return;
	pend->op.tid = pend->tid;
	rv = fsd_path(fs, parent, name, path);
	if (!rv) {
		fsd_settle_heard_path(fs, path);
		rv = wrep_unlink(fs->wrep, path, &pend->op);
	}
	fsd_pend_end(fs, pend, rv);
}

/* ---- renaming ------------------------------------------------------------------------------------ */

void fsd_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
		   const char *newname, unsigned int flags)
{
	struct fsd *fs = fsd_of(req);
	char from[FSD_PATH_SIZE], to[FSD_PATH_SIZE];
	struct fsd_pend *pend = fsd_pend_enter_to_write(req, fsd_plain_done);
	int rv;

	if (!pend)
		return;
	rv = fsd_path(fs, parent, name, from);
	if (!rv)
		rv = fsd_path(fs, newparent, newname, to);
	if (!rv && fsd_is_hidden(parent, name))
		rv = -ENOENT;
	if (!rv) {
		fsd_settle_heard_path(fs, from);
		fsd_settle_heard_path(fs, to);
		rv = wrep_rename(fs->wrep, from, to, flags, &pend->op);
	}
	if (rv == -EPERM) {
		fsd_refuse(req, "to rename to or from what is no database", newname);
		fsd_pend_unref(pend);
		fsd_leave(fs);
		return;
	}
	fsd_pend_end(fs, pend, rv);
}
