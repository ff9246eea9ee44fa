/* Open files: opening, creating, reading, writing, closing and removing them.
 *
 * What waits for walrepl is a `struct fsd_pend`: each operation has a `_finish` that replies, called
 * at once or by the op's `done`, and that is the last to touch the pend.
 */
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include <fuse_lowlevel.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "node/log.h"
#include "ops/open_queue.h"
#include "ops/ops.h"
#include "ops/refusals.h"
#include "ops/standin.h"

/* A file handle is the inode, with a reference, whether the applier opened it, and whether what is written
 * through it goes past the kernel's cache; of a stand-in, whether it is no application's (standin.h). */
#define FH_INTERNAL 1ull
#define FH_UNCACHED 2ull
#define FH_BITS (FH_INTERNAL | FH_UNCACHED | FSD_FH_LOCK | FSD_FH_UNCOUNTED)

static struct fsd_inode *fh_inode(uint64_t fh)
{
	return (struct fsd_inode *)(uintptr_t)(fh & ~FH_BITS);
}

static bool fh_internal(uint64_t fh)
{
	return fh & FH_INTERNAL;
}

void fsd_app_opens_sub(struct fsd *fs)
{
	/* The last one to go may be what an unmounted directory was waiting for. */
	if (atomic_fetch_sub(&fs->app_opens, 1) == 1)
		fsd_wake(fs);
}

void fsd_release_app(struct fsd *fs, struct fsd_inode *inode)
{
	if (!inode->standin || !fsd_standin_release(fs, inode))
		wrep_file_release(inode->file, false);
	fsd_inode_unref(fs, inode);
	fsd_app_opens_sub(fs);
}

/* All opens of a -shm share one backing id: the kernel wants that. */
static int backing_get(struct fsd *fs, fuse_req_t req, struct fsd_inode *inode)
{
	int rv = 0;

	pthread_mutex_lock(&fs->backing_lock);
	if (!inode->backing_id)
		inode->backing_id = fuse_passthrough_open(req, wrep_file_fd(inode->file));
	if (inode->backing_id > 0) {
		rv = inode->backing_id;
		inode->backing_opens++;
	} else {
		inode->backing_id = 0;
	}
	pthread_mutex_unlock(&fs->backing_lock);
	return rv;
}

static void backing_put(struct fsd *fs, fuse_req_t req, struct fsd_inode *inode)
{
	pthread_mutex_lock(&fs->backing_lock);
	if (!--inode->backing_opens) {
		fuse_passthrough_close(req, inode->backing_id);
		inode->backing_id = 0;
	}
	pthread_mutex_unlock(&fs->backing_lock);
}

/* The file is open at walrepl: tell the kernel how to treat it. */
static int fill_open(struct fsd_pend *pend, struct fuse_file_info *fi)
{
	struct fsd_inode *inode = pend->inode;

	memset(fi, 0, sizeof(*fi));
	fi->fh = (uint64_t)(uintptr_t)inode | (pend->internal ? FH_INTERNAL : 0);
	/* A killed daemon closes its own files while it no longer answers: no FLUSH for those. */
	fi->noflush = pend->internal;
	if (wrep_file_kind(inode->file) != WREP_SHM) {
		fi->keep_cache = 1; /* what changes is dropped by name (host.c) */
		/* SQLite reads what it writes. A program that only writes needs no cache, and without one
		 * nobody sees what is refused (refusals.c). */
		if (!pend->internal && (pend->flags & O_ACCMODE) == O_WRONLY) {
			fi->direct_io = 1;
			fi->fh |= FH_UNCACHED;
		}
		return 0;
	}
	fi->backing_id = backing_get(pend->fs, pend->req, inode);
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
		backing_put(pend->fs, pend->req, pend->inode);
	if (!pend->internal) {
		fsd_release_app(pend->fs, pend->inode);
		return;
	}
	wrep_file_release(pend->inode->file, true);
	fsd_inode_unref(pend->fs, pend->inode);
}

static void open_finish(struct fsd_pend *pend, int result)
{
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

static void open_done(struct wrep_op *op, int result)
{
	open_finish((struct fsd_pend *)op, result);
}

void fsd_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fsd *fs = fsd_of(req);
	struct fsd_pend *pend;
	int rv;

	if (!(fi->flags & O_TRUNC ? fsd_enter_to_write(fs, req) : fsd_enter(fs, req)))
		return;
	pend = fsd_pend_new(fs, req);
	if (pend)
		pend->inode = fsd_inode_find(fs, ino);
	if (!pend || !pend->inode) {
		fuse_reply_err(req, pend ? ESTALE : ENOMEM);
		free(pend);
		fsd_leave(fs);
		return;
	}
	if (!pend->inode->file && !pend->inode->dir) {
		fsd_standin_open(fs, req, pend->inode, fi->flags);
		fsd_pend_unref(pend);
		fsd_leave(fs);
		return;
	}
	pend->op.done = open_done;
	pend->op.tid = fuse_req_ctx(req)->pid;
	pend->flags = fi->flags;
	pend->internal = fsd_is_internal(fs, req);
	pend->tid = fuse_req_ctx(req)->pid;
	rv = 0;
	if (!pend->internal) {
		atomic_fetch_add(&fs->app_opens, 1);
		rv = fsd_opens_add(pend);
	}
	if (!rv)
		rv = wrep_file_open(pend->inode->file, fi->flags, pend->internal, &pend->op);
	if (rv == WREP_PENDING)
		fsd_wake(fs); /* to look after it from now on */
	else
		open_finish(pend, rv);
	fsd_leave(fs);
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

static void create_finish(struct fsd_pend *pend, int result)
{
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

static void create_done(struct wrep_op *op, int result)
{
	create_finish((struct fsd_pend *)op, result);
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
	pend = fsd_pend_new(fs, req);
	if (pend)
		pend->name = strdup(path);
	if (!pend || !pend->name) {
		fuse_reply_err(req, ENOMEM);
		free(pend);
		fsd_leave(fs);
		return;
	}
	pend->attr = (struct wrep_attr){.mode = mode & 07777, .uid = ctx->uid, .gid = gid};
	pend->op.done = create_done;
	pend->op.tid = ctx->pid;
	pend->flags = fi->flags;
	pend->internal = fsd_is_internal(fs, req);
	pend->tid = ctx->pid;
	rv = 0;
	if (!pend->internal) {
		atomic_fetch_add(&fs->app_opens, 1);
		rv = fsd_opens_add(pend); /* it may be there, and its open wait */
	}
	if (!rv)
		rv = wrep_create(fs->wrep, path, mode & 07777, ctx->uid, gid, fi->flags,
				 pend->internal, &pend->op);
	if (rv == WREP_PENDING)
		fsd_wake(fs);
	else
		create_finish(pend, rv);
	fsd_leave(fs);
}

/* Closing a descriptor, and fsync: both may be a commit (walrepl's txn/unjournaled.c). */
static void sync_or_flush(fuse_req_t req, struct fuse_file_info *fi,
			  int (*call)(struct wrep_file *f, struct wrep_op *op))
{
	struct fsd *fs = fsd_of(req);
	struct wrep_file *file = fh_inode(fi->fh)->file;
	struct fsd_pend *pend;
	int rv;

	if (!fsd_enter_to_write_as(fs, req, fh_internal(fi->fh))) {
		/* What was written and is committed by this, is not. */
		fuse_reply_err(req, fh_internal(fi->fh) ? 0 : EIO);
		return;
	}
	if (!file) { /* a stand-in: nothing is in it */
		fuse_reply_err(req, 0);
		fsd_leave(fs);
		return;
	}
	pend = fsd_pend_new(fs, req);
	if (!pend) {
		fuse_reply_err(req, ENOMEM);
		fsd_leave(fs);
		return;
	}
	pend->op.done = fsd_plain_done;
	pend->op.tid = fuse_req_ctx(req)->pid;
	rv = call(file, &pend->op);
	if (rv != WREP_PENDING)
		fsd_plain_done(&pend->op, rv);
	fsd_leave(fs);
}

void fsd_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	sync_or_flush(req, fi, wrep_file_flush);
}

void fsd_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct wrep_file *file = fh_inode(fi->fh)->file;

	(void)ino;
	(void)datasync;
	if (!file || (wrep_file_kind(file) != WREP_DB && wrep_file_kind(file) != WREP_STRAY))
		fuse_reply_err(req, 0); /* what counts of it is in the Raft log */
	else
		sync_or_flush(req, fi, wrep_file_sync);
}

void fsd_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fsd *fs = fsd_of(req);
	struct fsd_inode *inode = fh_inode(fi->fh);
	bool internal = fh_internal(fi->fh), locks = fi->fh & FSD_FH_LOCK;
	bool uncounted = fi->fh & FSD_FH_UNCOUNTED;

	/* Else this process is soon gone. */
	if (fsd_enter_to_write_as(fs, req, internal || locks || uncounted)) {
		struct wrep_file *file = inode->file;

		if (file && wrep_file_kind(file) == WREP_SHM)
			backing_put(fs, req, inode);
		if (locks) {
			fsd_standin_release_lock(fs, inode);
		} else if (uncounted) {
			fsd_inode_unref(fs, inode);
		} else if (!internal) {
			fsd_release_app(fs, inode);
		} else {
			wrep_file_release(file, true);
			fsd_inode_unref(fs, inode);
		}
		fsd_leave(fs);
	}
	fuse_reply_err(req, 0);
}

/* ---- data -------------------------------------------------------------------------------------- */

void fsd_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	static _Thread_local char own_buffer[FSD_MAX_WRITE];
	struct fsd *fs = fsd_of(req);
	struct wrep_file *file = fh_inode(fi->fh)->file;
	char *buf = own_buffer, *allocated = NULL;
	size_t room = sizeof(own_buffer);
	ssize_t len;

	if (!fsd_enter(fs, req))
		return;
	/* Over io_uring the reply's place in the ring is the buffer: no copy. */
	if (fuse_req_is_uring(req) && fuse_req_get_payload(req, &buf, &room, NULL)) {
		buf = own_buffer;
		room = sizeof(own_buffer);
	}
	if (size > room)
		buf = allocated = malloc(size);
	if (!file)
		len = fsd_standin_read(fh_inode(fi->fh));
	else
		len = buf ? wrep_file_read(file, buf, size, (uint64_t)off) : -ENOMEM;
	if (len < 0)
		fsd_reply_read_err(req, (int)len);
	else
		fuse_reply_buf(req, buf, (size_t)len);
	free(allocated);
	fsd_leave(fs);
}

static void write_finish(struct fsd_pend *pend, int result)
{
	if (result && pend->cached) {
		fsd_refusals_push(pend, -result);
		return;
	}
	if (result)
		fuse_reply_err(pend->req, -result);
	else
		fuse_reply_write(pend->req, pend->size);
	fsd_pend_unref(pend);
}

static void write_done(struct wrep_op *op, int result)
{
	write_finish((struct fsd_pend *)op, result);
}

/* Of a page that a process has changed in a shared mapping nobody knows which transaction it is to be part of,
 * and where it was read meanwhile. */
static void refuse_mapped(struct fsd_pend *pend, struct wrep_file *file)
{
	static struct fsd_log_limit limit;

	fsd_log_limited(&limit, 'W',
			"write refused: it was made in a shared, writable mapping, which cannot be "
			"replicated; use write(2) file=%s offset=%llu",
			wrep_file_name(file), (unsigned long long)pend->off);
	pend->written_back = true;
	fsd_refusals_push(pend, EIO);
}

void fsd_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
		  struct fuse_file_info *fi)
{
	struct fsd *fs = fsd_of(req);
	struct wrep_file *file = fh_inode(fi->fh)->file;
	struct fsd_pend *pend = fsd_pend_new(fs, req), *spare = NULL;
	int rv;

	if (!pend)
		spare = pend = fsd_refusals_spare(fs, req);
	if (!pend) { /* and another one waits to be refused for that */
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pend->op.done = write_done;
	pend->op.tid = fuse_req_ctx(req)->pid;
	pend->ino = ino;
	pend->off = (uint64_t)off;
	pend->size = size;
	pend->cached = !(fi->fh & FH_UNCACHED);
	/* While it waits, everybody reads it. */
	pend->op.hasty = pend->cached;
	if (spare) {
		write_finish(pend, -ENOMEM);
		return;
	}
	if (!fsd_enter_to_write_as(fs, req, false)) {
		write_finish(pend, -EIO);
		return;
	}
	if (fi->writepage && file) {
		refuse_mapped(pend, file);
	} else {
		/* Writes to a -shm go to its backing file; one that comes here is a mistake. */
		if (!file)
			rv = fsd_standin_change(fh_inode(fi->fh));
		else if (wrep_file_kind(file) == WREP_SHM)
			rv = -EIO;
		else
			rv = wrep_file_write(file, buf, size, (uint64_t)off, &pend->op);
		if (rv != WREP_PENDING)
			write_finish(pend, rv);
	}
	fsd_leave(fs);
}

/* ---- removal ------------------------------------------------------------------------------------ */

void fsd_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fsd *fs = fsd_of(req);
	char path[FSD_PATH_SIZE];
	struct fsd_pend *pend = fsd_pend_enter(req, fsd_plain_done);
	int rv;

	if (!pend)
		return;
	pend->op.tid = fuse_req_ctx(req)->pid;
	rv = fsd_path(fs, parent, name, path);
	if (!rv)
		rv = wrep_unlink(fs->wrep, path, &pend->op);
	if (rv != WREP_PENDING)
		fsd_plain_done(&pend->op, rv);
	fsd_leave(fs);
}
