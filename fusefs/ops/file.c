/* Open files: reading, writing, flushing, closing.
 *
 * A write goes to walrepl, which answers it at once or by write_done(). A refused one goes to refusals.c when the
 * kernel has put its bytes into the cache already.
 */
#include "ops/file.h"

#include <errno.h>
#include <stdlib.h>
#include "node/log.h"
#include "ops/admission.h"
#include "ops/handle.h"
#include "ops/inode.h"
#include "ops/passthrough.h"
#include "ops/pending.h"
#include "ops/refusals.h"
#include "ops/reply.h"
#include "ops/settle.h"
#include "ops/standin.h"
#include "ops/standin_file.h"

/* Closing a descriptor, and fsync: both may be a commit (walrepl's txn/unjournaled.c). */
static void sync_or_flush(fuse_req_t req, struct fuse_file_info *fi,
			  int (*call)(struct wrep_file *f, struct wrep_op *op))
{
	struct fsd *fs = fsd_of(req);
	struct wrep_file *file = fsd_fh_inode(fi->fh)->file;
	struct fsd_pend *pend;

	if (!fsd_enter_to_write_as(fs, req, fsd_fh_internal(fi->fh))) {
		/* This would have committed what was written. */
		fuse_reply_err(req, fsd_fh_internal(fi->fh) ? 0 : EIO);
		return;
	}
	if (!file) { /* a stand-in: nothing is in it */
		fuse_reply_err(req, 0);
		fsd_leave(fs);
		return;
	}
	pend = fsd_pend_begin(req, fsd_plain_done);
	if (!pend)
		return;
	pend->op.tid = pend->tid;
	fsd_pend_end(fs, pend, call(file, &pend->op));
}

void fsd_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	sync_or_flush(req, fi, wrep_file_flush);
}

void fsd_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct wrep_file *file = fsd_fh_inode(fi->fh)->file;

	(void)ino;
	(void)datasync;
	fsd_settle_heard(fsd_of(req), fsd_fh_inode(fi->fh));
	if (!file || (wrep_file_kind(file) != WREP_DB && wrep_file_kind(file) != WREP_STRAY))
		fuse_reply_err(req, 0); /* what counts of it is in the Raft log */
	else
		sync_or_flush(req, fi, wrep_file_sync);
}

void fsd_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fsd *fs = fsd_of(req);
	struct fsd_inode *inode = fsd_fh_inode(fi->fh);
	bool internal = fsd_fh_internal(fi->fh), locks = fi->fh & FSD_FH_LOCK;
	bool uncounted = fi->fh & FSD_FH_UNCOUNTED;

	/* Else this process is soon gone. */
	if (fsd_enter_to_write_as(fs, req, internal || locks || uncounted)) {
		struct wrep_file *file = inode->file;

		if (file && wrep_file_kind(file) == WREP_SHM)
			fsd_backing_put(req, inode);
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
	struct wrep_file *file = fsd_fh_inode(fi->fh)->file;
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
		len = fsd_standin_read(fsd_fh_inode(fi->fh));
	else
		len = buf ? wrep_file_read(file, buf, size, (uint64_t)off) : -ENOMEM;
	if (len < 0)
		fsd_reply_read_err(req, (int)len);
	else
		fuse_reply_buf(req, buf, (size_t)len);
	free(allocated);
	fsd_leave(fs);
}

static void write_done(struct wrep_op *op, int result)
{
	struct fsd_pend *pend = fsd_pend_of(op);

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

/* Nobody knows to which transaction a page belongs that a process has changed in a shared mapping, nor who has
 * read it meanwhile. */
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
	struct wrep_file *file = fsd_fh_inode(fi->fh)->file;
	struct fsd_pend *pend = fsd_pend_new(fs, req), *spare = NULL;
	int rv;

	if (!fi->writepage) /* what is written back from a mapping comes without the lock */
		fsd_settle_heard(fs, fsd_fh_inode(fi->fh));
	if (!pend)
		spare = pend = fsd_refusals_spare(fs, req);
	if (!pend) { /* and another one waits to be refused for that */
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pend->op.done = write_done;
	pend->op.tid = pend->tid;
	pend->ino = ino;
	pend->off = (uint64_t)off;
	pend->size = size;
	pend->cached = !(fi->fh & FSD_FH_UNCACHED);
	/* While it waits, everybody reads it. */
	pend->op.hasty = pend->cached;
	if (spare) {
		write_done(&pend->op, -ENOMEM);
		return;
	}
	if (!fsd_enter_to_write_as(fs, req, false)) {
		write_done(&pend->op, -EIO);
		return;
	}
	if (fi->writepage && file) {
		refuse_mapped(pend, file);
		fsd_leave(fs);
		return;
	}
	/* Writes to a -shm go to its backing file; one that comes here is a mistake. */
	if (!file)
		rv = fsd_standin_change(fsd_fh_inode(fi->fh));
	else if (wrep_file_kind(file) == WREP_SHM)
		rv = -EIO;
	else
		rv = wrep_file_write(file, buf, size, (uint64_t)off, &pend->op);
	fsd_pend_end(fs, pend, rv);
}
