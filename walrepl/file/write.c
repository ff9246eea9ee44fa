/* An application writes a file. */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "base/io.h"
#include "base/report.h"
#include "db/db.h"
#include "db/files.h"
#include "file/file.h"
#include "file/journal.h"
#include "file/postponed.h"
#include "file/stray.h"
#include "file/wal.h"
#include "pages/capture.h"
#include "pages/overlay.h"
#include "pages/wal_content.h"
#include "snapshot/wal_hold.h"
#include "sqlite/wal_index.h"
#include "txn/commit.h"
#include "txn/discard.h"
#include "txn/journal.h"
#include "txn/sender.h"
#include "txn/streaming.h"
#include "txn/unjournaled.h"

/* ---- a database ------------------------------------------------------------------------------------ */

/* Is that what the database file holds there? */
static bool restores(struct wrep_file *f, const uint8_t *buf, size_t len, uint64_t off)
{
	uint8_t bytes[4096];

	while (len) {
		size_t part = len < sizeof bytes ? len : sizeof bytes;

		if (pread(f->fd, bytes, part, (off_t)off) != (ssize_t)part ||
		    memcmp(bytes, buf, part))
			return false;
		buf += part;
		off += part;
		len -= part;
	}
	return true;
}

/* Something is about to be written into the overlay. */
static void note_difference(struct wrep_file *f, const uint8_t *buf, size_t len, uint64_t off)
{
	struct wrep_db *db = f->db;

	if ((db->differed && !db->journaled) || restores(f, buf, len, off))
		return;
	db->differed = true;
	db->journaled = false;
}

/* A write into the overlay, unless the transaction becomes too large by it. Its rollback must always
 * come through: it brings pages back that may not even have been written yet. */
static int write_overlay(struct wrep_file *f, const void *buf, size_t len, uint64_t off)
{
	struct wrep_db *db = f->db;
	bool again = wrep_overlay_holds(db->overlay, off);
	int rc;

	if (wrep_overlay_bytes_with(db->overlay, len, off) > db->w->config.max_transaction_bytes &&
	    !restores(f, buf, len, off)) {
		wrep_streaming_stop(db);
		return wrep_refuse_large(db);
	}
	note_difference(f, buf, len, off);
	rc = wrep_overlay_write(db->overlay, f->fd, buf, len, off);
	if (!rc && !again)
		wrep_streaming_wrote_overlay(db, len, off);
	return rc;
}

/* Are these zeros behind the end of the file? SQLite makes a file longer by them before it copies pages to there
 * (SQLITE_FCNTL_SIZE_HINT), and to a multiple of SQLITE_FCNTL_CHUNK_SIZE. Outside of a transaction that changes
 * nothing but the size: what is of the database behind the end of the file is in the -wal, and what is not is
 * nobody's. No other node hears of it, and the next one to cut the file may cut it off. db->lock held. */
static bool only_grows(struct wrep_file *f, const uint8_t *buf, size_t len, uint64_t off)
{
	struct stat st;

	return f->db->state.sum.page_count && fstat(f->fd, &st) == 0 &&
	       off >= (uint64_t)st.st_size && buf[0] == 0 && memcmp(buf, buf + 1, len - 1) == 0;
}

static int write_again(struct wrep_postponed *r)
{
	return wrep_file_write(r->file, r->bytes, r->len, r->off, r->op);
}

static int write_database(struct wrep_file *f, const void *buf, size_t len, uint64_t off,
			  struct wrep_op *op)
{
	struct wrep_db *db = f->db;
	bool outside, wal, checkpoint, postpone = false;
	int rc;

	pthread_mutex_lock(&db->lock);
	if (wrep_file_is_unlinked(f) || wrep_file_rollback_pending(db)) {
		rc = wrep_file_is_unlinked(f) ? -EIO : wrep_file_write_later(db, op);
		pthread_mutex_unlock(&db->lock);
		return rc;
	}
	outside = !db->overlay && !wrep_journal_is_hot(db);
	wal = outside && db->local_wal_mode;
	checkpoint = (outside && only_grows(f, buf, len, off)) ||
		     (wal && wrep_wal_check_checkpoint(db, buf, len, off) == 0);
	if (checkpoint) {
		db->unsynced = true;
		rc = wrep_write_all(f->fd, buf, len, off);
	} else if (wal && wrep_wal_has_frames(db)) {
		rc = wrep_file_refuse_write(db, "content that no transaction has committed");
	} else if (wrep_file_is_rollback(db) && restores(f, buf, len, off)) {
		rc = db->overlay ? wrep_overlay_write(db->overlay, f->fd, buf, len, off) : 0;
	} else {
		rc = wrep_unjournaled_admit(f, op);
		if (rc == WREP_PENDING)
			return wrep_unjournaled_put_off(db, op); /* unlocks */
		postpone = rc == -EAGAIN;
		if (!rc)
			rc = wrep_overlay_begin(f);
		if (!rc)
			rc = write_overlay(f, buf, len, off);
		if (rc && !postpone)
			wrep_unjournaled_failed(db);
	}
	wrep_txn_unlock(db);
	if (!postpone)
		return rc;
	return wrep_postpone(db, f,
			     &(struct wrep_postponed){.departure.own = 1,
						      .again = write_again,
						      .off = off,
						      .len = len},
			     buf, op);
}

/* ---- a -wal ---------------------------------------------------------------------------------------- */

static int write_wal_again(struct wrep_deferred *d)
{
	return wrep_file_write(d->file, d->bytes, d->len, d->off, d->op);
}

/* May this be written? 0; WREP_PENDING: when the manifest needs the -wal no more; -errno. db->lock held. */
static int admit_to_wal(struct wrep_file *f, const uint8_t *buf, size_t len, uint64_t off)
{
	struct wrep_db *db = f->db;
	int rc = wrep_wal_goes_on_with_ended(db, off);

	if (rc)
		return rc;
	/* The fence keeps applications out; one that lost its lock is refused here. */
	if (wrep_wal_starts_over(f, buf, len, off)) {
		if (!wrep_wal_may_go(db))
			return -EIO;
		if (db->wal_held)
			return WREP_PENDING;
	}
	if (db->fenced) {
		wrep_commit_log_refused(db, WREP_REFUSED_NO_LEADER);
		return -EIO;
	}
	if (wrep_capture_uncommitted(db->capture, len, off) > db->w->config.max_transaction_bytes) {
		rc = wrep_refuse_large(db);
		wrep_streaming_stop(db);
	}
	return rc;
}

/* The capture does not take it. db->lock held. */
static void log_not_captured(struct wrep_db *db, uint64_t off, int error)
{
	if (error == -EBADMSG)
		/* SQLite before 3.53 after a spill and a ROLLBACK TO: see capture.c */
		wrep_logf(db->w, 'W',
			  "commit refused: this SQLite wrote a transaction that no "
			  "recovery would find; use a newer SQLite, or a larger "
			  "PRAGMA cache_size database=%s",
			  db->name);
	else if (error == -EPERM)
		wrep_logf(db->w, 'W',
			  "write refused: it would change committed frames of "
			  "the -wal database=%s offset=%llu",
			  db->name, (unsigned long long)off);
}

/* Has the writer of the last committed transaction of the -wal yet to publish it? He holds the WAL write lock until
 * he has: what is written to the -wal meanwhile is his, and of that transaction. (Without a wal-index,
 * locking_mode=EXCLUSIVE, nobody can tell.) db->lock held. */
static bool is_unpublished(struct wrep_db *db)
{
	struct wrep_file *shm = wrep_db_file(db, WREP_SHM);
	struct wrep_wal_position at;
	bool is = shm && wrep_wal_content_position(db->capture, &at) == 0 &&
		  wrep_wal_index_lags(shm->fd, at.frame_count, at.salt);

	wrep_file_unref(shm);
	return is;
}

struct wal_write {
	const void *buf;
	size_t len;
	uint64_t off;
	struct wrep_op *op;
	bool unfit; /* it failed, and cannot be taken back */
};

/* A write that was admitted. 0, WREP_PENDING, -errno. db->lock held; wrep_txn_unlock() is to follow. */
static int capture_wal(struct wrep_file *f, struct wal_write *w)
{
	struct wrep_db *db = f->db;
	const struct wrep_wal_txn *txn;
	int rc = wrep_capture_write(db->capture, w->buf, w->len, w->off, &txn);

	if (rc == 1 && txn->repeats && is_unpublished(db)) {
		rc = wrep_capture_committed(db->capture);
		if (rc == -ENOSPC)
			wrep_capture_refused(db->capture);
	} else if (rc == 1) {
		rc = wrep_commit_wal(db, txn, w->op);
	} else if (rc == 0) {
		rc = wrep_write_all(f->fd, w->buf, w->len, w->off);
		if (!rc)
			wrep_streaming_wrote_wal(db);
		else
			w->unfit = wrep_capture_write_failed(db->capture, w->off) < 0;
	} else {
		log_not_captured(db, w->off, rc);
	}
	return rc;
}

static int write_wal(struct wrep_file *f, const void *buf, size_t len, uint64_t off,
		     struct wrep_op *op)
{
	struct wrep_db *db = f->db;
	struct wal_write w = {.buf = buf, .len = len, .off = off, .op = op};
	bool put_off = false;
	int rc;

	pthread_mutex_lock(&db->lock);
	if (wrep_file_is_unlinked(f)) {
		rc = -EIO;
	} else if (db->unjournaled.active && !db->unjournaled.alone) {
		/* It has just left a journal mode in which nothing was committed yet. */
		if (!wrep_file_rollback_pending(db))
			return wrep_unjournaled_put_off(db, op); /* unlocks */
		rc = wrep_file_write_later(db, op);
	} else {
		rc = admit_to_wal(f, buf, len, off);
		put_off = rc == WREP_PENDING;
		if (!rc)
			rc = capture_wal(f, &w);
	}
	wrep_txn_unlock(db);
	if (put_off)
		return wrep_snapshotter_defer(f,
					      &(struct wrep_deferred){.again = write_wal_again,
								      .off = off,
								      .len = len},
					      buf, op);
	if (w.unfit)
		wrep_fatalf(
			db->w,
			"cannot take back a write into the -wal that failed database=%s; repair "
			"the disk and mount again",
			db->name);
	return rc == -EBADMSG ? -EIO : rc;
}

int wrep_file_write(struct wrep_file *f, const void *buf, size_t len, uint64_t off,
		    struct wrep_op *op)
{
	if (f->kind == WREP_SHM)
		return -EIO;
	if (!len)
		return 0;
	switch (f->kind) {
	case WREP_DB:
		return write_database(f, buf, len, off, op);
	case WREP_WAL:
		return write_wal(f, buf, len, off, op);
	case WREP_JOURNAL:
		return wrep_journal_write(f, buf, len, off, op);
	case WREP_SUPER:
		return wrep_write_all(f->fd, buf, len, off);
	case WREP_STRAY:
		return wrep_stray_write(f, buf, len, off);
	case WREP_SHM:
		break;
	}
	return -EIO;
}
