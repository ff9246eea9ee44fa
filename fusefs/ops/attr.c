/* Names, attributes and their changes.
 *
 * The kernel keeps a database's attributes, since SQLite asks for its size in every transaction while
 * the -wal is empty: what applications here change it knows, what the daemon changes is invalidated
 * together with the content. Those of side files it does not keep. It also keeps the names of
 * databases and -wals, once found: a name without a lifetime would be dropped with its last open file, its inode
 * with it, and with that all that was cached of its content; the next program to open the database
 * would read it from the daemon again (ten times the price of a warm point select). A name that
 * meanwhile means another file, or none, is noticed when it is used: walrepl answers ESTALE for a
 * file that is no longer called so, on which the kernel looks the name up again. The names of directories
 * are kept as well, so that a path is not walked by requests, and so is what they mean noticed: whatever
 * is asked of a directory that is gone is answered ESTALE, and its attributes are always asked for. Names
 * that are not there are not kept.
 */
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include <fuse_lowlevel.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "ops/open_queue.h"
#include "ops/ops.h"
#include "ops/refusals.h"
#include "ops/standin.h"

/* `inside`: walrepl may be asked. */
static int root_attr(struct fsd *fs, bool inside, struct stat *st)
{
	if (fstat(fs->data_fd, st))
		return -errno;
	st->st_ino = FUSE_ROOT_ID;
	st->st_nlink = 2 + (inside ? wrep_dir_count(fs->wrep, "") : 0);
	return 0;
}

double fsd_name_timeout(const struct fsd_inode *inode)
{
	struct wrep_file *file = inode->file;
	enum wrep_kind kind = WREP_DB;

	if (!inode->dir)
		kind = file ? wrep_file_kind(file) : WREP_SHM; /* not kept */
	return kind == WREP_DB || kind == WREP_WAL ? 3600 : 0;
}

/* A removed file that somebody has open: once it is closed, its name must lead nowhere. */
double fsd_attr_timeout(const struct fsd_inode *inode, const struct stat *st)
{
	struct wrep_file *file = inode->file;

	/* What was asked of a stand-in just now goes for that alone. */
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

/* What `name` is now, with a reference. A file's own "." is asked for when it is opened by its
 * number (host.c) and the kernel does not know it. */
static int look_up(struct fsd *fs, fuse_ino_t parent, const char *name, struct fsd_inode **out)
{
	char path[FSD_PATH_SIZE];
	struct wrep_file *file;
	struct wrep_dir *dir;
	int rv;

	if (!strcmp(name, ".")) {
		*out = fsd_inode_find(fs, parent);
		return *out ? 0 : -ESTALE;
	}
	rv = fsd_path(fs, parent, name, path);
	if (rv)
		return rv;
	if (wrep_dir_lookup(fs->wrep, path, &dir) == 0) {
		*out = fsd_inode_of_dir(fs, dir);
		return *out ? 0 : -ENOMEM;
	}
	rv = wrep_lookup(fs->wrep, path, &file);
	if (rv)
		return rv;
	*out = fsd_inode_of(fs, file);
	return *out ? 0 : -ENOMEM;
}

/* Answer a lookup: `rv` is what look_up() returned. Takes the inode. */
static void lookup_answer(struct fsd *fs, fuse_req_t req, struct fsd_inode *inode, int rv)
{
	struct fuse_entry_param entry = {0};

	if (!rv)
		rv = fsd_inode_attr(inode, &entry.attr);
	if (rv) {
		fuse_reply_err(req, -rv);
	} else {
		entry.ino = inode->id;
		entry.entry_timeout = fsd_name_timeout(inode);
		entry.attr_timeout = fsd_attr_timeout(inode, &entry.attr);
		fsd_inode_looked_up(fs, inode);
		if (fuse_reply_entry(req, &entry))
			fsd_inode_forget(fs, entry.ino, 1);
	}
	if (inode)
		fsd_inode_unref(fs, inode);
}

void fsd_lookup_reply(struct fsd *fs, fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fsd_inode *inode = NULL;
	int rv = look_up(fs, parent, name, &inode);

	/* A fetch has begun since: whoever asks again waits. */
	lookup_answer(fs, req, inode, rv == -EAGAIN ? -ETIMEDOUT : rv);
}

static void lookup_ready(struct wrep_op *op, int result)
{
	struct fsd_pend *pend = (struct fsd_pend *)op;
	struct fsd_inode *inode = NULL;

	if (!result || result == -ETIMEDOUT) {
		result = look_up(pend->fs, pend->parent, pend->name, &inode);
		if (result == -EAGAIN)
			result = -ETIMEDOUT;
	}
	fsd_opens_remove(pend, result);
	lookup_answer(pend->fs, pend->req, inode, result);
	fsd_pend_unref(pend);
}

/* A node that has not caught up does not know yet which names there are: "no such file" would be a
 * wrong answer, on which SQLite makes a new database. */
void fsd_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fsd *fs = fsd_of(req);
	struct fsd_inode *inode = NULL;
	struct fsd_pend *pend;
	int rv;

	if (fsd_is_hidden(parent, name)) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	if (!fsd_enter(fs, req))
		return;
	if (wrep_is_ready(fs->wrep) || fsd_is_internal(fs, req)) {
		fsd_lookup_reply(fs, req, parent, name);
		fsd_leave(fs);
		return;
	}
	rv = look_up(fs, parent, name, &inode);
	if (inode)
		fsd_inode_unref(fs, inode);
	pend = fsd_pend_new(fs, req);
	if (pend)
		pend->name = strdup(name);
	if (!pend || !pend->name) {
		fuse_reply_err(req, ENOMEM);
		if (pend)
			fsd_pend_unref(pend);
		fsd_leave(fs);
		return;
	}
	pend->parent = parent;
	pend->is_known = rv != -EAGAIN;
	rv = fsd_wait_ready(pend, lookup_ready);
	if (rv != WREP_PENDING)
		lookup_ready(&pend->op, rv);
	fsd_leave(fs);
}

void fsd_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
	struct fsd *fs = fsd_of(req);

	if (fsd_enter_as(fs, req, true)) {
		fsd_inode_forget(fs, ino, lookups);
		fsd_leave(fs);
	}
	fuse_reply_none(req);
}

void fsd_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct fsd *fs = fsd_of(req);

	if (fsd_enter_as(fs, req, true)) {
		for (size_t i = 0; i < count; i++)
			fsd_inode_forget(fs, forgets[i].ino, forgets[i].nlookup);
		fsd_leave(fs);
	}
	fuse_reply_none(req);
}

void fsd_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fsd *fs = fsd_of(req);
	struct fsd_inode *inode;
	struct stat st;
	bool inside;
	int rv;

	if (ino == FUSE_ROOT_ID) {
		atomic_store(&fs->over_uring, fuse_req_is_uring(req));
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

static void setattr_finish(struct fsd_pend *pend, int result)
{
	struct fsd_inode *inode = pend->inode;
	struct stat st;

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
		fuse_reply_attr(pend->req, &st, fsd_attr_timeout(inode, &st));
	fsd_inode_unref(pend->fs, inode);
	fsd_pend_unref(pend);
}

static void setattr_done(struct wrep_op *op, int result)
{
	setattr_finish((struct fsd_pend *)op, result);
}

static void setattr_rest(struct fsd_pend *pend, int result)
{
	if (!result && pend->attr.valid) {
		memset(&pend->op, 0, sizeof(pend->op));
		pend->op.done = setattr_done;
		result = pend->inode->dir
				 ? wrep_dir_setattr(pend->inode->dir, &pend->attr, &pend->op)
				 : wrep_file_setattr(pend->inode->file, &pend->attr, &pend->op);
	}
	if (result != WREP_PENDING)
		setattr_finish(pend, result);
}

static void truncate_done(struct wrep_op *op, int result)
{
	setattr_rest((struct fsd_pend *)op, result);
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
	int rv;

	attr.valid = (valid & FUSE_SET_ATTR_MODE ? WREP_ATTR_MODE : 0) |
		     (valid & FUSE_SET_ATTR_UID ? WREP_ATTR_UID : 0) |
		     (valid & FUSE_SET_ATTR_GID ? WREP_ATTR_GID : 0);
	wanted_times(st, valid, &attr);
	if (ino == FUSE_ROOT_ID) {
		setattr_root(req, &attr);
		return;
	}
	if (!fsd_enter_to_write(fs, req))
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
	pend->attr = attr;
	if (!pend->inode->file && !pend->inode->dir) {
		setattr_finish(pend, fsd_standin_change(pend->inode));
	} else if (valid & FUSE_SET_ATTR_SIZE && pend->inode->file) {
		pend->cuts = true;
		pend->op.done = truncate_done;
		pend->op.tid = fuse_req_ctx(req)->pid;
		rv = wrep_file_truncate(pend->inode->file, (uint64_t)st->st_size, fi != NULL,
					&pend->op);
		if (rv != WREP_PENDING)
			setattr_rest(pend, rv);
	} else {
		setattr_rest(pend, 0);
	}
	fsd_leave(fs);
}
