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

/* db->lock held, released. */
static int write_database(struct wrep_file *f, const void *buf, size_t len, uint64_t off,
			  struct wrep_op *op)
{
	struct wrep_db *db = f->db;
	bool outside, wal, checkpoint;
	int rc;

	if (wrep_file_rollback_pending(db))
		return wrep_file_write_later(db, op); /* unlocks */
	outside = !db->overlay && !wrep_journal_is_hot(db);
	wal = outside && db->local_wal_mode;
	checkpoint = (outside && only_grows(f, buf, len, off)) ||
		     (wal && wrep_wal_check_checkpoint(db, buf, len, off) == 0);
	if (checkpoint || (wal && wrep_wal_has_frames(db))) {
		rc = checkpoint ? 0 : -EPERM;
		db->unsynced |= !rc;
		rc = rc < 0 ? wrep_file_refuse_write(db,
						     "content that no transaction has committed")
			    : wrep_write_all(f->fd, buf, len, off);
	} else if (wrep_file_is_rollback(db) && restores(f, buf, len, off)) {
		rc = db->overlay ? wrep_overlay_write(db->overlay, f->fd, buf, len, off) : 0;
	} else {
		rc = wrep_unjournaled_admit(f, op);
		if (rc == WREP_PENDING)
			return wrep_unjournaled_put_off(db, op); /* unlocks */
		if (rc == -EAGAIN) {
			pthread_mutex_unlock(&db->lock);
			return wrep_postpone(db, f,
					     &(struct wrep_postponed){.departure.own = 1,
								      .again = write_again,
								      .off = off,
								      .len = len},
					     buf, op);
		}
		if (!rc)
			rc = wrep_overlay_begin(f);
		if (!rc)
			rc = write_overlay(f, buf, len, off);
		if (rc)
			wrep_unjournaled_failed(db);
	}
	wrep_txn_unlock(db);
	return rc;
}

static int write_wal(struct wrep_deferred *d)
{
	return wrep_file_write(d->file, d->bytes, d->len, d->off, d->op);
}

int wrep_file_write(struct wrep_file *f, const void *buf, size_t len, uint64_t off,
		    struct wrep_op *op)
{
	struct wrep_db *db = f->db;
	const struct wrep_wal_txn *txn;
	bool unfit = false;
	int rc;

	if (f->kind == WREP_SHM)
		return -EIO;
	if (!len)
		return 0;
	if (f->kind == WREP_SUPER)
		return wrep_write_all(f->fd, buf, len, off);
	if (f->kind == WREP_STRAY)
		return wrep_stray_write(f, buf, len, off);
	pthread_mutex_lock(&db->lock);
	/* Unlinked, by others (SQLite does not write to what it removed): a transaction that ends
	 * there would count as committed, and nobody else would ever see it. */
	if (db->files[f->kind] != f) {
		pthread_mutex_unlock(&db->lock);
		return -EIO;
	}
	switch (f->kind) {
	case WREP_WAL:
		/* It has just left a journal mode in which nothing was committed yet. */
		if (db->unjournaled.active && !db->unjournaled.alone)
			return wrep_file_rollback_pending(db)
				       ? wrep_file_write_later(db, op) /* both unlock */
				       : wrep_unjournaled_put_off(db, op);
		rc = wrep_wal_goes_on_with_ended(db, off);
		if (rc)
			break;
		/* The fence keeps applications out; one that lost its lock is refused here. */
		if (wrep_wal_starts_over(f, buf, len, off)) {
			if (!wrep_wal_may_go(db)) {
				rc = -EIO;
				break;
			}
			if (db->wal_held) {
				pthread_mutex_unlock(&db->lock);
				return wrep_snapshotter_defer(
					f,
					&(struct wrep_deferred){.again = write_wal,
								.off = off,
								.len = len},
					buf, op);
			}
		}
		if (!db->fenced && wrep_capture_uncommitted(db->capture, len, off) >
					   db->w->config.max_transaction_bytes) {
			rc = wrep_refuse_large(db);
			wrep_streaming_stop(db);
			break;
		}
		if (db->fenced)
			wrep_commit_log_refused(db, WREP_REFUSED_NO_LEADER);
		rc = db->fenced ? -EIO : wrep_capture_write(db->capture, buf, len, off, &txn);
		if (rc == 1 && txn->repeats && is_unpublished(db)) {
			rc = wrep_capture_committed(db->capture);
			if (rc == -ENOSPC)
				wrep_capture_refused(db->capture);
			break;
		}
		if (rc == 1)
			return wrep_commit_wal(db, txn, op); /* unlocks */
		if (rc == 0) {
			rc = wrep_write_all(f->fd, buf, len, off);
			if (!rc)
				wrep_streaming_wrote_wal(db);
			else if (wrep_capture_write_failed(db->capture, off) < 0)
				unfit = true;
		} else if (rc == -EBADMSG)
			/* SQLite before 3.53 after a spill and a ROLLBACK TO: see capture.c */
			wrep_logf(db->w, 'W',
				  "commit refused: this SQLite wrote a transaction that no "
				  "recovery would find; use a newer SQLite, or a larger "
				  "PRAGMA cache_size database=%s",
				  db->name);
		else if (rc == -EPERM)
			wrep_logf(db->w, 'W',
				  "write refused: it would change committed frames of "
				  "the -wal database=%s offset=%llu",
				  db->name, (unsigned long long)off);
		break;
	case WREP_JOURNAL:
		return wrep_journal_write(f, buf, len, off, op); /* unlocks */
	case WREP_DB:
		return write_database(f, buf, len, off, op); /* unlocks */
	default:
		rc = -EIO;
	}
	wrep_txn_unlock(db);
	if (unfit)
		wrep_fatalf(
			db->w,
			"cannot take back a write into the -wal that failed database=%s; repair "
			"the disk and mount again",
			db->name);
	return rc == -EBADMSG ? -EIO : rc;
}
