/* Files opened and created.
 *
 * An application's open is in the open queue until it is answered, and counts among the files that applications have
 * open from its beginning on. The applier's own opens, through the clone, do neither. A database that this node
 * may not create gets a stand-in (standin.c).
 */
#include "ops/open.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "node/log.h"
#include "node/stop.h"
#include "ops/admission.h"
#include "ops/attr.h"
#include "ops/handle.h"
#include "ops/inode.h"
#include "ops/lookup.h"
#include "ops/open_queue.h"
#include "ops/passthrough.h"
#include "ops/path.h"
#include "ops/pending.h"
#include "ops/reply.h"
#include "ops/standin.h"
#include "ops/standin_file.h"

/* The file is open at walrepl: tell the kernel how to treat it. */
static int fill_open(struct fsd_pend *pend, struct fuse_file_info *fi)
{
	struct fsd_inode *inode = pend->inode;

	memset(fi, 0, sizeof(*fi));
	fi->fh = (uint64_t)(uintptr_t)inode | (pend->internal ? FSD_FH_INTERNAL : 0);
	/* A killed daemon closes its own files while it no longer answers: no FLUSH for those. */
	fi->noflush = pend->internal;
	if (wrep_file_kind(inode->file) != WREP_SHM) {
		fi->keep_cache = 1; /* what changes is dropped by name (host.c) */
		/* SQLite reads what it writes. A program that only writes needs no cache, and without one
		 * nobody sees what is refused (refusals.c). */
		if (!pend->internal && (pend->flags & O_ACCMODE) == O_WRONLY) {
			fi->direct_io = 1;
			fi->fh |= FSD_FH_UNCACHED;
		}
		return 0;
	}
	fi->backing_id = fsd_backing_get(pend->req, inode);
	if (fi->backing_id)
		return 0;
	fsd_log('E', "cannot open by passthrough file=%s: its backing file must lie on a tmpfs",
		wrep_file_name(inode->file));
	return -EIO;
}

/* The kernel did not take the open file: put everything back. Ends the pend's inode reference. */
static void undo_open(struct fsd_pend *pend, const struct fuse_file_info *fi)
{
	if (fi && fi->backing_id)
		fsd_backing_put(pend->req, pend->inode);
	if (!pend->internal) {
		fsd_release_app(pend->fs, pend->inode);
		return;
	}
	wrep_file_release(pend->inode->file, true);
	fsd_inode_unref(pend->fs, pend->inode);
}

static void open_done(struct wrep_op *op, int result)
{
	struct fsd_pend *pend = fsd_pend_of(op);
	struct fsd *fs = pend->fs;
	struct fuse_file_info fi;

	fsd_opens_remove(pend, result);
	if (result) {
		fuse_reply_err(pend->req, -result);
		fsd_inode_unref(fs, pend->inode);
		if (!pend->internal)
			fsd_app_opens_sub(fs);
	} else if (fill_open(pend, &fi)) {
		fuse_reply_err(pend->req, EIO);
		undo_open(pend, NULL);
	} else if (fuse_reply_open(pend->req, &fi)) {
		undo_open(pend, &fi);
	}
	fsd_pend_unref(pend);
}

/* Takes the inode's reference, and answers. */
static void open_standin(struct fsd *fs, fuse_req_t req, struct fsd_inode *inode, int flags)
{
	uint64_t fh_bits;
	int rv = fsd_standin_open(req, inode, flags, &fh_bits);
	struct fuse_file_info fi = {
		.fh = (uint64_t)(uintptr_t)inode | fh_bits,
		.keep_cache = 1,
		.noflush = fh_bits !=
			   0, /* a killed daemon closes its own while it no longer answers */
	};

	if (!rv && !fh_bits)
		fsd_app_opens_add(fs);
	if (rv) {
		fuse_reply_err(req, -rv);
		fsd_inode_unref(fs, inode);
	} else if (fuse_reply_open(req, &fi)) {
		if (fh_bits)
			fsd_inode_unref(fs, inode);
		else
			fsd_release_app(fs, inode);
	}
}

void fsd_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fsd *fs = fsd_of(req);
	struct fsd_pend *pend;
	int rv;

	if (!(fi->flags & O_TRUNC ? fsd_enter_to_write(fs, req) : fsd_enter(fs, req)))
		return;
	pend = fsd_pend_begin(req, open_done);
	if (!pend || !fsd_pend_find_inode(pend, ino))
		return;
	if (!pend->inode->file && !pend->inode->dir) {
		open_standin(fs, req, pend->inode, fi->flags);
		fsd_pend_unref(pend);
		fsd_leave(fs);
		return;
	}
	pend->op.tid = pend->tid;
	pend->flags = fi->flags;
	pend->internal = fsd_is_internal(fs, req);
	rv = 0;
	if (!pend->internal) {
		fsd_app_opens_add(fs);
		rv = fsd_opens_add(pend);
	}
	if (!rv)
		rv = wrep_file_open(pend->inode->file, fi->flags, pend->internal, &pend->op);
	if (rv == WREP_PENDING)
		fsd_stop_wake(fs->stop); /* to look after it from now on */
	fsd_pend_end(fs, pend, rv);
}

/* Only the leader makes a database. Takes the pend. */
static void create_elsewhere(struct fsd_pend *pend)
{
	static struct fsd_log_limit limit;
	enum wrep_kind kind;

	if (wrep_name_kind(pend->fs->wrep, pend->name, &kind) && kind == WREP_DB &&
	    fsd_standin_suits(pend->flags)) {
		fsd_standin_create(pend);
		return;
	}
	fsd_log_limited(
		&limit, 'W',
		"refused to create a database: this node does not lead; do it on the leader name=%s",
		pend->name);
	fuse_reply_err(pend->req, EROFS);
	fsd_app_opens_sub(pend->fs);
	fsd_pend_unref(pend);
}

static void create_done(struct wrep_op *op, int result)
{
	struct fsd_pend *pend = fsd_pend_of(op);
	struct fsd *fs = pend->fs;
	struct fuse_entry_param entry = {0};
	struct fuse_file_info fi;

	if (result == -EROFS && !wrep_is_ready(fs->wrep))
		result = -ETIMEDOUT; /* a fetch has begun: it may be there */
	fsd_opens_remove(pend, result);
	if (result == -EROFS && !pend->internal) {
		create_elsewhere(pend);
		return;
	}
	if (!result) {
		pend->inode = fsd_inode_of(fs, pend->op.file);
		if (!pend->inode)
			result = -ENOMEM;
	}
	if (result) {
		fuse_reply_err(pend->req, -result);
		if (!pend->internal)
			fsd_app_opens_sub(fs);
		fsd_pend_unref(pend);
		return;
	}
	result = fsd_inode_attr(pend->inode, &entry.attr);
	if (!result)
		result = fill_open(pend, &fi);
	if (result) {
		fuse_reply_err(pend->req, -result);
		undo_open(pend, NULL);
		fsd_pend_unref(pend);
		return;
	}
	entry.ino = pend->inode->id;
	entry.entry_timeout = fsd_name_timeout(pend->inode);
	entry.attr_timeout = fsd_attr_timeout(pend->inode, &entry.attr);
	fsd_inode_looked_up(fs, pend->inode);
	if (fuse_reply_create(pend->req, &entry, &fi)) {
		fsd_inode_forget(fs, entry.ino, 1);
		undo_open(pend, &fi);
	}
	fsd_pend_unref(pend);
}

void fsd_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		   struct fuse_file_info *fi)
{
	struct fsd *fs = fsd_of(req);
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	char path[FSD_PATH_SIZE];
	gid_t gid = ctx->gid;
	struct fsd_pend *pend;
	enum wrep_kind kind;
	int rv;

	if (!fsd_enter_to_write(fs, req))
		return;
	rv = fsd_path(fs, parent, name, path);
	if (rv) {
		fuse_reply_err(req, -rv);
		fsd_leave(fs);
		return;
	}
	if (!wrep_name_kind(fs->wrep, path, &kind)) {
		rv = wrep_name_refusal(fs->wrep, path);
		if (rv == -EPERM)
			fsd_refuse(req, "to create", name);
		else
			fuse_reply_err(req, -rv);
		fsd_leave(fs);
		return;
	}
	fsd_inherit(fs, parent, &gid, NULL);
	pend = fsd_pend_begin(req, create_done);
	if (!pend || !fsd_pend_set_name(pend, path))
		return;
	pend->attr = (struct wrep_attr){.mode = mode & 07777, .uid = ctx->uid, .gid = gid};
	pend->op.tid = pend->tid;
	pend->flags = fi->flags;
	pend->internal = fsd_is_internal(fs, req);
	rv = 0;
	if (!pend->internal) {
		fsd_app_opens_add(fs);
		rv = fsd_opens_add(pend); /* it may be there, and its open wait */
	}
	if (!rv)
		rv = wrep_create(fs->wrep, path,
				 &(struct wrep_new_file){mode & 07777, ctx->uid, gid, fi->flags},
				 pend->internal, &pend->op);
	if (rv == WREP_PENDING)
		fsd_stop_wake(fs->stop);
	fsd_pend_end(fs, pend, rv);
}
