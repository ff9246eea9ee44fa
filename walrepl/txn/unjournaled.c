/* A database file that is written without a journal.
 *
 * Two kinds of writers do that. SQLite with journal_mode MEMORY or OFF, under its EXCLUSIVE lock; and
 * programs that know nothing of SQLite (cp, rsync, truncate), which take no lock at all. No removal of
 * a journal tells where such a transaction ends. So what they write gathers in the overlay, as under a
 * journal, and it is one transaction up to the writer's fsync of the database, or its close of it, which
 * waits for Raft: there an error still reaches who caused it.
 *
 * SQLite with synchronous=OFF never calls fsync, and a connection may stay open for good. There the end of a
 * transaction is the release of the EXCLUSIVE lock, and nobody waits for its commit: a thread (exclusive.c)
 * commits the session when it learns of it. An error then reaches nobody but the log.
 *
 * A commit must hold whole transactions, nothing of the next one. Everything in the overlay was written under
 * EXCLUSIVE, by writes that have been answered. So if nobody who wrote it holds the lock at some moment, all
 * that was written before that moment is whole transactions. Two things prove such a moment.
 *  - The writer is asked for (wrep_unjournaled_tick()), and does not hold the lock. db->lock is held, so nothing
 *    has been written since.
 *  - Somebody got EXCLUSIVE since the last write (wrep_exclusive_retaken()): it was free just before. The host
 *    tells of that before the first write that is made under it, because its record is there before the
 *    lock call returns. So it is asked for at each write, and a write that comes behind such a call belongs
 *    to the next transaction: it waits until the former ones are committed, and is tried again (SQLite does,
 *    on EINTR). A process that writes all the time is caught there, and one that dies in the middle of its
 *    next transaction takes nothing along but that.
 * A transaction whose writes came before the host told of lock calls, or whose call was lost, shows no such
 * moment; then several are committed together, at the next one. What is written in several pieces, because
 * the cache spills, is written under one lock, taken once.
 *
 * Before another process, or the same one in WAL mode, builds on a session, it is committed in the same way.
 * So what a process has released does not hang on what becomes of another. With locking_mode=EXCLUSIVE, or
 * where the writer cannot be asked for, the close commits.
 *
 * Who takes no locks must be alone: nobody else may have the file open when it begins, and nobody gets
 * it open until it has ended. So no application ever sees half a copy, nor keeps pages in its cache
 * that were replaced beneath it: SQLite would notice only by a counter in page 1, and two files may well
 * have the same one. For that reason the other nodes, where applications may have the former content open,
 * make them lose it (WREP_COMMIT_REPLACE). What a closed copy left must be a database, whole by its own
 * header; else the close fails, and the former content stays, on all nodes.
 *
 * Only its end tells whether it is all there, so who is killed before has written nothing.
 *
 * A refused or unknown outcome is -EIO, and the overlay is taken back, on the applier, since the
 * kernel's cache has to forget it too. Who still holds EXCLUSIVE then (fsync) saw it alone. Otherwise
 * others may have read it since: all lose the file, and open it again. The same where leadership goes while
 * the overlay is there. A process that dies under its EXCLUSIVE lock was in the middle of a transaction, of
 * which nothing is left; SQLite alone would leave half of it.
 */
#include "txn/unjournaled.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/io.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/attach.h"
#include "db/db.h"
#include "db/departure.h"
#include "db/pin.h"
#include "db/table.h"
#include "pages/overlay.h"
#include "record/entry.h"
#include "sqlite/file_format.h"
#include "txn/commit.h"
#include "txn/discard.h"
#include "txn/exclusive.h"
#include "txn/journal.h"
#include "txn/revert.h"
#include "txn/sender.h"
#include "txn/shape.h"
#include "txn/stray_copy.h"
#include "txn/super_journal.h"

#define PAIR_MS 60000 /* what is closed that long after a copy is not of the same copy */

static pid_t process_of(struct wrep_db *db, pid_t tid)
{
	return tid ? db->w->config.host.process_of(db->w->config.host_ctx, tid) : 0;
}

/* What is not known (-1, 0: of another pid namespace) may be the same. */
static bool is_same(pid_t holder, pid_t process)
{
	return holder == process || holder < 0 || !process;
}

/* The process that holds EXCLUSIVE, or 0; -1: one that is not known here. */
static pid_t lock_holder(struct wrep_db *db)
{
	struct wrep *w = db->w;

	return w->config.host.lock_holder(w->config.host_ctx, db->files[WREP_DB],
					  WREP_SHARED_FIRST);
}

static int refuse(struct wrep_db *db, const char *reason)
{
	wrep_logf(db->w, 'W', "write refused: %s database=%s", reason, db->name);
	return -EBUSY;
}

static void begin(struct wrep_db *db, bool alone, pid_t process)
{
	if (db->unjournaled.active && db->unjournaled.alone == alone) {
		db->unjournaled.process = process; /* the next one, before the last has closed */
		return;
	}
	db->unjournaled = (struct wrep_unjournaled){
		.active = true,
		.alone = alone,
		.process = process,
		.sequence = db->unjournaled.sequence + 1,
		.undoes = db->unjournaled.failed && !alone,
	};
	if (!alone)
		wrep_exclusive_begin(db);
}

/* Somebody who takes no locks begins to write, or has opened the file to replace what is in it; nobody
 * else has it open. */
static int begin_alone(struct wrep_db *db, pid_t process)
{
	if (db->local_version != db->state.version || db->pending)
		return refuse(db, "a transaction is on its way into the file; try again");
	if (wrep_journal_is_hot(db))
		return refuse(db, "its -journal holds what undoes an unfinished transaction; let "
				  "SQLite do that first: sqlite3 DB 'SELECT * FROM sqlite_schema'");
	if (wrep_wal_has_frames(db))
		return refuse(db, "its -wal may hold transactions; let SQLite take them into the "
				  "file first: sqlite3 DB 'PRAGMA wal_checkpoint(TRUNCATE)'");
	begin(db, true, process);
	return 0;
}

/* Is what the overlay holds a database by its own header, and all of it was written? SQLite leaves nothing
 * else when it releases its lock. db->lock held. */
static bool is_whole(struct wrep_db *db)
{
	uint32_t page_size, page_count;
	bool whole;

	return db->overlay && db->files[WREP_DB] && !db->unjournaled.broken &&
	       wrep_overlay_shape(db, &page_size, &page_count, &whole) && whole;
}

/* Has a transaction of the session ended, and the next one not written yet? As far as is told. db->lock
 * held. */
static bool is_at_an_end(struct wrep_db *db)
{
	return wrep_exclusive_retaken(db) && is_whole(db);
}

bool wrep_db_may_write(const struct wrep_db *db)
{
	return atomic_load(&db->w->may_write) && !db->fenced;
}

static int refuse_follower(struct wrep_db *db)
{
	wrep_commit_log_refused(db, WREP_REFUSED_NO_LEADER);
	return -EROFS;
}

int wrep_unjournaled_admit(struct wrep_file *f, struct wrep_op *op)
{
	struct wrep_db *db = f->db;
	struct wrep_unjournaled *d = &db->unjournaled;
	bool hot = db->overlay ? !d->active || wrep_journal_is_hot(db) : wrep_journal_is_hot(db);
	pid_t process, holder, tid = op->tid;
	int rc;

	if (d->active && d->alone) { /* the one descriptor that there is */
		if (!d->written || d->tid != tid)
			d->process = process_of(db, tid);
		d->written = true;
		d->tid = tid;
		return 0;
	}
	if (d->active && is_at_an_end(db))
		return WREP_PENDING;
	/* Nobody who minds the fence comes here; who had begun before it closed is refused at once, and not only at
	 * his commit: what gathers in the overlay is what everybody else on this node reads. */
	if (hot && !wrep_db_may_write(db)) {
		db->journaled = false; /* it will be rolled back */
		return refuse_follower(db);
	}
	if (tid && tid == db->locker_tid && (hot || d->active)) {
		process = d->process;
	} else {
		process = process_of(db, tid);
		holder = lock_holder(db);
		if (holder && is_same(holder, process) && d->active &&
		    !is_same(d->process, process))
			return WREP_PENDING;
		if (!holder || !is_same(holder, process)) {
			if (db->opens > 1 && !wrep_departure_late(op))
				return -EAGAIN;
			if (db->opens > 1 || (db->overlay && !hot))
				return refuse(db, "an application has the database open; copy into "
						  "it with: sqlite3 DB '.restore FILE'");
			if (hot)
				return 0; /* SQLite without locks (nolock=1) */
			if (!wrep_db_may_write(db))
				return refuse_follower(db);
			rc = begin_alone(db, process);
			d->written = !rc;
			d->tid = tid;
			return rc;
		}
		db->locker_tid = tid;
	}
	if (hot) /* its removal commits what went before as well */
		d->active = false;
	else if (!wrep_db_may_write(db))
		return refuse_follower(db);
	else if (!d->active && wrep_exclusive_must_wait(db))
		return WREP_PENDING;
	else if (!d->active || d->process != process)
		begin(db, false, process);
	return 0;
}

int wrep_unjournaled_admit_open(struct wrep_file *f, int flags, struct wrep_op *op)
{
	struct wrep_db *db = f->db;
	int rc;

	/* Who has it alone may be about to close it: what failed is thrown away with the RELEASE only. */
	if (db->unjournaled.active && db->unjournaled.alone)
		return wrep_departure_late(op) ? -EBUSY : -EAGAIN;
	if (!(flags & O_TRUNC))
		return 0;
	if (!wrep_db_may_write(db))
		return -EROFS;
	if (db->opens && !wrep_departure_late(op))
		return -EAGAIN;
	if (db->opens || db->overlay)
		return refuse(db, "an application has the database open; copy into it with: "
				  "sqlite3 DB '.restore FILE'");
	rc = begin_alone(db, process_of(db, op->tid));
	if (!rc)
		rc = wrep_overlay_begin(f);
	if (!rc)
		rc = wrep_overlay_truncate(db->overlay, 0);
	if (rc)
		wrep_db_drop_overlay(db);
	return rc;
}

void wrep_unjournaled_failed(struct wrep_db *db)
{
	/* SQLite under its lock rolls back, unless it can write no more. */
	if (db->unjournaled.active && (db->unjournaled.alone || !wrep_db_may_write(db)))
		db->unjournaled.broken = true;
}

/* ---- the end of a session ------------------------------------------------------------------------ */

/* As struct wrep_commit says: the session is taken back first. */
static void refused(struct wrep_commit *c, int result)
{
	/* The pages of the other writers may be locked in the kernel's cache, which is to be emptied before the
	 * others are told. */
	wrep_commit_tell_writers(c, -EIO);
	wrep_revert_queue(c->db, &(struct wrep_revert){.sequence = c->session,
						       .trigger = c->trigger,
						       .commit = c,
						       .result = result});
}

/* db->lock held, released; takes `c`. `op` waits for it. */
static int submit(struct wrep_db *db, struct wrep_commit *c, struct wrep_op *op) RELEASES(db->lock);

static int submit(struct wrep_db *db, struct wrep_commit *c, struct wrep_op *op)
{
	uint64_t sequence = c->session;
	enum wrep_trigger trigger = c->trigger;
	bool copied = c->mode == WREP_COMMIT_REPLACE, strays = c->strays;
	int rc = wrep_commit_overlay(db, c);

	if (rc == 0) {
		if (copied) /* the same as before */
			wrep_unjournaled_copied(db, db->local_index, strays);
		wrep_txn_unlock(db);
	} else if (rc < 0) {
		wrep_revert_queue(db, &(struct wrep_revert){.sequence = sequence,
							    .trigger = trigger,
							    .op = op,
							    .result = rc});
		rc = WREP_PENDING;
	}
	return rc;
}

int wrep_unjournaled_commit(struct wrep_db *db, enum wrep_trigger trigger, struct wrep_op *op)
{
	struct wrep_unjournaled *d = &db->unjournaled;
	struct wrep_commit *c;
	uint32_t page_size, page_count;
	uint64_t sequence = d->sequence;
	bool whole, closed;

	if (db->pending) { /* the same, by another descriptor */
		op->next = db->pending->sharers;
		db->pending->sharers = op;
		pthread_mutex_unlock(&db->lock);
		return WREP_PENDING;
	}
	if (d->broken && !d->alone) {
		pthread_mutex_unlock(&db->lock);
		wrep_revert_queue(db, &(struct wrep_revert){.sequence = sequence,
							    .trigger = WREP_TRIGGER_CLOSE,
							    .op = op,
							    .result = -EIO});
		return WREP_PENDING;
	}
	/* SQLite rolls back by its journal in memory what could not be committed, and syncs. Nothing was changed: as
	 * a commit it would wait for a majority as long as that one did. It may be one (journal_mode=OFF rolls
	 * nothing back), so it is not told that all is well. */
	if (d->undoes && trigger == WREP_TRIGGER_SYNC && !db->differed) {
		d->undoes = false;
		pthread_mutex_unlock(&db->lock);
		wrep_revert_queue(db, &(struct wrep_revert){.sequence = sequence,
							    .trigger = WREP_TRIGGER_SYNC,
							    .op = op,
							    .result = -EIO});
		return WREP_PENDING;
	}
	if (d->alone && !d->broken && wrep_strays_play(db, &d->strays))
		d->broken = true;
	if (d->alone &&
	    (d->broken || !wrep_overlay_shape(db, &page_size, &page_count, &whole) || !whole)) {
		/* By truncate(2): no descriptor's end takes it back. */
		closed = !db->opens;
		if (closed)
			d->ending = true;
		pthread_mutex_unlock(&db->lock);
		wrep_logf(
			db->w, 'W',
			"not committed: what was written is no SQLite database, or not all of one, "
			"or a write failed database=%s",
			db->name);
		if (!closed)
			return -EIO;
		wrep_revert_queue(db, &(struct wrep_revert){.sequence = sequence,
							    .trigger = WREP_TRIGGER_NONE,
							    .op = op,
							    .result = -EIO});
		return WREP_PENDING;
	}
	c = calloc(1, sizeof *c);
	if (!c) {
		pthread_mutex_unlock(&db->lock);
		return -ENOMEM;
	}
	c->mode = d->alone ? WREP_COMMIT_REPLACE : WREP_COMMIT_ROLLBACK;
	c->trigger = trigger;
	c->session = sequence;
	c->refused = refused;
	db->syncs = trigger == WREP_TRIGGER_SYNC;
	c->times = d->times;
	c->strays = d->strays;
	c->op = op;
	return submit(db, c, op);
}

void wrep_unjournaled_copied(struct wrep_db *db, uint64_t index, bool strays)
{
	db->copied.index = index;
	db->copied.strays = strays;
	db->copied.at_ms = wrep_now_ms();
	wrep_strays_played(db, index);
}

bool wrep_unjournaled_is_copy(const struct wrep_db *db, uint64_t played_index)
{
	return db->copied.index && (!db->copied.strays || db->copied.index == played_index) &&
	       db->copied.index == db->local_index && db->local_version == db->state.version &&
	       !db->removed && !db->retired && db->files[WREP_DB] && !db->overlay && !db->pending &&
	       wrep_db_may_write(db) && wrep_now_ms() - db->copied.at_ms < PAIR_MS;
}

int wrep_unjournaled_take_strays(struct wrep_db *db, struct wrep_op *op)
{
	struct stat st;
	int rc = wrep_db_pin(db, false);

	if (rc) {
		pthread_mutex_unlock(&db->lock);
		return rc;
	}
	rc = fstat(db->files[WREP_DB]->fd, &st) < 0 ? -errno : begin_alone(db, 0);
	if (!rc)
		rc = wrep_overlay_begin(db->files[WREP_DB]);
	if (!rc) { /* the file keeps its times: they are those of the copy */
		db->unjournaled.times = (struct wrep_attr){.valid = WREP_ATTR_TIMES,
							   .atime = st.st_atim,
							   .mtime = st.st_mtim};
		rc = wrep_unjournaled_commit(db, WREP_TRIGGER_CLOSE, op); /* unlocks */
	} else {
		pthread_mutex_unlock(&db->lock);
	}
	pthread_mutex_lock(&db->lock);
	wrep_db_unpin(db);
	pthread_mutex_unlock(&db->lock);
	return rc;
}

bool wrep_unjournaled_is_ending(const struct wrep_db *db)
{
	return db->pending && db->pending->trigger == WREP_TRIGGER_CLOSE && !db->unjournaled.alone;
}

/* Commit the session, whose writer waits for nothing; `writer`, or NULL, is the next. db->lock held,
 * released. 0: there was nothing to commit; WREP_PENDING; -errno. */
static int commit_unasked(struct wrep_db *db, struct wrep_op *writer) RELEASES(db->lock);

static int commit_unasked(struct wrep_db *db, struct wrep_op *writer)
{
	struct wrep_unjournaled *d = &db->unjournaled;
	uint64_t sequence = d->sequence;
	struct wrep_commit *c;

	if (d->broken) {
		d->ending = true;
		pthread_mutex_unlock(&db->lock);
		wrep_revert_queue(db, &(struct wrep_revert){.sequence = sequence,
							    .trigger = WREP_TRIGGER_CLOSE,
							    .op = writer,
							    .result = -EIO});
		return WREP_PENDING;
	}
	c = calloc(1, sizeof *c);
	if (!c) {
		pthread_mutex_unlock(&db->lock);
		return -ENOMEM;
	}
	c->mode = WREP_COMMIT_ROLLBACK;
	c->trigger = WREP_TRIGGER_CLOSE;
	c->session = sequence;
	c->refused = refused;
	if (writer)
		writer->next = NULL;
	c->writers = writer;
	db->syncs = false;
	return submit(db, c, writer);
}

int wrep_unjournaled_put_off(struct wrep_db *db, struct wrep_op *op)
{
	int rc;

	if (db->unjournaled.active) {
		rc = commit_unasked(db, op); /* unlocks */
	} else {
		wrep_db_ref(db); /* the file may go when `op` is done */
		rc = wrep_exclusive_wait(db, op);
		pthread_mutex_unlock(&db->lock);
		wrep_db_unref(db);
	}
	return rc ? rc : -EINTR;
}

bool wrep_unjournaled_tick(struct wrep_db *db)
{
	struct wrep_host *host = &db->w->config.host;
	struct wrep_unjournaled *d = &db->unjournaled;
	struct wrep_file *f;
	bool released;

	pthread_mutex_lock(&db->lock);
	f = db->files[WREP_DB];
	if (!d->active || d->alone || d->ending || db->pending || !f) {
		pthread_mutex_unlock(&db->lock);
		return false;
	}
	released = wrep_exclusive_retaken(db) ||
		   !host->may_hold_lock(db->w->config.host_ctx, d->process, f, WREP_SHARED_FIRST);
	if (!released || !(d->broken || is_whole(db))) {
		pthread_mutex_unlock(&db->lock);
		return true;
	}
	commit_unasked(db, NULL); /* unlocks */
	return false;
}

/* Is it a thread of who holds EXCLUSIVE? What a dead one left in the overlay nobody commits by syncing the
 * file. db->lock held. */
static bool is_writer(struct wrep_db *db, pid_t tid)
{
	pid_t holder;

	if (tid && tid == db->locker_tid)
		return true;
	holder = lock_holder(db);
	return holder && holder == process_of(db, tid);
}

int wrep_file_sync(struct wrep_file *f, struct wrep_op *op)
{
	struct wrep_db *db = f->db;
	struct wrep_unjournaled *d = &db->unjournaled;
	int rc = 0;

	if (f->kind == WREP_STRAY)
		return fsync(f->fd) < 0 ? -errno : 0;
	if (f->kind != WREP_DB)
		return 0; /* what counts of it is in the Raft log */
	pthread_mutex_lock(&db->lock);
	if (f->lost)
		rc = -EIO;
	else if (d->active && db->files[WREP_DB] == f &&
		 (d->alone || op->tid == db->locker_tid || process_of(db, op->tid) == d->process))
		return wrep_unjournaled_commit(db, WREP_TRIGGER_SYNC, op); /* unlocks */
	else if (db->files[WREP_DB] == f && db->overlay && is_writer(db, op->tid) &&
		 (rc = wrep_super_sync(db, op)) != 0)
		return rc; /* unlocked */
	pthread_mutex_unlock(&db->lock);
	return rc;
}

/* The session of one who takes no locks. db->lock held, released. */
static int flush_alone(struct wrep_db *db, struct wrep_op *op)
{
	struct wrep_host *host = &db->w->config.host;
	void *ctx = db->w->config.host_ctx;
	struct wrep_unjournaled *d = &db->unjournaled;
	uint64_t sequence = d->sequence;
	pid_t process = process_of(db, op->tid);

	if (db->pending || !process || !d->process)
		return wrep_unjournaled_commit(db, WREP_TRIGGER_CLOSE, op); /* unlocks */
	if (process == d->process && host->is_killed(ctx, op->tid)) {
		d->ending = true;
		pthread_mutex_unlock(&db->lock);
		wrep_logf(db->w, 'W',
			  "not committed: who wrote was killed before it had closed what it wrote "
			  "database=%s",
			  db->name);
		wrep_revert_queue(db, &(struct wrep_revert){.sequence = sequence,
							    .trigger = WREP_TRIGGER_CLOSE,
							    .op = op,
							    .result = -EIO});
		return WREP_PENDING;
	}
	/* Emptied when it was opened, and moved to another descriptor, as a shell does: what replaces the
	 * content is yet to come. And what a child of the writer inherited says nothing. */
	if ((!d->written || process != d->process) &&
	    host->has_open(ctx, d->process, db->files[WREP_DB])) {
		pthread_mutex_unlock(&db->lock);
		return 0;
	}
	return wrep_unjournaled_commit(db, WREP_TRIGGER_CLOSE, op); /* unlocks */
}

int wrep_unjournaled_flush(struct wrep_file *f, struct wrep_op *op)
{
	struct wrep_db *db = f->db;
	struct wrep_unjournaled *d = &db->unjournaled;
	uint64_t sequence = d->sequence;
	pid_t holder;
	bool mine;

	mine = d->active && db->files[WREP_DB] == f &&
	       (d->alone || process_of(db, op->tid) == d->process);
	if (!mine) {
		int rc = f->lost ? -EIO : 0;

		pthread_mutex_unlock(&db->lock);
		return rc;
	}
	if (d->alone)
		return flush_alone(db, op); /* unlocks */
	holder = db->pending ? 0 : lock_holder(db);
	if (!holder || !is_same(holder, d->process) || is_at_an_end(db))
		return wrep_unjournaled_commit(db, WREP_TRIGGER_CLOSE, op); /* unlocks */
	d->ending = true;
	pthread_mutex_unlock(&db->lock);
	wrep_logf(db->w, 'I',
		  "a writer without a journal died; its transaction is rolled back database=%s",
		  db->name);
	wrep_revert_queue(db, &(struct wrep_revert){.sequence = sequence,
						    .trigger = WREP_TRIGGER_NONE,
						    .op = op});
	return WREP_PENDING;
}

struct wrep_work *wrep_unjournaled_released(struct wrep_db *db)
{
	db->locker_tid = 0;
	if (db->opens || !db->unjournaled.active || db->unjournaled.ending || db->pending)
		return NULL;
	db->unjournaled.ending = true;
	return wrep_revert_new(db, &(struct wrep_revert){.sequence = db->unjournaled.sequence,
							 .trigger = WREP_TRIGGER_NONE});
}

void wrep_unjournaled_end_all(struct wrep *w)
{
	struct wrep_db **all;
	size_t count;

	if (wrep_db_all(w, &all, &count) < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		struct wrep_db *db = all[i];
		struct wrep_unjournaled *d = &db->unjournaled;
		uint64_t sequence;
		bool is;

		pthread_mutex_lock(&db->lock);
		/* (Where one is alone, nobody reads.) */
		is = d->active && !d->alone && !d->ending && !db->pending;
		d->ending |= is;
		sequence = d->sequence;
		pthread_mutex_unlock(&db->lock);
		if (is)
			wrep_revert_queue(db, &(struct wrep_revert){.sequence = sequence,
								    .trigger = WREP_TRIGGER_CLOSE});
		wrep_db_unref(db);
	}
	free(all);
}

void wrep_unjournaled_shut_out(struct wrep_db *db)
{
	bool is;

	pthread_mutex_lock(&db->lock);
	is = db->unjournaled.active && (db->unjournaled.alone || db->local_wal_mode) &&
	     !db->pending;
	pthread_mutex_unlock(&db->lock);
	if (!is)
		return;
	wrep_db_detach(db);
	wrep_db_revoke(db, true);
}
