/* Directories are made, removed, and get other attributes: what an application asks for, the committed entry, and what
 * the applier does then. */
#include "names/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "apply/applier.h"
#include "base/io.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/directory.h"
#include "db/stray.h"
#include "record/entry.h"
#include "replica.h"
#include "sqlite/names.h"
#include "state/name_tree.h"
#include "txn/proposal.h"

/* ---- what applications ask for ------------------------------------------------------------------ */

int wrep_mkdir(struct wrep *w, const char *path, mode_t mode, uid_t uid, gid_t gid,
	       struct wrep_op *op)
{
	struct wrep_entry e = {.type = WREP_ENTRY_MKDIR,
			       .mode = mode & 07777,
			       .uid = uid,
			       .gid = gid};
	enum wrep_kind kind;

	if (!wrep_names_path_valid(path, strlen(path)))
		return wrep_name_refusal(w, path);
	/* Else a database's side file might find its place taken. */
	if (wrep_name_kind(w, path, &kind))
		return -EPERM;
	if (!atomic_load(&w->may_write))
		return -EROFS;
	strcpy(e.name, path);
	return wrep_submit_meta(w, NULL, &e, 0, op);
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
	return wrep_submit_meta(w, NULL, &e, 0, op);
}

int wrep_dir_setattr(struct wrep_dir *d, const struct wrep_attr *attr, struct wrep_op *op)
{
	struct wrep_entry e;

	if (wrep_dir_is_gone(d))
		return -ESTALE;
	if (!atomic_load(&d->w->may_write))
		return -EROFS;
	wrep_setattr_entry(d->id, attr, &e);
	return wrep_submit_meta(d->w, NULL, &e, 0, op);
}

/* ---- committed entries -------------------------------------------------------------------------- */

void wrep_mkdir_delivered(struct wrep *w, uint64_t index, const struct wrep_entry *e,
			  struct rlog_buf *buf, struct rlog_request *req)
{
	struct wrep_item *item;
	int rc = -EIO;

	if (index <= w->names_skip) {
		wrep_meta_finish(req, rc);
		return;
	}
	item = wrep_item_new(WREP_ITEM_MKDIR, NULL);
	item->index = index;
	item->dir = wrep_dir_new(w, e->name, index);
	rc = item->dir ? wrep_tree_add(w->tree, index, e->name, true) : -ENOMEM;
	if (rc == 0) {
		wrep_tree_find(w->tree, index)->data = wrep_dir_ref(item->dir);
		wrep_meta_push(w, item, buf, req);
		return;
	}
	wrep_item_free(item);
	wrep_meta_finish(req, rc);
	if (rc == -ENOMEM)
		wrep_fatalf(w, "out of memory while making a directory name=%s", e->name);
}

void wrep_dir_delivered(struct wrep *w, uint64_t index, const struct wrep_entry *e,
			struct rlog_buf *buf, struct rlog_request *req)
{
	struct wrep_tree_node *n = wrep_tree_find(w->tree, e->db_id);
	struct wrep_item *item;
	struct wrep_dir *d;
	int rc = 0;

	if (!n || !n->is_dir) {
		wrep_meta_finish(req, -ENOENT);
		return;
	}
	d = n->data;
	/* One that is restored with had no effect then: the directory is there. By now it may be empty. */
	if (e->type == WREP_ENTRY_RMDIR)
		rc = index > w->names_skip ? wrep_tree_remove(w->tree, e->db_id) : -EIO;
	if (rc) {
		wrep_meta_finish(req, rc);
		return;
	}
	item = wrep_item_new(e->type == WREP_ENTRY_RMDIR ? WREP_ITEM_RMDIR : WREP_ITEM_DIRATTR,
			     NULL);
	item->index = index;
	item->dir = wrep_dir_ref(d);
	if (e->type == WREP_ENTRY_RMDIR)
		wrep_dir_unref(d); /* that of the tree */
	wrep_meta_push(w, item, buf, req);
}

/* ---- on the disk -------------------------------------------------------------------------------- */

static void finish(struct wrep_item *item, int rc)
{
	if (item->op)
		item->op->done(item->op, rc);
}

void wrep_dir_make(struct wrep *w, struct wrep_item *item)
{
	struct wrep_dir *d = item->dir;
	struct wrep_entry e;
	uint64_t logged = 0;
	int rc = wrep_entry_decode(item->buf, &e);

	e.attr_valid = WREP_ATTR_MODE | WREP_ATTR_UID | WREP_ATTR_GID;
	while (!rc && !wrep_dir_is_retired(d)) {
		rc = wrep_dir_ensure(w, d->path, &e);
		if (!wrep_is_shortage(rc) || wrep_stopping(w))
			break;
		wrep_wait_for_space(w, d->path, rc, &logged);
		rc = 0;
	}
	if (wrep_dir_is_retired(d)) {
		finish(item, -EIO);
		return;
	}
	if (!rc)
		wrep_dir_show(d, item->index);
	finish(item, rc);
	if (rc && !wrep_stopping(w))
		wrep_fatalf(w,
			    "cannot make a directory name=%s error=%s; repair the disk and mount "
			    "again",
			    d->path, strerror(-rc));
}

void wrep_dir_remove(struct wrep *w, struct wrep_item *item)
{
	struct wrep_dir *d = item->dir;

	if (wrep_dir_is_retired(d)) {
		finish(item, -EIO);
		return;
	}
	wrep_dir_hide(d, item->index);
	wrep_strays_end_in(w, d->path);
	unlinkat(w->config.shm_fd, d->path, AT_REMOVEDIR);
	if (unlinkat(w->config.data_fd, d->path, AT_REMOVEDIR) < 0 && errno != ENOENT)
		wrep_logf(w, 'W',
			  "a directory stays in the data directory: somebody put files there "
			  "name=%s error=\"%s\"",
			  d->path, strerror(errno));
	finish(item, 0);
}

void wrep_dir_set_attributes(struct wrep *w, struct wrep_item *item)
{
	struct wrep_dir *d = item->dir;
	struct wrep_entry e;
	int fd = -1, rc = wrep_entry_decode(item->buf, &e);

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
	finish(item, rc);
}
