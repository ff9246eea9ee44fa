/* Attributes and their changes.
 *
 * The kernel keeps a database's attributes, since SQLite asks for its size in every transaction while
 * the -wal is empty. It knows the changes that applications here make. The daemon's own changes are
 * invalidated together with the content. The attributes of side files and of directories it does not keep.
 *
 * Those of the directory at the top are the attributes of this node's data directory.
 */
#include "ops/attr.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "mount/session.h"
#include "ops/admission.h"
#include "ops/pending.h"
#include "ops/refusals.h"
#include "ops/reply.h"
#include "ops/settle.h"
#include "ops/standin_file.h"

/* `inside`: walrepl may be asked. */
static int root_attr(struct fsd *fs, bool inside, struct stat *st)
{
	if (fstat(fs->data_fd, st))
		return -errno;
	st->st_ino = FUSE_ROOT_ID;
	st->st_nlink = 2 + (inside ? wrep_dir_count(fs->wrep, "") : 0);
	return 0;
}

/* A removed file that somebody has open: once it is closed, its name must lead nowhere. */
double fsd_attr_timeout(const struct fsd_inode *inode, const struct stat *st)
{
	struct wrep_file *file = inode->file;

	/* An answer of a stand-in goes for that alone. */
	return file && !inode->standin && wrep_file_kind(file) == WREP_DB && st->st_nlink ? 3600
											  : 0;
}

int fsd_inode_attr(struct fsd_inode *inode, struct stat *st)
{
	struct wrep_file *file = inode->file;
	int rv;

	memset(st, 0, sizeof(*st));
	if (inode->dir)
		rv = wrep_dir_stat(inode->dir, st);
	else
		rv = file ? wrep_file_stat(file, st) : fsd_standin_attr(inode, st);
	st->st_ino = inode->id;
	return rv;
}

void fsd_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fsd *fs = fsd_of(req);
	struct fsd_inode *inode;
	struct stat st;
	bool inside;
	int rv;

	if (ino == FUSE_ROOT_ID) {
		fsd_session_note_uring(fs->session, fuse_req_is_uring(req));
		inside = fsd_enter_as(fs, req, false);
		rv = root_attr(fs, inside, &st);
		if (rv)
			fsd_reply_read_err(req, rv);
		else
			fuse_reply_attr(req, &st, 0);
		if (inside)
			fsd_leave(fs);
		return;
	}
	if (!fsd_enter(fs, req))
		return;
	inode = fsd_inode_find(fs, ino);
	rv = inode ? fsd_inode_attr(inode, &st) : -ESTALE;
	if (rv)
		fsd_reply_read_err(req, rv);
	else
		fuse_reply_attr(req, &st, fsd_attr_timeout(inode, &st));
	if (inode)
		fsd_inode_unref(fs, inode);
	fsd_leave(fs);
}

static void setattr_done(struct wrep_op *op, int result)
{
	struct fsd_pend *pend = fsd_pend_of(op);
	struct fsd_inode *inode = pend->inode;
	struct stat st;

	fsd_settle_tell(inode);
	if (!result)
		result = fsd_inode_attr(inode, &st);
	if (result && pend->cuts) {
		/* The file may have been cut all the same: the kernel forgets what it knows. */
		pend->ino = inode->id;
		fsd_inode_unref(pend->fs, inode);
		fsd_refusals_push(pend, -result);
		return;
	}
	if (result)
		fuse_reply_err(pend->req, -result);
	else
		fuse_reply_attr(pend->req, &st, 0); /* not to be kept: see settle.c */
	fsd_inode_unref(pend->fs, inode);
	fsd_pend_unref(pend);
}

/* The size is changed, or is to stay: change the rest. Returns as walrepl does. */
static int setattr_rest(struct fsd_pend *pend, int result)
{
	if (!result && pend->attr.valid) {
		memset(&pend->op, 0, sizeof(pend->op));
		pend->op.done = setattr_done;
		result = pend->inode->dir
				 ? wrep_dir_setattr(pend->inode->dir, &pend->attr, &pend->op)
				 : wrep_file_setattr(pend->inode->file, &pend->attr, &pend->op);
	}
	return result;
}

static void truncate_done(struct wrep_op *op, int result)
{
	struct fsd_pend *pend = fsd_pend_of(op);

	result = setattr_rest(pend, result);
	if (result != WREP_PENDING)
		setattr_done(&pend->op, result);
}

static void wanted_times(const struct stat *st, int valid, struct wrep_attr *attr)
{
	struct timespec now;

	if (!(valid & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW |
		       FUSE_SET_ATTR_MTIME_NOW)))
		return;
	attr->valid |= WREP_ATTR_TIMES;
	clock_gettime(CLOCK_REALTIME, &now);
	attr->atime.tv_nsec = UTIME_OMIT;
	attr->mtime.tv_nsec = UTIME_OMIT;
	if (valid & FUSE_SET_ATTR_ATIME)
		attr->atime = st->st_atim;
	if (valid & FUSE_SET_ATTR_MTIME)
		attr->mtime = st->st_mtim;
	if (valid & FUSE_SET_ATTR_ATIME_NOW)
		attr->atime = now;
	if (valid & FUSE_SET_ATTR_MTIME_NOW)
		attr->mtime = now;
}

/* The directory's own attributes are those of this node's data directory. */
static void setattr_root(fuse_req_t req, const struct wrep_attr *attr)
{
	struct fsd *fs = fsd_of(req);
	struct timespec times[2] = {attr->atime, attr->mtime};
	struct stat st;

	if (((attr->valid & WREP_ATTR_MODE) && fchmod(fs->data_fd, attr->mode)) ||
	    ((attr->valid & (WREP_ATTR_UID | WREP_ATTR_GID)) &&
	     fchown(fs->data_fd, attr->valid & WREP_ATTR_UID ? attr->uid : (uid_t)-1,
		    attr->valid & WREP_ATTR_GID ? attr->gid : (gid_t)-1)) ||
	    ((attr->valid & WREP_ATTR_TIMES) && futimens(fs->data_fd, times)))
		fuse_reply_err(req, errno);
	else if (root_attr(fs, false, &st))
		fuse_reply_err(req, EIO);
	else
		fuse_reply_attr(req, &st, 0);
}

void fsd_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int valid,
		    struct fuse_file_info *fi)
{
	struct fsd *fs = fsd_of(req);
	struct wrep_attr attr = {.mode = st->st_mode & 07777, .uid = st->st_uid, .gid = st->st_gid};
	struct fsd_pend *pend;
	int rv = 0;

	attr.valid = (valid & FUSE_SET_ATTR_MODE ? WREP_ATTR_MODE : 0) |
		     (valid & FUSE_SET_ATTR_UID ? WREP_ATTR_UID : 0) |
		     (valid & FUSE_SET_ATTR_GID ? WREP_ATTR_GID : 0);
	wanted_times(st, valid, &attr);
	if (ino == FUSE_ROOT_ID) {
		setattr_root(req, &attr);
		return;
	}
	pend = fsd_pend_enter_to_write(req, setattr_done);
	if (!pend || !fsd_pend_find_inode(pend, ino))
		return;
	fsd_settle_heard(fs, pend->inode);
	pend->attr = attr;
	if (!pend->inode->file && !pend->inode->dir) {
		fsd_pend_end(fs, pend, fsd_standin_change(pend->inode));
		return;
	}
	if (valid & FUSE_SET_ATTR_SIZE && pend->inode->file) {
		pend->cuts = true;
		pend->op.done = truncate_done;
		pend->op.tid = pend->tid;
		rv = wrep_file_truncate(pend->inode->file, (uint64_t)st->st_size, fi != NULL,
					&pend->op);
	}
	if (rv != WREP_PENDING) {
		pend->op.done = setattr_done;
		rv = setattr_rest(pend, rv);
	}
	fsd_pend_end(fs, pend, rv);
}
