/* The files of a database as request threads use them: lookup, create, open, read, write, truncate,
 * attributes, unlink. Where an operation needs the cluster's agreement it is handed to commit.c;
 * where it needs SQLite's locks, to the applier.
 *
 * What a write to each file means:
 *   -wal      judged by capture.c; all but the last write of a transaction go straight through.
 *   database  in WAL mode a checkpoint writes here, and content that is committed already is let
 *             through; in rollback mode, under a hot journal, pages gather in the overlay. What comes
 *             without a journal does, too: see txn/unjournaled.c.
 *   -journal  local; removing, truncating or zeroing it is the commit.
 *   -mj...    local: txn/super_journal.c; removing it is the commit of several databases.
 *   -shm      never comes here: the kernel passes it through to the backing file.
 *   strays    side files of no database are ordinary files of this node: stray.c.
 */
#include "file/file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "apply/fence.h"
#include "apply/fold.h"
#include "apply/opening.h"
#include "base/attr.h"
#include "base/io.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/departure.h"
#include "db/directory.h"
#include "db/pin.h"
#include "db/stray.h"
#include "db/table.h"
#include "file/postponed.h"
#include "file/stray.h"
#include "pages/capture.h"
#include "pages/overlay.h"
#include "pages/pagesum.h"
#include "pages/wal_content.h"
#include "record/entry.h"
#include "repair/scrubber.h"
#include "snapshot/snapshotter.h"
#include "sqlite/journal_format.h"
#include "sqlite/names.h"
#include "sqlite/wal_format.h"
#include "sqlite/wal_index.h"
#include "txn/commit.h"
#include "txn/journal.h"
#include "txn/proposal.h"
#include "txn/sender.h"
#include "txn/shape.h"
#include "txn/streaming.h"
#include "txn/super_journal.h"
#include "txn/unjournaled.h"

/* The byte of a -shm that the WAL write lock is taken on (SQLite's "WAL-mode File Format", 2.3). */
#define SHM_WRITE_LOCK 120

/* The database that `name` belongs to, with a reference; fills `kind`. */
static struct wrep_db *db_of(struct wrep *w, const char *name, enum wrep_kind *kind)
{
	char base[WREP_PATH_MAX + 1];

	if (!wrep_names_kind(w->config.match, name, kind, base))
		return NULL;
	return wrep_db_by_name(w, base);
}

int wrep_lookup(struct wrep *w, const char *name, struct wrep_file **out)
{
	enum wrep_kind kind = WREP_DB;
	struct wrep_db *db = db_of(w, name, &kind);

	if (kind == WREP_SUPER) {
		wrep_db_unref(db);
		*out = wrep_super_find(w, name);
		return *out ? 0 : -ENOENT;
	}
	*out = NULL;
	if (db) {
		pthread_mutex_lock(&db->lock);
		*out = wrep_db_file(db, kind);
		pthread_mutex_unlock(&db->lock);
	}
	if (!*out && kind != WREP_DB)
		*out = wrep_stray_find(w, name);
	if (!db && !*out)
		return wrep_is_ready(w) ? -ENOENT : -EAGAIN;
	wrep_db_unref(db);
	return *out ? 0 : -ENOENT;
}

int wrep_file_stat(struct wrep_file *f, struct stat *st)
{
	struct wrep_db *db = f->db;
	bool stale = false;
	int rc = 0;

	if (f->kind == WREP_SUPER)
		return fstat(f->fd, st) < 0 ? -errno : 0;
	if (f->kind == WREP_STRAY)
		return wrep_stray_stat(f, st);
	pthread_mutex_lock(&db->lock);
	/* The file of a retired database is as long as the fetch has come: told of that, the kernel would end
	 * a read early, and SQLite take what is missing for zeros. */
	if (f->revoked || db->retired)
		rc = -ESTALE;
	else if (f->fd >= 0)
		rc = fstat(f->fd, st) < 0 ? -errno : 0;
	else if (db->files[f->kind] != f)
		rc = -ESTALE;
	else if (fstatat(wrep_dir_fd(db->w, f->kind), f->name, st, AT_SYMLINK_NOFOLLOW) < 0)
		rc = -errno;
	if (rc == -ENOENT && f->kind == WREP_DB && db->damaged) {
		/* Nobody has a copy: it can be removed, and so it must be found. */
		*st = (struct stat){.st_mode = S_IFREG, .st_nlink = 1};
		rc = 0;
	}
	if (!rc && db->files[f->kind] == f) {
		if (f->kind == WREP_DB && db->overlay)
			st->st_size = (off_t)wrep_overlay_size(db->overlay);
	} else if (!rc) {
		/* SQLite has closed its -wal before it, or we, removed the name. */
		stale = f->kind == WREP_WAL || (f->kind == WREP_DB && !db->opens);
	}
	pthread_mutex_unlock(&db->lock);
	if (rc == -ENOENT) { /* somebody's hand, in the data directory */
		if (f->kind == WREP_DB)
			wrep_db_missing(db);
		rc = -ESTALE;
	}
	return stale ? -ESTALE : rc;
}

/* ---- opening ------------------------------------------------------------------------------------ */

/* A side file springs into being: local to this node. db->lock held. */
static int create_side_file(struct wrep_db *db, enum wrep_kind kind, const struct wrep_new_file *as,
			    bool internal, struct wrep_file **out)
{
	char name[WREP_NAME_MAX + 16];
	int fd, rc = 0;

	wrep_db_backing_name(db, kind, name);
	fd = openat(wrep_dir_fd(db->w, kind), name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
		    as->mode & 07777);
	if (fd < 0)
		return -errno;
	if (!internal && wrep_descriptor_is_spare(db->w, fd)) {
		unlinkat(wrep_dir_fd(db->w, kind), name, 0);
		rc = -EMFILE;
	} else {
		rc = wrep_attr_own(fd, as->mode, as->uid, as->gid);
	}
	if (!rc)
		rc = wrep_file_make(db, kind, fd, 0, &db->files[kind]);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	*out = wrep_file_ref(db->files[kind]);
	return 0;
}

/* What an application is told. No lock held. */
static int cannot_open(struct wrep_db *db, int rc)
{
	wrep_out_of_descriptors(db->w, rc, db->name);
	if (rc != -ENOENT)
		return rc;
	wrep_db_missing(db);
	return -ESTALE;
}

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

static int open_file(struct wrep_db *db, struct wrep_file *f, int flags, bool internal,
		     struct wrep_op *op, int state);

static int open_again(struct wrep_postponed *r)
{
	return open_file(r->file->db, r->file, r->flags, false, r->op, r->op->state);
}

int wrep_postpone_open(struct wrep_file *f, int flags, struct wrep_op *op)
{
	return wrep_postpone(f->db, f,
			     &(struct wrep_postponed){.again = open_again,
						      .end = wrep_op_finish_open,
						      .flags = flags},
			     NULL, op);
}

/* `f` may be NULL: a database whose CREATE is still on its way through the applier. */
static int open_file(struct wrep_db *db, struct wrep_file *f, int flags, bool internal,
		     struct wrep_op *op, int state)
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
				wrep_db_unhold(db);
		}
		pthread_mutex_unlock(&db->lock);
	}
	op->state = state;
	if (rc == -EAGAIN && now)
		rc = wrep_postpone_open(f, flags, op);
	if (rc || now)
		return cannot_open(db, rc);
	work = wrep_open_new(db, f, flags, op);
	rc = wrep_open_park(w, &work);
	if (!rc && f) {
		pthread_mutex_lock(&db->lock);
		if (db->files[WREP_DB] != f) /* just now */
			rc = -ESTALE;
		else if ((atomic_load(&w->may_write) || db->fenced) && !db->direct.ending &&
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
	return cannot_open(db, rc);
}

static void unhold(struct wrep_db *db)
{
	pthread_mutex_lock(&db->lock);
	wrep_db_unhold(db);
	pthread_mutex_unlock(&db->lock);
}

/* Who makes a side file that is not there, and has not the database open as SQLite has, copies it: 1. 0: it is the
 * database's. -EAGAIN: an application has that open, perhaps not for long; -EBUSY, with a line: it stays so.
 * db->lock held. */
static int is_copied(struct wrep_db *db, const char *name, int flags, struct wrep_op *op)
{
	struct wrep *w = db->w;

	if (!wrep_stray_copies(flags))
		return 0;
	if (!db->opens || !db->files[WREP_DB] || (db->direct.active && db->direct.alone))
		return 1;
	if (!op->tid || w->config.host.has_open(w->config.host_ctx, op->tid, db->files[WREP_DB]))
		return 0; /* some programs' own VFS truncates */
	if (!wrep_departure_late(op))
		return -EAGAIN;
	wrep_logf(
		w, 'W',
		"refused to create a file name=%s: an application has the database open; close it, "
		"then copy the database, and what belongs to it",
		name);
	return -EBUSY;
}

static int create_again(struct wrep_postponed *r)
{
	return wrep_create(r->departure.db->w, (const char *)r->bytes, &r->as, false, r->op);
}

struct creation {
	const char *name;
	enum wrep_kind kind;
	const struct wrep_new_file *as;
	bool internal;
};

/* Make a file of a database that is there, or open it. */
static int create_in(struct wrep_db *db, const struct creation *c, struct wrep_op *op)
{
	struct wrep_file *f;
	int copied = 0, rc;
	bool held;

	pthread_mutex_lock(&db->lock);
	rc = wrep_db_hold(db, c->internal);
	held = !rc;
	f = rc ? NULL : wrep_db_file(db, c->kind);
	if (f && (c->as->flags & O_EXCL))
		rc = -EEXIST;
	else if (!rc && !f && c->kind != WREP_DB && !c->internal)
		copied = is_copied(db, c->name, c->as->flags, op);
	if (copied < 0)
		rc = copied;
	else if (!rc && !copied && !f && c->kind != WREP_DB)
		/* Without the database its name may be that of a former one's file. */
		rc = db->files[WREP_DB] && !db->removed
			     ? create_side_file(db, c->kind, c->as, c->internal, &f)
			     : -EPERM;
	pthread_mutex_unlock(&db->lock);
	if (rc == -EAGAIN) {
		rc = wrep_postpone(db, NULL,
				   &(struct wrep_postponed){.again = create_again,
							    .as = *c->as,
							    .len = strlen(c->name) + 1},
				   c->name, op);
	} else if (copied > 0) {
		rc = wrep_stray_create(db->w, c->name, c->as, op);
	} else if (rc) {
		wrep_file_unref(f);
		rc = cannot_open(db, rc);
	} else {
		op->file = f;
		rc = open_file(db, f, c->as->flags, c->internal, op, WREP_OP_CREATE);
		if (rc < 0)
			wrep_op_drop_file(op);
	}
	if (held)
		unhold(db);
	return rc;
}

/* Make a database. */
static int create_database(struct wrep *w, const char *name, const struct wrep_new_file *as,
			   struct wrep_op *op)
{
	struct wrep_entry e = {.type = WREP_ENTRY_CREATE};
	struct wrep_dir *dir;

	if (wrep_dir_lookup(w, name, &dir) == 0) {
		wrep_dir_unref(dir);
		return -EISDIR;
	}
	if (!atomic_load(&w->may_write))
		return -EROFS;
	op->file = NULL;
	op->state = WREP_OP_CREATE;
	snprintf(e.name, sizeof e.name, "%s", name);
	e.mode = as->mode & 07777;
	e.uid = as->uid;
	e.gid = as->gid;
	return wrep_submit_meta(w, NULL, &e, as->flags, op);
}

int wrep_create(struct wrep *w, const char *name, const struct wrep_new_file *as, bool internal,
		struct wrep_op *op)
{
	enum wrep_kind kind;
	struct wrep_db *db;
	int rc;

	if (!wrep_name_kind(w, name, &kind))
		return wrep_name_refusal(w, name);
	if (kind == WREP_SUPER)
		return wrep_super_create(w, name, as, op);
	if (kind == WREP_STRAY)
		return wrep_stray_create(w, name, as, op);
	db = db_of(w, name, &kind);
	if (db) {
		rc = create_in(db, &(struct creation){name, kind, as, internal}, op);
		wrep_db_unref(db);
		return rc;
	}
	if (kind == WREP_DB)
		return create_database(w, name, as, op);
	/* SQLite makes none without its database */
	return wrep_stray_copies(as->flags) ? wrep_stray_create(w, name, as, op) : -EPERM;
}

int wrep_file_open(struct wrep_file *f, int flags, bool internal, struct wrep_op *op)
{
	if (f->kind == WREP_SUPER)
		return wrep_super_open(f);
	if (f->kind == WREP_STRAY)
		return wrep_stray_open(f, flags, op);
	return open_file(f->db, f, flags, internal, op, WREP_OP_OPEN);
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

bool wrep_may_write(const struct wrep *w)
{
	return atomic_load(&w->may_write);
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
			wrep_ahead_stop(db);
			idle = !db->conn_idle && (db->fenced || !atomic_load(&db->w->may_write));
		}
		db->conn_idle |= idle;
		revert = wrep_direct_released(db);
		fold = last && !db->folding && wrep_fold_is_due(db);
		db->folding |= fold;
	}
	wrep_db_ref(db);
	wrep_file_let_go(f);
	wrep_txn_unlock(db);
	if (revert)
		wrep_queue_push(db->w->queue, revert);
	if (fold)
		wrep_fold_queue(db);
	if (idle)
		wrep_idle_queue(db);
	if (last)
		wrep_departures_look(db->w);
	wrep_db_unref(db);
}

/* ---- reading and writing ---------------------------------------------------------------------- */

ssize_t wrep_file_read(struct wrep_file *f, void *buf, size_t len, uint64_t off)
{
	struct wrep_db *db = f->db;
	bool retired, damaged;
	ssize_t n;

	if (f->kind == WREP_DB) {
		pthread_mutex_lock(&db->lock);
		if (db->overlay && db->files[WREP_DB] == f) {
			n = wrep_overlay_read(db->overlay, f->fd, buf, len, off);
			pthread_mutex_unlock(&db->lock);
			return n;
		}
		pthread_mutex_unlock(&db->lock);
	}
	n = wrep_read_some(f->fd, buf, len, off);
	if (f->kind == WREP_SUPER || f->kind == WREP_STRAY)
		return n;
	/* Others write to the file then, and what was read may be half of it. Neither error is EIO, which
	 * SQLite takes for a damaged database, where there is nothing that removing it would cure. What the
	 * disk cannot read (`n`) is a damaged page like any other: another node has it. */
	pthread_mutex_lock(&db->lock);
	retired = db->retired || f->revoked || (f->kind == WREP_DB && db->half_applied);
	damaged = db->damaged;
	pthread_mutex_unlock(&db->lock);
	if (retired)
		return -ESTALE;
	if (damaged ||
	    (f->kind == WREP_DB && !wrep_pages_are_sound(f, buf, n < 0 ? 0 : (size_t)n, len, off)))
		return -EBADMSG;
	return n;
}

static int refuse_write(struct wrep_db *db, const char *what)
{
	wrep_logf(db->w, 'W', "write refused: %s database=%s", what, db->name);
	return -EPERM;
}

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
		wrep_ahead_stop(db);
		return wrep_refuse_large(db);
	}
	note_difference(f, buf, len, off);
	rc = wrep_overlay_write(db->overlay, f->fd, buf, len, off);
	if (!rc && !again)
		wrep_ahead_wrote_overlay(db, len, off);
	return rc;
}

/* The capture of the -wal, should there be one. db->lock held. */
static struct wrep_capture *capture_of(struct wrep_db *db)
{
	if (!db->capture)
		wrep_file_unref(wrep_db_file(db, WREP_WAL));
	return db->capture;
}

/* The capture looks at the -wal again, if that may hold more by now: behind a closed fence the daemon
 * writes it, and tells the capture when it is done. An application's checkpoint may be quicker.
 * db->lock held. */
static bool look_again(struct wrep_db *db)
{
	if (db->fenced)
		wrep_capture_forget(db->capture);
	return db->fenced;
}

/* A checkpoint copies committed pages into the database file; so nothing else is let through, and
 * nothing that the log does not hold can get there. db->lock held. */
static int check_checkpoint(struct wrep_db *db, const uint8_t *buf, size_t len, uint64_t off)
{
	uint32_t size = db->state.sum.page_size;

	if (!size || off % size || len % size)
		return -EPERM;
	for (size_t at = 0; at < len; at += size) {
		uint64_t page = (off + at) / size + 1;
		uint64_t hash;

		if (page > UINT32_MAX)
			return -EPERM;
		hash = wrep_page_hash((uint32_t)page, buf + at, size);
		if (page <= db->state.sum.page_count && db->state.sum.hash[page - 1] == hash)
			continue;
		/* an older image: the newest is beyond what readers let the checkpoint copy */
		if (!capture_of(db) ||
		    (!wrep_wal_content_holds(db->capture, (uint32_t)page, hash) &&
		     !(look_again(db) &&
		       wrep_wal_content_holds(db->capture, (uint32_t)page, hash))))
			return -EPERM;
	}
	return 0;
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

/* The overlay belongs to a transaction that waits for Raft. (In WAL mode a checkpoint goes on
 * beside a commit of another process.) db->lock held. */
static bool rollback_pending(const struct wrep_db *db)
{
	return db->pending && db->pending->mode != WREP_COMMIT_WAL;
}

/* May the -wal be removed, cut to nothing or started over? SQLite does that only after a checkpoint of
 * all of it. Anything else (somebody's `rm`) would let this node's files fall back to former pages,
 * on which the next transactions are then built. db->lock held. */
static bool wal_may_go(struct wrep_db *db)
{
	struct wrep_file *f = db->files[WREP_DB];

	if (!db->capture || !f || db->local_version != db->state.version ||
	    wrep_wal_content_copied(db->capture, f->fd, &db->state.sum))
		return true;
	wrep_logf(db->w, 'W',
		  "refused to remove the -wal, which holds transactions that the database "
		  "file does not: PRAGMA wal_checkpoint first database=%s",
		  db->name);
	return false;
}

/* Does a -wal of `size` bytes lack committed frames? (One that is only cut behind them,
 * PRAGMA journal_size_limit, does not.) db->lock held. */
static bool cuts_wal(struct wrep_db *db, uint64_t size)
{
	struct wrep_wal_position at;

	return !capture_of(db) || wrep_wal_content_position(db->capture, &at) < 0 ||
	       (at.frame_count && size < wrep_wal_frame_offset(at.page_size, at.frame_count));
}

/* Does the write replace the header of a -wal by another, so that its frames count no more? */
static bool starts_wal_over(struct wrep_file *f, const uint8_t *buf, size_t len, uint64_t off)
{
	uint8_t header[32];
	size_t part;

	if (off >= sizeof header ||
	    pread(f->fd, header, sizeof header, 0) != (ssize_t)sizeof header)
		return false;
	part = sizeof header - off < len ? sizeof header - (size_t)off : len;
	return memcmp(header + off, buf, part) != 0;
}

/* Somebody writes while what the overlay holds waits for Raft. Under a journal, and in fsync, SQLite
 * waits itself, and this is no SQLite. What was committed by closing the file may find the next writer
 * at work already: it tries again (SQLite does, on EINTR). db->lock held, released. */
static int write_later(struct wrep_db *db, struct wrep_op *op)
{
	int rc = -EIO;

	if (wrep_direct_is_ending(db)) {
		op->next = db->pending->writers;
		db->pending->writers = op;
		rc = WREP_PENDING;
	}
	pthread_mutex_unlock(&db->lock);
	return rc;
}

/* What a node that may not write takes nevertheless: a rollback by a journal, of a transaction whose writes it has
 * refused, or that began while it led. It brings back what is in the database file already, so nobody can
 * be shown anything else by it. A journal that is older than the file is refused: its pages
 * differ. (What was written without a journal the applier takes back.) db->lock held. */
static bool is_rollback(const struct wrep_db *db)
{
	return !wrep_direct_may_write(db) && !db->direct.active;
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

	if (rollback_pending(db))
		return write_later(db, op); /* unlocks */
	outside = !db->overlay && !wrep_journal_is_hot(db);
	wal = outside && db->local_wal_mode;
	checkpoint = (outside && only_grows(f, buf, len, off)) ||
		     (wal && check_checkpoint(db, buf, len, off) == 0);
	if (checkpoint || (wal && wrep_wal_has_frames(db))) {
		rc = checkpoint ? 0 : -EPERM;
		db->unsynced |= !rc;
		rc = rc < 0 ? refuse_write(db, "content that no transaction has committed")
			    : wrep_write_all(f->fd, buf, len, off);
	} else if (is_rollback(db) && restores(f, buf, len, off)) {
		rc = db->overlay ? wrep_overlay_write(db->overlay, f->fd, buf, len, off) : 0;
	} else {
		rc = wrep_direct_admit(f, op);
		if (rc == WREP_PENDING)
			return wrep_direct_put_off(db, op); /* unlocks */
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
			wrep_direct_failed(db);
	}
	wrep_txn_unlock(db);
	return rc;
}

/* Does the end of a journal commit what is in the overlay? Not if that is another's session, which waits for
 * Raft already: the journal is of a transaction that has written nothing into the database yet, since its
 * writes wait, and is rolled back. db->lock held. */
static bool journal_commits(struct wrep_db *db)
{
	return db->overlay && !wrep_direct_is_ending(db);
}

/* A journal that is zeroed at its start while the overlay holds pages: journal_mode=PERSIST
 * commits. db->lock held on entry; as wrep_commit_rollback(). */
static int write_journal(struct wrep_file *f, const uint8_t *buf, size_t len, uint64_t off,
			 struct wrep_op *op)
{
	static const uint8_t zero[8];
	struct wrep_db *db = f->db;
	struct wrep_commit *shape;
	int rc;

	if (wrep_journal_begins(buf, len)) {
		db->journaled = true;
		db->journal_tid = op->tid;
	}
	if (!journal_commits(db) || off != 0 || len < sizeof zero ||
	    memcmp(buf, zero, sizeof zero) || !wrep_journal_is_hot(db)) {
		rc = wrep_write_all(f->fd, buf, len, off);
		pthread_mutex_unlock(&db->lock);
		return rc;
	}
	shape = calloc(1, sizeof *shape);
	if (shape)
		shape->journal_bytes = malloc(len);
	if (!shape || !shape->journal_bytes) {
		pthread_mutex_unlock(&db->lock);
		free(shape);
		return -ENOMEM;
	}
	memcpy(shape->journal_bytes, buf, len);
	shape->journal_len = len;
	shape->trigger = WREP_TRIGGER_WRITE;
	shape->op = op;
	rc = wrep_commit_rollback(db, shape);
	if (rc == 0) {
		rc = wrep_write_all(f->fd, buf, len, off);
		wrep_txn_unlock(db);
	}
	return rc;
}

/* When a transaction took no effect, its writer may not have written all of it yet: of a write that the kernel
 * split it was told that the first piece went well, and SQLite goes on behind that. It would complete
 * the transaction a second time, and wait for Raft as long again. So all is refused up to the write that
 * begins another one: with the frame behind the committed end, or a header. That is no other place if Raft
 * commits the former after all; then the end has moved, and the wal-index told the writer. The error is
 * that of the transaction: for SQLite a full disk is none of I/O. db->lock held. */
static int goes_on_with_ended(struct wrep_db *db, uint64_t off)
{
	struct wrep_wal_position at;

	if (db->wal_ended && (off == 0 || wrep_wal_content_position(db->capture, &at) < 0 ||
			      off == wrep_wal_frame_offset(at.page_size, at.frame_count)))
		db->wal_ended = 0;
	return db->wal_ended;
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
		if (db->direct.active && !db->direct.alone)
			return rollback_pending(db) ? write_later(db, op) /* both unlock */
						    : wrep_direct_put_off(db, op);
		rc = goes_on_with_ended(db, off);
		if (rc)
			break;
		/* The fence keeps applications out; one that lost its lock is refused here. */
		if (starts_wal_over(f, buf, len, off)) {
			if (!wal_may_go(db)) {
				rc = -EIO;
				break;
			}
			if (db->wal_held) {
				pthread_mutex_unlock(&db->lock);
				return wrep_keeper_defer(f, WREP_DEFER_WRITE, buf, len, off, op);
			}
		}
		if (!db->fenced && wrep_capture_uncommitted(db->capture, len, off) >
					   db->w->config.max_transaction_bytes) {
			rc = wrep_refuse_large(db);
			wrep_ahead_stop(db);
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
				wrep_ahead_wrote_wal(db);
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
		return write_journal(f, buf, len, off, op); /* unlocks */
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
	       (capture_of(db) && (wrep_wal_content_fits(db->capture, pages) ||
				   (look_again(db) && wrep_wal_content_fits(db->capture, pages))));
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

	if (rollback_pending(db))
		return write_later(db, op); /* unlocks */
	if (fstat(f->fd, &st) < 0) {
		rc = -errno;
	} else if (!written && (uint64_t)st.st_size == size) {
		rc = 0;
	} else if (!written && (size > (uint64_t)st.st_size
					? opened && db->state.sum.page_count /* as only_grows() */
					: db->local_wal_mode && is_checkpoint_size(db, size))) {
		db->unsynced = true;
		rc = ftruncate(f->fd, (off_t)size) < 0 ? -errno : 0;
	} else if (!written && db->local_wal_mode && wrep_wal_has_frames(db)) {
		rc = refuse_write(db, "a truncation outside of a transaction");
	} else if (opened && is_rollback(db) && (uint64_t)st.st_size == size) {
		rc = db->overlay ? wrep_overlay_truncate(db->overlay, size) : 0;
	} else if (!opened && (written || db->opens) && (!db->opens || wrep_departure_late(op))) {
		rc = -EBUSY; /* truncate(2), beside a writer */
	} else {
		rc = !opened && db->opens ? -EAGAIN : wrep_direct_admit(f, op);
		if (rc == WREP_PENDING)
			return wrep_direct_put_off(db, op); /* unlocks */
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
			return wrep_direct_commit(db, WREP_TRIGGER_CLOSE, op); /* unlocks */
		if (!opened)
			wrep_db_drop_overlay(db);
		else if (rc)
			wrep_direct_failed(db);
	}
	wrep_txn_unlock(db);
	return rc;
}

/* The database is held. */
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
			if (db->fenced || (cuts_wal(db, size) && !wal_may_go(db))) {
				rc = -EIO;
				break;
			}
			if (db->wal_held && cuts_wal(db, size)) {
				pthread_mutex_unlock(&db->lock);
				return wrep_keeper_defer(f, WREP_DEFER_TRUNCATE, NULL, 0, size, op);
			}
			rc = wrep_capture_truncate(db->capture, size);
			break;
		case WREP_JOURNAL:
			if (size >= WREP_JOURNAL_MAGIC_BYTES || !journal_commits(db))
				break;
			shape = calloc(1, sizeof *shape);
			if (!shape) {
				rc = -ENOMEM;
				break;
			}
			shape->trigger = WREP_TRIGGER_TRUNCATE;
			shape->journal_size = size;
			shape->op = op;
			rc = wrep_commit_rollback(db, shape);
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
	rc = wrep_db_hold(db, false);
	if (!rc)
		wrep_db_ref(db); /* `f` may go when `op` is done */
	pthread_mutex_unlock(&db->lock);
	if (rc)
		return cannot_open(db, rc);
	rc = f->fd < 0 ? -ESTALE : truncate_file(f, size, opened, op);
	unhold(db);
	wrep_db_unref(db);
	return rc;
}

/* ---- attributes and names ------------------------------------------------------------------------ */

int wrep_file_setattr(struct wrep_file *f, const struct wrep_attr *attr, struct wrep_op *op)
{
	struct wrep_db *db = f->db;
	int rc = 0;

	if (f->kind == WREP_STRAY)
		return wrep_stray_setattr(f, attr);
	if (f->kind == WREP_DB) {
		bool revoked;

		if (!atomic_load(&db->w->may_write))
			return -EROFS;
		/* `cp -p` and the like set them before they close what they copied. */
		pthread_mutex_lock(&db->lock);
		revoked = f->revoked;
		if ((attr->valid & WREP_ATTR_TIMES) && db->direct.active && db->direct.alone)
			db->direct.times = *attr;
		pthread_mutex_unlock(&db->lock);
		if (revoked)
			return -ESTALE;
		return wrep_submit_attr(db, attr, op);
	}
	if (db) { /* else it is a super-journal, open as long as it is there */
		pthread_mutex_lock(&db->lock);
		rc = wrep_db_hold(db, false);
		pthread_mutex_unlock(&db->lock);
		if (rc)
			return cannot_open(db, rc);
	}
	if (f->fd < 0)
		rc = -ESTALE;
	if (!rc)
		rc = wrep_attr_set(f->fd, attr);
	if (db)
		unhold(db);
	return rc;
}

int wrep_unlink(struct wrep *w, const char *name, struct wrep_op *op)
{
	enum wrep_kind kind = WREP_DB;
	struct wrep_db *db = db_of(w, name, &kind);
	struct wrep_commit *shape;
	struct wrep_file *f;
	bool held;
	int rc;

	if (kind == WREP_SUPER) {
		wrep_db_unref(db);
		return wrep_super_unlink(w, name, op);
	}
	if (!db)
		return wrep_stray_unlink(w, name);
	pthread_mutex_lock(&db->lock);
	/* A database may go although its file has gone before. */
	rc = kind == WREP_DB ? 0 : wrep_db_hold(db, false);
	held = kind != WREP_DB && !rc;
	f = rc ? NULL : wrep_db_file(db, kind);
	if (rc) {
		pthread_mutex_unlock(&db->lock);
		rc = cannot_open(db, rc);
		goto out;
	}
	if (!f) {
		rc = kind == WREP_DB ? -ENOENT : wrep_stray_unlink(w, name);
		wrep_txn_unlock(db);
		goto out;
	}
	if (kind == WREP_DB) {
		struct wrep_entry e = {.type = WREP_ENTRY_UNLINK, .db_id = db->id};

		pthread_mutex_unlock(&db->lock);
		rc = atomic_load(&w->may_write) ? wrep_submit_meta(w, db, &e, 0, op) : -EROFS;
		goto out;
	} else if ((db->pending && !(kind == WREP_JOURNAL && wrep_direct_is_ending(db))) ||
		   (db->fenced && db->local_wal_mode && kind != WREP_JOURNAL)) {
		rc = -EBUSY; /* under the fence the daemon's SQLite has -wal and -shm open */
	} else if (kind == WREP_WAL && !wal_may_go(db)) {
		rc = -EBUSY;
	} else if (kind == WREP_WAL && db->wal_held) {
		pthread_mutex_unlock(&db->lock);
		rc = wrep_keeper_defer(f, WREP_DEFER_UNLINK, NULL, 0, 0, op);
		goto out;
	} else if (kind == WREP_JOURNAL && journal_commits(db)) {
		shape = calloc(1, sizeof *shape);
		if (!shape) {
			rc = -ENOMEM;
		} else {
			shape->trigger = WREP_TRIGGER_UNLINK;
			shape->op = op;
			rc = wrep_commit_rollback(db, shape);
			if (rc)
				goto out; /* unlocked */
		}
	}
	if (!rc && unlinkat(wrep_dir_fd(w, kind), name, 0) < 0)
		rc = -errno;
	if (!rc)
		wrep_db_forget_file(db, kind);
	wrep_txn_unlock(db);
out:
	if (held)
		unhold(db);
	wrep_file_unref(f);
	wrep_db_unref(db);
	return rc;
}

/* db->lock held. */
static void flush_shm(struct wrep_file *f, struct wrep_op *op)
{
	struct wrep_db *db = f->db;
	struct wrep_host *host = &db->w->config.host;
	void *ctx = db->w->config.host_ctx;
	struct wrep_wal_position at;
	pid_t holder;

	/* Under the fence only the daemon's SQLite writes, and it does not die half-way alone. */
	if (db->files[WREP_SHM] != f || db->fenced || !db->capture || db->pending ||
	    wrep_wal_content_position(db->capture, &at) != 0 || at.frame_count == 0 ||
	    !wrep_wal_index_lags(f->fd, at.frame_count, at.salt))
		return;
	/* Another process that holds the WAL write lock is about to update the wal-index itself. */
	holder = host->lock_holder(ctx, f, SHM_WRITE_LOCK);
	if (holder && holder != host->process_of(ctx, op->tid)) /* not known: may live */
		return;
	if (wrep_wal_index_repair(f->fd, at.frame_count, at.salt) == 1)
		wrep_logf(db->w, 'I',
			  "a writer died between its commit and the wal-index; the next "
			  "reader recovers it database=%s frames=%u",
			  db->name, at.frame_count);
}

int wrep_file_flush(struct wrep_file *f, struct wrep_op *op)
{
	struct wrep_db *db = f->db;

	if (f->kind == WREP_STRAY)
		return wrep_stray_flush(f, op);
	if (f->kind != WREP_SHM && f->kind != WREP_DB)
		return 0;
	pthread_mutex_lock(&db->lock);
	if (f->kind == WREP_DB)
		return wrep_direct_flush(f, op); /* unlocks */
	flush_shm(f, op);
	pthread_mutex_unlock(&db->lock);
	return 0;
}
