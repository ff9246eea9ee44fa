/* An application truncates a file. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "db/db.h"
#include "db/departure.h"
#include "db/pin.h"
#include "db/table.h"
#include "file/file.h"
#include "file/journal.h"
#include "file/postponed.h"
#include "file/stray.h"
#include "file/wal.h"
#include "pages/capture.h"
#include "pages/overlay.h"
#include "pages/wal_content.h"
#include "snapshot/wal_hold.h"
#include "sqlite/journal_format.h"
#include "txn/commit.h"
#include "txn/discard.h"
#include "txn/journal.h"
#include "txn/sender.h"
#include "txn/unjournaled.h"

/* Does the database fit into a file that is cut to `size`? A checkpoint gives the file the size that the database
 * had at its last frame, or more: SQLite rounds it up with SQLITE_FCNTL_CHUNK_SIZE. Another transaction may have
 * come since, and elsewhere the files lag what the log says; but what lies behind the end of any transaction in
 * this generation of the -wal, and is of the database now, came with a later one, so it is in there, too.
 * db->lock held. */
static bool is_checkpoint_size(struct wrep_db *db, uint64_t size)
{
	uint64_t whole = db->state.sum.page_size ? size / db->state.sum.page_size : 0;
	uint32_t pages = whole < UINT32_MAX ? (uint32_t)whole : UINT32_MAX;

	if (!pages)
		return false;
	return (db->local_version == db->state.version && pages >= db->state.sum.page_count) ||
	       (wrep_wal_capture(db) &&
		(wrep_wal_content_fits(db->capture, pages) ||
		 (wrep_wal_look_again(db) && wrep_wal_content_fits(db->capture, pages))));
}

static int truncate_again(struct wrep_postponed *r)
{
	return wrep_file_truncate(r->file, r->off, r->opened, r->op);
}

/* db->lock held, released. */
static int truncate_database(struct wrep_file *f, uint64_t size, bool opened, struct wrep_op *op)
{
	struct wrep_db *db = f->db;
	bool written = db->overlay || wrep_journal_is_hot(db);
	struct stat st;
	int rc = 0;

	if (wrep_file_rollback_pending(db)) {
		rc = wrep_file_write_later(db, op);
	} else if (fstat(f->fd, &st) < 0) {
		rc = -errno;
	} else if (!written && (uint64_t)st.st_size == size) {
		rc = 0;
	} else if (!written && (size > (uint64_t)st.st_size
					? opened && db->state.sum.page_count /* as only_grows() */
					: db->local_wal_mode && is_checkpoint_size(db, size))) {
		db->unsynced = true;
		rc = ftruncate(f->fd, (off_t)size) < 0 ? -errno : 0;
	} else if (!written && db->local_wal_mode && wrep_wal_has_frames(db)) {
		rc = wrep_file_refuse_write(db, "a truncation outside of a transaction");
	} else if (opened && wrep_file_is_rollback(db) && (uint64_t)st.st_size == size) {
		rc = db->overlay ? wrep_overlay_truncate(db->overlay, size) : 0;
	} else if (!opened && (written || db->opens) && (!db->opens || wrep_departure_late(op))) {
		rc = -EBUSY; /* truncate(2), beside a writer */
	} else {
		rc = !opened && db->opens ? -EAGAIN : wrep_unjournaled_admit(f, op);
		if (rc == WREP_PENDING)
			return wrep_unjournaled_put_off(db, op); /* unlocks */
		if (rc == -EAGAIN) {
			pthread_mutex_unlock(&db->lock);
			return wrep_postpone(db, f,
					     &(struct wrep_postponed){.departure.own = opened,
								      .again = truncate_again,
								      .opened = opened,
								      .off = size},
					     NULL, op);
		}
		if (!rc)
			rc = wrep_overlay_begin(f);
		if (!rc && wrep_overlay_size(db->overlay) != size) {
			db->differed = true;
			db->journaled = false;
		}
		if (!rc)
			rc = wrep_overlay_truncate(db->overlay, size);
		if (!rc && !opened)
			return wrep_unjournaled_commit(db, WREP_TRIGGER_CLOSE, op); /* unlocks */
		if (!opened)
			wrep_db_drop_overlay(db);
		else if (rc)
			wrep_unjournaled_failed(db);
	}
	wrep_txn_unlock(db);
	return rc;
}

/* The database is held. */
static int truncate_wal(struct wrep_deferred *d)
{
	return wrep_file_truncate(d->file, d->off, true, d->op);
}

static int truncate_file(struct wrep_file *f, uint64_t size, bool opened, struct wrep_op *op)
{
	struct wrep_db *db = f->db;
	struct wrep_commit *shape;
	int rc = 0;

	pthread_mutex_lock(&db->lock);
	if (db->files[f->kind] == f) {
		switch (f->kind) {
		case WREP_DB:
			return truncate_database(f, size, opened, op); /* unlocks */
		case WREP_WAL:
			if (db->fenced || (wrep_wal_is_cut(db, size) && !wrep_wal_may_go(db))) {
				rc = -EIO;
				break;
			}
			if (db->wal_held && wrep_wal_is_cut(db, size)) {
				pthread_mutex_unlock(&db->lock);
				return wrep_snapshotter_defer(
					f,
					&(struct wrep_deferred){.again = truncate_wal, .off = size},
					NULL, op);
			}
			rc = wrep_capture_truncate(db->capture, size);
			break;
		case WREP_JOURNAL:
			if (size >= WREP_JOURNAL_MAGIC_BYTES || !wrep_journal_commits(db))
				break;
			shape = calloc(1, sizeof *shape);
			if (!shape) {
				rc = -ENOMEM;
				break;
			}
			shape->trigger = WREP_TRIGGER_TRUNCATE;
			shape->journal_size = size;
			shape->op = op;
			rc = wrep_commit_overlay(db, shape);
			if (rc)
				return rc; /* unlocked */
			break;
		case WREP_SHM:
		case WREP_SUPER:
		case WREP_STRAY:
			break;
		}
	} else if (f->kind != WREP_SHM) {
		rc = -EIO; /* as wrep_file_write(): it may be a commit */
	}
	if (!rc && ftruncate(f->fd, (off_t)size) < 0) {
		rc = -errno;
		if (f->kind == WREP_WAL && db->files[WREP_WAL] == f)
			wrep_capture_forget(db->capture);
	}
	wrep_txn_unlock(db);
	return rc;
}

int wrep_file_truncate(struct wrep_file *f, uint64_t size, bool opened, struct wrep_op *op)
{
	struct wrep_db *db = f->db;
	int rc;

	if (f->kind == WREP_SUPER)
		return ftruncate(f->fd, (off_t)size) < 0 ? -errno : 0;
	if (f->kind == WREP_STRAY)
		return wrep_stray_truncate(f, size);
	pthread_mutex_lock(&db->lock);
	rc = wrep_db_pin(db, false);
	if (!rc)
		wrep_db_ref(db); /* `f` may go when `op` is done */
	pthread_mutex_unlock(&db->lock);
	if (rc)
		return wrep_file_cannot_open(db, rc);
	rc = f->fd < 0 ? -ESTALE : truncate_file(f, size, opened, op);
	wrep_file_unpin_db(db);
	wrep_db_unref(db);
	return rc;
}
