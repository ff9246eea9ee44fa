/* An application opens a file and closes it. */
#include "file/open.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include "apply/fence.h"
#include "apply/fold.h"
#include "apply/opening.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/departure.h"
#include "db/pin.h"
#include "db/stray.h"
#include "db/table.h"
#include "file/file.h"
#include "file/postponed.h"
#include "file/stray.h"
#include "pages/capture.h"
#include "pages/wal_content.h"
#include "txn/sender.h"
#include "txn/streaming.h"
#include "txn/super_journal.h"
#include "txn/unjournaled.h"

/* A side file is opened with O_TRUNC. SQLite does not, but some programs' own VFS, and whatever copies files.
 * Nothing that is committed by the existence of its content goes so. db->lock held, the database too. */
static int empty_side_file(struct wrep_file *f)
{
	struct wrep_db *db = f->db;
	struct wrep_wal_position at;
	struct stat st;
	bool in_use = false;
	int rc = 0;

	if (fstat(f->fd, &st) < 0)
		return -errno;
	if (!st.st_size)
		return 0;
	if (f->kind == WREP_JOURNAL)
		in_use = db->overlay || db->pending;
	else if (f->kind == WREP_SHM)
		in_use = db->opens || db->fenced; /* mapped */
	else if (f->kind == WREP_WAL)
		in_use = db->fenced || wrep_wal_content_position(db->capture, &at) < 0 ||
			 at.frame_count;
	if (in_use) {
		wrep_logf(db->w, 'W',
			  "refused to empty a file that holds transactions, or is in use name=%s: "
			  "close the database, and copy the database itself first",
			  f->name);
		return -EBUSY;
	}
	if (f->kind == WREP_WAL)
		rc = wrep_capture_truncate(db->capture, 0);
	return rc ? rc : ftruncate(f->fd, 0) < 0 ? -errno : 0;
}

/* May this program write to the -wal or -shm that is there? One that copies, and has not the database open, may not: what
 * it wrote would count as the transactions of who has. 0; -EAGAIN: an application has that open, perhaps not for
 * long; -EBUSY, with a line. db->lock held. */
static int admit_to_side_file(struct wrep_file *f, int flags, struct wrep_op *op)
{
	struct wrep_db *db = f->db;
	struct wrep_host *host = &db->w->config.host;

	if ((f->kind != WREP_WAL && f->kind != WREP_SHM) || !wrep_stray_copies(flags))
		return 0;
	if (!op->tid || (db->files[WREP_DB] &&
			 host->has_open(db->w->config.host_ctx, op->tid, db->files[WREP_DB])))
		return 0; /* some programs' own VFS truncates */
	if (db->opens && !wrep_departure_late(op))
		return -EAGAIN;
	wrep_logf(
		db->w, 'W',
		"refused to write over a file that is in use name=%s: close the database, and copy "
		"the database itself first",
		f->name);
	return -EBUSY;
}

static int open_again(struct wrep_postponed *r)
{
	return wrep_file_open_with(r->file->db, r->file, r->flags, false, r->op);
}

int wrep_file_open_with(struct wrep_db *db, struct wrep_file *f, int flags, bool internal,
			struct wrep_op *op)
{
	struct wrep *w = db->w;
	bool now = f && (internal || f->kind != WREP_DB);
	struct wrep_work *work;
	int rc = 0;

	if (f) {
		pthread_mutex_lock(&db->lock);
		if (!internal && db->files[f->kind] != f)
			rc = -ESTALE;
		else if (!internal && db->damaged)
			rc = -EBADMSG;
		else if (now && !internal)
			rc = admit_to_side_file(f, flags, op);
		if (!rc && now)
			rc = wrep_file_opened(f, flags, internal, op);
		if (!rc && now && !internal && (flags & O_TRUNC)) {
			rc = empty_side_file(f);
			if (rc)
				wrep_db_unpin(db);
		}
		pthread_mutex_unlock(&db->lock);
	}
	if (rc == -EAGAIN && now)
		rc = wrep_postpone_open(f, flags, op);
	if (rc || now)
		return wrep_file_cannot_open(db, rc);
	work = wrep_open_new(db, f, flags, wrep_postpone_open, op);
	rc = wrep_open_park(w, &work);
	if (!rc && f) {
		pthread_mutex_lock(&db->lock);
		if (db->files[WREP_DB] != f) /* just now */
			rc = -ESTALE;
		else if ((atomic_load(&w->may_write) || db->fenced) && !db->unjournaled.ending &&
			 !db->folding && (db->opens || !wrep_fold_is_due(db)))
			rc = wrep_file_opened(f, flags, internal, op);
		else
			rc = WREP_PENDING;
		pthread_mutex_unlock(&db->lock);
	} else if (!rc) {
		rc = WREP_PENDING;
	}
	if (work && rc == WREP_PENDING)
		wrep_open_push(work);
	else
		wrep_work_drop(work);
	if (rc == -EAGAIN)
		rc = wrep_postpone_open(f, flags, op);
	return wrep_file_cannot_open(db, rc);
}

int wrep_postpone_open(struct wrep_file *f, int flags, struct wrep_op *op)
{
	return wrep_postpone(f->db, f,
			     &(struct wrep_postponed){.again = open_again,
						      .end = wrep_op_finish_open,
						      .flags = flags},
			     NULL, op);
}

int wrep_file_open(struct wrep_file *f, int flags, bool internal, struct wrep_op *op)
{
	if (f->kind == WREP_SUPER)
		return wrep_super_open(f);
	if (f->kind == WREP_STRAY)
		return wrep_stray_open(f, flags, op);
	op->state = WREP_OP_OPEN;
	return wrep_file_open_with(f->db, f, flags, internal, op);
}

int wrep_file_adopt(struct wrep_file *f)
{
	struct wrep_op nobody = {0};
	int rc;

	pthread_mutex_lock(&f->db->lock);
	rc = wrep_file_opened(f, 0, false, &nobody);
	pthread_mutex_unlock(&f->db->lock);
	return rc;
}

void wrep_file_release(struct wrep_file *f, bool internal)
{
	struct wrep_db *db = f->db;
	struct wrep_work *revert = NULL;
	bool last = false, idle = false, fold = false;

	if (f->kind == WREP_SUPER) {
		wrep_super_release(f);
		return;
	}
	if (f->kind == WREP_STRAY) {
		wrep_stray_release(f);
		return;
	}
	pthread_mutex_lock(&db->lock);
	if (!internal && f->kind == WREP_DB && !f->revoked) {
		assert(db->opens > 0);
		last = --db->opens == 0;
		if (last) {
			wrep_streaming_stop(db);
			idle = !db->conn_idle && (db->fenced || !atomic_load(&db->w->may_write));
		}
		db->conn_idle |= idle;
		revert = wrep_unjournaled_released(db);
		fold = last && !db->folding && wrep_fold_is_due(db);
		db->folding |= fold;
	}
	wrep_db_ref(db);
	wrep_file_unpin(f);
	wrep_txn_unlock(db);
	if (revert)
		wrep_queue_push(db->w->queue, revert);
	if (fold)
		wrep_fold_queue(db);
	if (idle)
		wrep_idle_queue(db);
	if (last)
		wrep_departures_tick(db->w);
	wrep_db_unref(db);
}
