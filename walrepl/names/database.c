/* A database is created, removed, or gets other attributes: what the applier does to its files then. */
#include "names/database.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "apply/applier.h"
#include "apply/apply.h"
#include "apply/fence.h"
#include "apply/opening.h"
#include "base/attr.h"
#include "base/io.h"
#include "base/phase.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/attach.h"
#include "db/db.h"
#include "db/directory.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/side_stray.h"
#include "db/spool.h"
#include "db/stray.h"
#include "db/table.h"
#include "pages/sumfile.h"
#include "record/entry.h"
#include "snapshot/restore.h"
#include "state/parts.h"
#include "state/version.h"
#include "txn/discard.h"
#include "txn/proposal.h"
#include "txn/sender.h"
#include "txn/streaming.h"

/* Applications have had it open before it was there, and cannot write so far. Not on a node that does not lead,
 * afterwards either: its fence takes over the mount's lock, without a moment between. */
static void hand_to_fence(struct wrep *w, struct wrep_db *db)
{
	int rc = atomic_load(&w->may_write) ? 0 : wrep_fence_close(db);

	w->config.host.let_go(w->config.host_ctx, db->name);
	if (rc && rc != -EBUSY && !wrep_out_of_descriptors(w, rc, db->name))
		wrep_logf(w, 'E', "cannot close the gate of a new database name=%s error=%s",
			  db->name, strerror(-rc));
	if (rc)
		wrep_fences_settle_later(w);
}

/* ---- the work ---------------------------------------------------------------------------------------- */

struct change_work {
	struct wrep_work work; /* first */
	struct wrep_db *db;    /* a reference */
	struct rlog_buf *buf;  /* the entry, a reference */
	uint64_t index;
	struct wrep_op *op; /* of the application that asked for it, or NULL */
	int open_flags;	    /* a CREATE with `op` */
};

static void end(struct change_work *c, int rc)
{
	if (c->op)
		c->op->done(c->op, rc);
}

static void cancel(struct wrep *w, struct wrep_work *work)
{
	(void)w;
	end((struct change_work *)work, -EIO);
}

static void retire(struct wrep_work *work)
{
	wrep_db_retire(((struct change_work *)work)->db);
}

static void release(struct wrep_work *work)
{
	struct change_work *c = (struct change_work *)work;

	wrep_db_unref(c->db);
	rlog_buf_unref(c->buf);
	free(c);
}

/* Takes `req`. */
static void push(struct change_work *c, struct wrep_db *db, uint64_t index, struct rlog_buf *buf,
		 struct rlog_request *req)
{
	c->db = wrep_db_ref(db);
	c->index = index;
	c->buf = rlog_buf_ref(buf);
	c->op = wrep_proposal_take_op(req, &c->open_flags);
	c->work.bytes = buf->len;
	wrep_work_is_about(&c->work, db->id);
	wrep_queue_push(db->w->queue, &c->work);
}

static void run_create(struct wrep *w, struct wrep_work *work)
{
	struct change_work *c = (struct change_work *)work;
	struct wrep_db *db = c->db;
	struct wrep_entry e;
	struct wrep_file *f = NULL;
	uint64_t logged = 0;
	int fd = -1, open_rc = 0, rc = wrep_entry_decode(c->buf, &e);
	bool copies = c->op && wrep_stray_copies(c->open_flags);
	bool adopted = false;

	if (wrep_db_is_removed(db)) { /* retired: what has the name now is another's */
		end(c, -EIO);
		return;
	}
	while (rc == 0) {
		fd = openat(w->config.data_fd, db->name,
			    O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, e.mode);
		if (fd >= 0 || !wrep_is_shortage(-errno) || wrep_stopping(w))
			break;
		wrep_wait_for_space(w, db->name, -errno, &logged);
	}
	if (rc == 0)
		rc = fd < 0 ? -errno : wrep_attr_own(fd, e.mode, e.uid, e.gid);
	wrep_strays_begin(w, db->name, c->index, copies);
	pthread_mutex_lock(&db->lock);
	if (rc == 0)
		rc = wrep_file_make(db, WREP_DB, fd, 0, &f);
	if (rc == 0) {
		db->files[WREP_DB] = f;
		/* (An application that only makes it begins nothing.) */
		if (c->op)
			open_rc =
				wrep_descriptor_is_spare(w, fd)
					? -EMFILE
					: wrep_file_opened(f, copies ? O_WRONLY : 0, false, c->op);
		if (c->op && !open_rc)
			c->op->file = wrep_file_ref(f);
		wrep_db_close_unpinned(db);
	}
	pthread_mutex_unlock(&db->lock);
	if (rc == 0) {
		if (w->config.host.appears)
			adopted = w->config.host.appears(w->config.host_ctx, db->name, f);
		wrep_db_show(db, c->index);
		wrep_dir_touch(w, db->name);
	}
	if (adopted)
		hand_to_fence(w, db);
	wrep_out_of_descriptors(w, open_rc, db->name);
	end(c, rc ? rc : open_rc);
	if (rc < 0) {
		if (fd >= 0)
			close(fd);
		wrep_fatalf(w,
			    "cannot create a database file name=%s error=%s; repair the disk "
			    "and mount again",
			    db->name, strerror(-rc));
	}
}

static void run_unlink(struct wrep *w, struct wrep_work *work)
{
	struct change_work *c = (struct change_work *)work;
	struct wrep_db *db = c->db;
	char name[WREP_NAME_MAX + 16];
	struct wrep_file *f;
	bool retired; /* what has its names now is another's */
	int rc = 0;

	wrep_db_detach(db);
	pthread_mutex_lock(&db->lock);
	retired = db->retired;
	f = wrep_db_file(db, WREP_DB);
	pthread_mutex_unlock(&db->lock);
	for (int k = 0; k < 4 && !retired; k++) {
		wrep_db_backing_name(db, k, name);
		pthread_mutex_lock(&db->lock);
		/* As on a local disk; on other nodes they are the daemon's own. A -journal whose removal would
		 * commit what is lost with the database goes with that. */
		if (c->op && k != WREP_DB && !(k == WREP_JOURNAL && db->overlay))
			wrep_stray_leave(db, k, c->index);
		if (unlinkat(wrep_dir_fd(w, k), name, 0) < 0 && errno != ENOENT)
			rc = -errno;
		if (k == WREP_JOURNAL && !db->pending)
			wrep_db_drop_overlay(db);
		/* A transaction may still be undecided over the -wal: it keeps the capture. */
		if (!db->pending)
			wrep_db_forget_file(db, k);
		wrep_txn_unlock(db);
	}
	wrep_dir_touch(w, db->name);
	if (!retired) {
		wrep_db_hide(db, c->index);
		wrep_sumfile_remove(w->config.state_fd, db->id);
		wrep_wal_aside_remove(w, db->id);
	}
	/* A stat of the name would go on to find what the kernel kept. */
	if (f && !c->op)
		w->config.host.invalidate(w->config.host_ctx, f, 0, 0);
	wrep_file_unref(f);
	end(c, rc);
	if (rc < 0)
		wrep_logf(w, 'E', "cannot remove a database file name=%s error=%s", db->name,
			  strerror(-rc));
}

static void run_setattr(struct wrep *w, struct wrep_work *work)
{
	struct change_work *c = (struct change_work *)work;
	struct wrep_db *db = c->db;
	struct wrep_file *f;
	struct wrep_entry e;
	int rc = wrep_entry_decode(c->buf, &e);

	(void)w;
	pthread_mutex_lock(&db->lock);
	f = db->retired || wrep_db_pin(db, true) ? NULL : wrep_db_file(db, WREP_DB);
	pthread_mutex_unlock(&db->lock);
	if (!f)
		rc = -ENOENT;
	if (!rc) {
		struct wrep_attr attr = wrep_entry_attr(&e);

		rc = wrep_attr_set(f->fd, &attr);
	}
	pthread_mutex_lock(&db->lock);
	db->touched = true;
	if (f)
		wrep_db_unpin(db);
	pthread_mutex_unlock(&db->lock);
	wrep_file_unref(f);
	if (!c->op) /* an application's own change the kernel knows by the reply */
		wrep_db_invalidate(db, WREP_DB, 0, 0);
	end(c, rc);
}

/* ---- committed entries -------------------------------------------------------------------------------- */

static const struct wrep_work_ops create_ops = {
	.name = "create",
	.run = run_create,
	.cancel = cancel,
	.retire = retire,
	.release = release,
	.follows_log = true,
};

static const struct wrep_work_ops unlink_ops = {
	.name = "unlink",
	.run = run_unlink,
	.cancel = cancel,
	.retire = retire,
	.release = release,
	.follows_log = true,
};

static const struct wrep_work_ops setattr_ops = {
	.name = "setattr",
	.run = run_setattr,
	.cancel = cancel,
	.retire = retire,
	.release = release,
	.follows_log = true,
};

void wrep_create_queue(struct wrep_db *db, uint64_t parent, struct rlog_buf *buf,
		       struct rlog_request *req)
{
	struct change_work *c = wrep_work_make(sizeof *c, &create_ops);

	wrep_work_is_about(&c->work, parent);
	push(c, db, db->id, buf, req);
}

void wrep_unlink_queue(struct wrep_db *db, uint64_t index, uint64_t parent, struct rlog_buf *buf,
		       struct rlog_request *req)
{
	struct change_work *c = wrep_work_make(sizeof *c, &unlink_ops);

	wrep_work_is_about(&c->work, parent);
	push(c, db, index, buf, req);
}

void wrep_setattr_queue(struct wrep_db *db, uint64_t index, struct rlog_buf *buf,
			struct rlog_request *req)
{
	push(wrep_work_make(sizeof(struct change_work), &setattr_ops), db, index, buf, req);
}

void wrep_db_unlinked(struct wrep_db *db)
{
	struct wrep_parts *dead;

	pthread_mutex_lock(&db->lock);
	db->removed = true;
	dead = wrep_version_take_parts(&db->state);
	wrep_streaming_forget(db);
	wrep_txn_unlock(db);
	wrep_apply_queue_drop(db->w, wrep_spool_take(dead));
	wrep_db_remove(db);
}
