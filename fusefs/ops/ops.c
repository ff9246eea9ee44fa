/* The file system's operations, as libfuse's low-level API calls them.
 *
 * Directories of databases and their side files. A handler enters (admission.c), hands the request to walrepl,
 * and answers it at once. Where walrepl answers WREP_PENDING (a commit, a creation, an open before the node has
 * caught up), the request stays with a `struct fsd_pend` (pending.c), and the thread that learns the outcome sends
 * the reply. No handler waits.
 *
 * To add an operation: its handler goes to the file of its kind (file.c, open.c, attr.c, lookup.c, name.c, dir.c),
 * its prototype to that file's header, and a line to the table below.
 *
 * The kernel does by itself, since nothing here asks for it: POSIX and flock locks; the page
 * cache of databases and -wal, kept across opens and dropped only by name (EXPLICIT_INVAL_DATA);
 * reads, writes and mappings of -shm, which go straight to the backing file (passthrough). It keeps
 * names and attributes as lookup.c and attr.c say.
 *
 * fsync is a commit for a database that is written without a journal, and nothing otherwise: what was
 * committed is durable in the Raft log before the write returned, what was not need not be durable at
 * all. fsyncdir is not implemented on purpose: the kernel then answers 0 by itself and asks no more.
 * Extended attributes are left out for the same effect: the
 * kernel asks once and answers EOPNOTSUPP from then on, instead of asking before each write.
 */
#include "ops/ops.h"

#include <errno.h>
#include <sys/statvfs.h>
#include "mount/session.h"
#include "ops/admission.h"
#include "ops/attr.h"
#include "ops/dir.h"
#include "ops/file.h"
#include "ops/lookup.h"
#include "ops/name.h"
#include "ops/open.h"
#include "ops/reply.h"

/* ---- the connection ----------------------------------------------------------------------------- */

static void init(void *userdata, struct fuse_conn_info *conn)
{
	struct fsd *fs = userdata;
	bool passthrough = fuse_set_feature_flag(conn, FUSE_CAP_PASSTHROUGH);

	fuse_set_feature_flag(conn, FUSE_CAP_EXPLICIT_INVAL_DATA);
	fuse_set_feature_flag(conn, FUSE_CAP_EXPORT_SUPPORT); /* the clone opens by number */
	fuse_set_feature_flag(conn, FUSE_CAP_PARALLEL_DIROPS);
	fuse_unset_feature_flag(conn, FUSE_CAP_AUTO_INVAL_DATA);
	fuse_unset_feature_flag(conn, FUSE_CAP_WRITEBACK_CACHE);
	/* So that walrepl can refuse it before anything is open, and tells it from truncate(2). */
	fuse_set_feature_flag(conn, FUSE_CAP_ATOMIC_O_TRUNC);
	fuse_unset_feature_flag(conn, FUSE_CAP_SPLICE_READ);
	if (!fs->uring)
		fuse_unset_feature_flag(conn, FUSE_CAP_OVER_IO_URING);
	conn->max_write = FSD_MAX_WRITE;
	conn->max_background = 64;
	/* Interrupted opens are noticed by open_queue.c; commits are waited for. */
	conn->no_interrupt = 1;
	fsd_session_init_done(fs->session, passthrough);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;

	if (fstatvfs(fsd_of(req)->data_fd, &st))
		fuse_reply_err(req, errno);
	else
		fuse_reply_statfs(req, &st);
}

/* ---- what does not exist here ------------------------------------------------------------------ */

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	fsd_refuse(req, "mknod", name);
}

static void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	fsd_refuse(req, "symlink", name);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	fsd_refuse(req, "link", newname);
}

const struct fuse_lowlevel_ops fsd_ops = {
	.init = init,
	.lookup = fsd_op_lookup,
	.forget = fsd_op_forget,
	.forget_multi = fsd_op_forget_multi,
	.getattr = fsd_op_getattr,
	.setattr = fsd_op_setattr,
	.open = fsd_op_open,
	.create = fsd_op_create,
	.read = fsd_op_read,
	.write = fsd_op_write,
	.flush = fsd_op_flush,
	.fsync = fsd_op_fsync,
	.release = fsd_op_release,
	.opendir = fsd_op_opendir,
	.readdir = fsd_op_readdir,
	.releasedir = fsd_op_releasedir,
	.unlink = fsd_op_unlink,
	.statfs = op_statfs,
	.mknod = op_mknod,
	.mkdir = fsd_op_mkdir,
	.rmdir = fsd_op_rmdir,
	.symlink = op_symlink,
	.link = op_link,
	.rename = fsd_op_rename,
};
