/* The file system's operations, as libfuse's low-level API calls them.
 *
 * Directories of databases and their side files. A request is looked at, handed to walrepl,
 * and answered at once; where walrepl answers WREP_PENDING (a commit, a creation, an open before
 * the node has caught up) the request stays with a `struct fsd_pend` and its reply is sent by the
 * thread that learned the outcome. No handler waits.
 *
 * What the kernel does by itself, since nothing here asks for it: POSIX and flock locks; the page
 * cache of databases and -wal, kept across opens and dropped only by name (EXPLICIT_INVAL_DATA);
 * reads, writes and mappings of -shm, which go straight to the backing file (passthrough). What it
 * keeps of names and attributes stands in ops_attr.c.
 *
 * fsync is a commit for a database that is written without a journal, and nothing otherwise: what was
 * committed is durable in the Raft log before the write returned, what was not need not be durable at
 * all. fsyncdir is not implemented on purpose: the kernel then answers 0 by itself and asks no more.
 * Extended attributes are left out for the same effect: the
 * kernel asks once and answers EOPNOTSUPP from then on, instead of asking before each write.
 */
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include <fuse_lowlevel.h>

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "node/log.h"
#include "ops/open_queue.h"
#include "ops/ops.h"

/* ---- the gate ---------------------------------------------------------------------------------- */

struct fsd *fsd_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* The daemon's own applier, and its cleaner (refusals.c), reach their files through the mount, too. */
bool fsd_is_internal(struct fsd *fs, fuse_req_t req)
{
	pid_t tid = fuse_req_ctx(req)->pid;

	return tid == wrep_applier_tid(fs->wrep) || tid == atomic_load(&fs->cleaner);
}

static _Thread_local bool is_writing; /* this thread is inside, and entered to write */

/* A handle knows who opened it; otherwise the caller is asked, which needs walrepl, so only once inside. */
static bool enter(struct fsd *fs, fuse_req_t req, bool internal, bool to_write)
{
	static _Thread_local bool prepared;
	int gate;

	if (!prepared) {
		/* libfuse ends its ring threads with pthread_cancel(): not inside a handler. */
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		prepared = true;
	}
	is_writing = to_write;
	atomic_fetch_add(&fs->inside, 1);
	if (to_write)
		atomic_fetch_add(&fs->inside_to_write, 1);
	gate = atomic_load(&fs->gate);
	if (gate == FSD_GATE_OPEN ||
	    (gate == FSD_GATE_READING &&
	     (!to_write || internal || fuse_req_ctx(req)->pid == atomic_load(&fs->applier))))
		return true;
	fsd_leave(fs);
	return false;
}

bool fsd_enter_as(struct fsd *fs, fuse_req_t req, bool internal)
{
	return enter(fs, req, internal, false);
}

bool fsd_enter_to_write_as(struct fsd *fs, fuse_req_t req, bool internal)
{
	return enter(fs, req, internal, true);
}

void fsd_leave(struct fsd *fs)
{
	if (is_writing)
		atomic_fetch_sub(&fs->inside_to_write, 1);
	is_writing = false;
	atomic_fetch_sub(&fs->inside, 1);
}

bool fsd_enter(struct fsd *fs, fuse_req_t req)
{
	if (fsd_enter_as(fs, req, false))
		return true;
	fuse_reply_err(req, ENOTCONN);
	return false;
}

bool fsd_enter_to_write(struct fsd *fs, fuse_req_t req)
{
	if (fsd_enter_to_write_as(fs, req, false))
		return true;
	fuse_reply_err(req, EIO);
	return false;
}

void fsd_reply_read_err(fuse_req_t req, int rv)
{
	bool means_damage = rv == -EIO || rv == -ENXIO || rv == -ERANGE;

	fuse_reply_err(req, means_damage ? EBADMSG : -rv);
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

void fsd_ops_close_gate(struct fsd *fs, enum fsd_gate gate)
{
	atomic_store(&fs->gate, (int)gate);
	while (atomic_load(gate == FSD_GATE_SHUT ? &fs->inside : &fs->inside_to_write))
		usleep(500);
}

/* ---- the connection ----------------------------------------------------------------------------- */

static void init(void *userdata, struct fuse_conn_info *conn)
{
	struct fsd *fs = userdata;
	bool passthrough = fuse_set_feature_flag(conn, FUSE_CAP_PASSTHROUGH);

	fuse_set_feature_flag(conn, FUSE_CAP_EXPLICIT_INVAL_DATA);
	fuse_set_feature_flag(conn, FUSE_CAP_EXPORT_SUPPORT); /* host.c opens by number */
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
	/* Interrupted opens are noticed by opens.c; commits are waited for. */
	conn->no_interrupt = 1;
	fsd_mount_init_done(fs, passthrough);
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

bool fsd_is_hidden(fuse_ino_t parent, const char *name)
{
	return parent == FUSE_ROOT_ID && !strncmp(name, FSD_STATE_DIR, strlen(FSD_STATE_DIR));
}

void fsd_refuse(fuse_req_t req, const char *what, const char *name)
{
	static struct fsd_log_limit limit;

	fsd_log_limited(&limit, 'W', "refused %s name=%s: " WREP_NAME_RULE, what, name);
	fuse_reply_err(req, EPERM);
}

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
const size_t fsd_ops_size = sizeof(fsd_ops);
