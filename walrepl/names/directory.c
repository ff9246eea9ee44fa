/* Directories are made, removed, and get other attributes: what an application asks for, the committed entry, and what
 * the applier does then. */
#include "names/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "apply/applier.h"
#include "base/io.h"
#include "base/phase.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/directory.h"
#include "db/stray.h"
#include "record/entry.h"
#include "sqlite/names.h"
#include "state/state.h"
#include "state/version.h"
#include "txn/proposal.h"

/* ---- what applications ask for ------------------------------------------------------------------ */

int wrep_mkdir(struct wrep *w, const char *path, const struct wrep_new_file *as, struct wrep_op *op)
{
	struct wrep_entry e = {.type = WREP_ENTRY_MKDIR,
			       .mode = as->mode & 07777,
			       .uid = as->uid,
			       .gid = as->gid};
	enum wrep_kind kind;

	if (!wrep_names_path_valid(path, strlen(path)))
		return wrep_name_refusal(w, path);
	/* Else a database's side file might find its place taken. */
	if (wrep_name_kind(w, path, &kind))
		return -EPERM;
	if (!atomic_load(&w->may_write))
		return -EROFS;
	strcpy(e.name, path);
	return wrep_propose(w, NULL, &e, 0, op);
}

int wrep_rmdir(struct wrep *w, const char *path, struct wrep_op *op)
{
	struct wrep_entry e = {.type = WREP_ENTRY_RMDIR};
	struct wrep_dir *d;

	if (wrep_dir_lookup(w, path, &d))
		return -ENOENT;
	e.db_id = d->id;
	wrep_dir_unref(d);
	if (wrep_strays_are_in(w, path))
		return -ENOTEMPTY;
	if (!atomic_load(&w->may_write))
		return -EROFS;
	return wrep_propose(w, NULL, &e, 0, op);
}

int wrep_dir_setattr(struct wrep_dir *d, const struct wrep_attr *attr, struct wrep_op *op)
{
	struct wrep_entry e;

	if (wrep_dir_is_gone(d))
		return -ESTALE;
	if (!atomic_load(&d->w->may_write))
		return -EROFS;
	wrep_setattr_entry(d->id, attr, &e);
	return wrep_propose(d->w, NULL, &e, 0, op);
}

/* ---- on the disk -------------------------------------------------------------------------------- */

struct dir_work {
	struct wrep_work work; /* first */
	struct wrep_dir *dir;  /* a reference */
	struct rlog_buf *buf;  /* the entry, a reference */
	uint64_t index;
	struct wrep_op *op; /* of the application that asked for it, or NULL */
};

static void finish(struct dir_work *work, int rc)
{
	if (work->op)
		work->op->done(work->op, rc);
}

static void cancel(struct wrep *w, struct wrep_work *work)
{
	(void)w;
	finish((struct dir_work *)work, -EIO);
}

static void retire(struct wrep_work *work)
{
	struct wrep_dir *d = ((struct dir_work *)work)->dir;

	pthread_mutex_lock(&d->w->lock);
	d->retired = true;
	pthread_mutex_unlock(&d->w->lock);
}

static void release(struct wrep_work *work)
{
	struct dir_work *d = (struct dir_work *)work;

	wrep_dir_unref(d->dir);
	rlog_buf_unref(d->buf);
	free(d);
}

static void run_mkdir(struct wrep *w, struct wrep_work *work)
{
	struct dir_work *change = (struct dir_work *)work;
	struct wrep_dir *d = change->dir;
	struct wrep_entry e;
	uint64_t logged = 0;
	int rc = wrep_entry_decode(change->buf, &e);

	e.attr_valid = WREP_ATTR_MODE | WREP_ATTR_UID | WREP_ATTR_GID;
	while (!rc && !wrep_dir_is_retired(d)) {
		rc = wrep_dir_ensure(w, d->path, &e);
		if (!wrep_is_shortage(rc) || wrep_stopping(w))
			break;
		wrep_wait_for_space(w, d->path, rc, &logged);
		rc = 0;
	}
	if (wrep_dir_is_retired(d)) {
		finish(change, -EIO);
		return;
	}
	if (!rc)
		wrep_dir_show(d, change->index);
	finish(change, rc);
	if (rc && !wrep_stopping(w))
		wrep_fatalf(w,
			    "cannot make a directory name=%s error=%s; repair the disk and mount "
			    "again",
			    d->path, strerror(-rc));
}

static void run_rmdir(struct wrep *w, struct wrep_work *work)
{
	struct dir_work *change = (struct dir_work *)work;
	struct wrep_dir *d = change->dir;

	if (wrep_dir_is_retired(d)) {
		finish(change, -EIO);
		return;
	}
	wrep_dir_hide(d, change->index);
	wrep_strays_end_in(w, d->path);
	unlinkat(w->config.shm_fd, d->path, AT_REMOVEDIR);
	if (unlinkat(w->config.data_fd, d->path, AT_REMOVEDIR) < 0 && errno != ENOENT)
		wrep_logf(w, 'W',
			  "a directory stays in the data directory: somebody put files there "
			  "name=%s error=\"%s\"",
			  d->path, strerror(errno));
	finish(change, 0);
}

static void run_dirattr(struct wrep *w, struct wrep_work *work)
{
	struct dir_work *change = (struct dir_work *)work;
	struct wrep_dir *d = change->dir;
	struct wrep_entry e;
	int fd = -1, rc = wrep_entry_decode(change->buf, &e);

	if (!rc && wrep_dir_is_gone(d))
		rc = -ENOENT;
	if (!rc) {
		fd = wrep_dir_open(w->config.data_fd, d->path);
		rc = fd < 0 ? fd : wrep_dir_apply_attributes(fd, &e);
	}
	if (fd >= 0)
		close(fd);
	pthread_mutex_lock(&w->lock);
	d->changed = true;
	pthread_mutex_unlock(&w->lock);
	finish(change, rc);
}

static const struct wrep_work_ops mkdir_ops = {
	.name = "mkdir",
	.run = run_mkdir,
	.cancel = cancel,
	.retire = retire,
	.release = release,
	.follows_log = true,
};

static const struct wrep_work_ops rmdir_ops = {
	.name = "rmdir",
	.run = run_rmdir,
	.cancel = cancel,
	.retire = retire,
	.release = release,
	.follows_log = true,
};

static const struct wrep_work_ops dirattr_ops = {
	.name = "dirattr",
	.run = run_dirattr,
	.cancel = cancel,
	.retire = retire,
	.release = release,
	.follows_log = true,
};

static struct dir_work *new_work(const struct wrep_work_ops *ops, struct wrep_dir *d,
				 uint64_t index)
{
	struct dir_work *work = wrep_work_make(sizeof *work, ops);

	work->dir = wrep_dir_ref(d);
	work->index = index;
	wrep_work_is_about(&work->work, d->id);
	return work;
}

/* Takes `req`. */
static void push(struct wrep *w, struct dir_work *work, struct rlog_buf *buf,
		 struct rlog_request *req)
{
	work->buf = rlog_buf_ref(buf);
	work->op = wrep_proposal_take_op(req, NULL);
	work->work.bytes = buf->len;
	wrep_queue_push(w->queue, &work->work);
}

/* ---- committed entries -------------------------------------------------------------------------- */

void wrep_mkdir_delivered(struct wrep *w, uint64_t index, const struct wrep_entry *e,
			  struct rlog_buf *buf, struct rlog_request *req)
{
	struct wrep_name_effect effect;
	struct dir_work *work;
	struct wrep_dir *d;
	int rc = wrep_state_change_names(w->state, index, e, &effect);

	if (!rc && effect.verdict != WREP_TAKES_EFFECT) {
		wrep_proposal_finish(req, effect.error);
		return;
	}
	d = rc ? NULL : wrep_dir_new(w, e->name, index);
	if (!d) {
		wrep_proposal_finish(req, -ENOMEM);
		wrep_fatalf(w, "out of memory while making a directory name=%s", e->name);
		return;
	}
	wrep_state_attach(w->state, index, d); /* with the reference */
	work = new_work(&mkdir_ops, d, index);
	wrep_work_is_about(&work->work, effect.parent);
	push(w, work, buf, req);
}

void wrep_dir_delivered(struct wrep *w, uint64_t index, const struct wrep_entry *e,
			struct rlog_buf *buf, struct rlog_request *req)
{
	bool removes = e->type == WREP_ENTRY_RMDIR;
	struct wrep_name_effect effect;
	struct dir_work *work;

	wrep_state_change_names(w->state, index, e, &effect);
	if (effect.verdict != WREP_TAKES_EFFECT) {
		wrep_proposal_finish(req, effect.error);
		return;
	}
	work = new_work(removes ? &rmdir_ops : &dirattr_ops, effect.data, index);
	if (removes) {
		wrep_work_is_about(&work->work, effect.parent);
		wrep_dir_unref(effect.data); /* that of the state */
	}
	push(w, work, buf, req);
}
