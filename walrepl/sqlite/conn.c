/* The daemon's own SQLite connection to one database, and the fence.
 *
 * A database is in one of two modes, by what page 1 says, and this connection with it:
 *
 *	             WAL mode                          rollback mode
 *	SQLite       attached: SHARED on the database, not opened: it would hold a SHARED
 *	             -wal and -shm open                that keeps us from EXCLUSIVE
 *	the fence     WAL write lock                    RESERVED
 *	applying     sqlite3_wal_append()              pwrite() under EXCLUSIVE
 *
 * Going from one mode to the other nobody may slip in between, neither a reader that would find
 * half of it nor a writer past the fence. So the way in holds PENDING from the transaction that
 * writes "WAL" into page 1 until the WAL write lock is ours, which is before
 * wrep_conn_apply_direct() returns; and the way out takes EXCLUSIVE first, as SQLite does, which
 * says that no application has the database open in WAL mode, then checkpoints, deletes -wal and
 * -shm, and keeps EXCLUSIVE until the transaction that writes "not WAL" into page 1 has been
 * applied. (A -wal that stays behind, even an empty one, would be taken by the next application to
 * open the database as a reason to use WAL.)
 *
 * No transaction of SQLite's stays open between two calls: a read transaction of ours would keep
 * the -wal from being checkpointed and started over. Nothing here waits: there is no busy handler,
 * and the locks are tried once.
 *
 * SQLite is used without its SQL, as far as that goes. PRAGMA schema_version begins and ends a read
 * transaction without parsing the schema, which might hold what this version does not know.
 * Settings that would need it are made unnecessary instead: the VFS syncs nothing and maps nothing,
 * the cache holds page 1 at most, there are no temporary files.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/io.h"
#include "sqlite/conn.h"
#include "sqlite/file_format.h"
#include "sqlite/vfs.h"
#include "sqlite/vfs_lock.h"

struct wrep_conn {
	struct wrep_vfs *vfs;
	struct wrep_conn_host host;
	char *name;
	sqlite3 *db;	     /* NULL: not attached */
	sqlite3_stmt *probe; /* a read transaction that parses nothing */
	bool leaving;	     /* WAL mode: PENDING is kept until that is done or given up */
	int code;	     /* SQLite's last result since the caller's last call */
	struct wrep_vfs_failure failure; /* beneath it */
};

static int sqlite_errno(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_OK:
		return 0;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_PROTOCOL: /* a lock that is never held long was not free for long: try again */
		return -EBUSY;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_MISUSE:
	case SQLITE_MISMATCH:
		return -EINVAL;
	default:
		return -EIO;
	}
}

static int conn_errno(struct wrep_conn *c, int rc)
{
	int shortage = (rc & 0xff) == SQLITE_CANTOPEN ? wrep_vfs_shortage(c->vfs) : 0;

	c->code = rc;
	c->failure = wrep_vfs_take_failure(c->vfs);
	return shortage ? shortage : sqlite_errno(rc);
}

void wrep_conn_failure(const struct wrep_conn *c, int rc, char out[WREP_CONN_FAILURE_MAX])
{
	const struct wrep_vfs_failure *f = &c->failure;
	int len;

	out[0] = '\0';
	if (!c->code || sqlite_errno(c->code) != rc)
		return;
	len = snprintf(out, WREP_CONN_FAILURE_MAX, " sqlite=%d", c->code);
	if (f->call && f->code == c->code) /* else SQLite came to it by itself */
		snprintf(out + len, WREP_CONN_FAILURE_MAX - (size_t)len,
			 " call=\"%s\" call_error=%s", f->call,
			 f->error ? strerror(f->error) : "too short");
}

bool wrep_conn_waits_for_size(const struct wrep_conn *c)
{
	return c->code == SQLITE_BUSY && c->failure.call && c->failure.code == SQLITE_BUSY;
}

int wrep_conn_init(void)
{
	/* Refused when SQLite runs already, and then merely a little slower. */
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	return sqlite_errno(sqlite3_initialize());
}

int wrep_conn_open(struct wrep_conn **out, const char *name, const struct wrep_conn_host *host)
{
	struct wrep_conn *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->host = *host;
	c->name = strdup(name);
	r = c->name ? wrep_vfs_open(&c->vfs, name, host) : -ENOMEM;
	if (r) {
		free(c->name);
		free(c);
		return r;
	}
	*out = c;
	return 0;
}

/* ---- attaching to a database in WAL mode ---- */

static void detach(struct wrep_conn *c)
{
	int rc;

	sqlite3_finalize(c->probe);
	rc = sqlite3_close(c->db);
	assert(rc == SQLITE_OK);
	c->probe = NULL;
	c->db = NULL;
	c->leaving = false;
}

/* Begin and end a read transaction. The wal-index is recovered when it is not valid. */
static int read_transaction(struct wrep_conn *c)
{
	sqlite3_step(c->probe); /* reset() says again what went wrong */
	return conn_errno(c, sqlite3_reset(c->probe));
}

static int attach(struct wrep_conn *c)
{
	int rc, on = 0, r;

	rc = sqlite3_open_v2(wrep_vfs_filename(c->vfs), &c->db,
			     SQLITE_OPEN_READWRITE | SQLITE_OPEN_EXRESCODE, wrep_vfs_name(c->vfs));
	if (rc == SQLITE_OK)
		rc = sqlite3_db_config(c->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, &on);
	if (rc == SQLITE_OK)
		rc = sqlite3_db_config(c->db, SQLITE_DBCONFIG_LOOKASIDE, NULL, 0, 0);
	if (rc == SQLITE_OK)
		rc = sqlite3_wal_autocheckpoint(c->db, 0);
	if (rc == SQLITE_OK)
		rc = sqlite3_prepare_v2(c->db, "PRAGMA schema_version", -1, &c->probe, NULL);
	r = conn_errno(c, rc);
	if (r == 0)
		r = read_transaction(c);
	if (r == 0 && !wrep_vfs_in_wal(c->vfs))
		r = -EINVAL; /* page 1 does not say WAL, whatever the caller was told */
	if (r)
		detach(c);
	return r;
}

/* ---- the fence ---- */

static int close_wal_fence(struct wrep_conn *c)
{
	int r;

	if (!c->db) {
		r = attach(c);
		if (r)
			return r;
	}
	r = wrep_vfs_hold(c->vfs, WREP_HOLD_WAL_WRITE);
	if (r)
		return r;
	/* An invalid wal-index can be recovered by nobody else from now on, since that takes the
	 * write lock; readers would spin until they give up with "locking protocol". */
	r = read_transaction(c);
	if (r == 0 && !c->leaving)
		wrep_vfs_drop(c->vfs, WREP_HOLD_DATABASE);
	return r;
}

/* Delete a backing file that SQLite would have deleted. */
static int remove_file(struct wrep_conn *c, int dir_fd, enum wrep_kind kind)
{
	char *path;
	int r = 0;

	if (asprintf(&path, "%s%s", c->name, wrep_kind_suffix(kind)) < 0)
		return -ENOMEM;
	if (unlinkat(dir_fd, path, 0) == 0) {
		if (c->host.removed)
			c->host.removed(c->host.ctx, kind);
	} else if (errno != ENOENT) {
		r = -errno;
	}
	free(path);
	return r;
}

static int leave_wal(struct wrep_conn *c)
{
	static const unsigned locks[] = {WREP_HOLD_RESERVED, WREP_HOLD_PENDING,
					 WREP_HOLD_EXCLUSIVE};
	int r;

	c->leaving = true;
	/* In SQLite's order. A lock stays held when the next is not to be had: PENDING keeps new
	 * readers away while the old ones leave. */
	for (size_t i = 0; i < sizeof(locks) / sizeof(locks[0]); i++) {
		r = wrep_vfs_hold(c->vfs, locks[i]);
		if (r)
			return r;
	}
	r = wrep_conn_checkpoint(c, true, NULL, NULL);
	if (r)
		return r;
	detach(c);
	r = remove_file(c, c->host.data_fd, WREP_WAL);
	if (r == 0)
		r = remove_file(c, c->host.shm_fd, WREP_SHM);
	return r;
}

int wrep_conn_fence_close(struct wrep_conn *c, bool wal_mode)
{
	c->code = SQLITE_OK;
	if (wal_mode)
		return close_wal_fence(c);
	if (c->db)
		return leave_wal(c);
	return wrep_vfs_hold(c->vfs, WREP_HOLD_RESERVED);
}

void wrep_conn_fence_open(struct wrep_conn *c)
{
	c->leaving = false;
	wrep_vfs_drop(c->vfs, WREP_HOLD_DATABASE | WREP_HOLD_WAL_WRITE);
}

int wrep_conn_drain(struct wrep_conn *c)
{
	int r;

	if (c->db)
		return 0;
	r = wrep_vfs_hold(c->vfs, WREP_HOLD_PENDING);
	return r ? r : wrep_vfs_hold(c->vfs, WREP_HOLD_EXCLUSIVE);
}

int wrep_conn_keep_out(struct wrep_conn *c)
{
	int r = wrep_conn_drain(c);

	if (r)
		wrep_conn_let_in(c);
	return r;
}

void wrep_conn_let_in(struct wrep_conn *c)
{
	if (!c->db)
		wrep_vfs_drop(c->vfs, WREP_HOLD_PENDING | WREP_HOLD_EXCLUSIVE);
}

bool wrep_conn_fence_closed(const struct wrep_conn *c)
{
	return wrep_vfs_held(c->vfs) & (c->db ? WREP_HOLD_WAL_WRITE : WREP_HOLD_RESERVED);
}

void wrep_conn_close(struct wrep_conn *c)
{
	if (!c)
		return;
	if (c->db)
		detach(c);
	wrep_vfs_close(c->vfs);
	free(c->name);
	free(c);
}

/* ---- applying ---- */

static int fetch(const struct wrep_conn_txn *txn, uint32_t first, uint32_t count, uint32_t *pgnos,
		 const void **images)
{
	if (txn->fetch)
		return txn->fetch(txn->ctx, first, count, pgnos, images);
	memcpy(pgnos, txn->pgnos + first, count * sizeof(*pgnos));
	memcpy(images, txn->images + first, count * sizeof(*images));
	return 0;
}

/* A transaction that sqlite3_wal_append() asks for, and why there was no answer. */
struct append {
	const struct wrep_conn_txn *txn;
	int error;
};

static_assert(SQLITE_WAL_APPEND_MAX <= WREP_CONN_FETCH_MAX, "a batch must fit one fetch");

static int append_fetch(void *ctx, int first, int count, unsigned *pgnos, const void **images)
{
	struct append *a = ctx;

	a->error = fetch(a->txn, (uint32_t)first, (uint32_t)count, pgnos, images);
	return a->error ? SQLITE_IOERR : SQLITE_OK;
}

int wrep_conn_apply_wal(struct wrep_conn *c, const struct wrep_conn_txn *txn)
{
	struct append a = {.txn = txn};
	int rc;

	c->code = SQLITE_OK;
	if (!c->db || !wrep_conn_fence_closed(c) || txn->page_size > 65536 ||
	    txn->image_count > INT32_MAX)
		return -EINVAL;
	wrep_vfs_keep_wal(c->vfs, txn->keep_wal);
	rc = sqlite3_wal_append(c->db, "main", (int)txn->page_size, txn->page_count,
				(int)txn->image_count, append_fetch, &a);
	wrep_vfs_keep_wal(c->vfs, false);
	return a.error ? a.error : conn_errno(c, rc);
}

/* Some images of a transaction, in order. */
struct batch {
	uint32_t first, count;
	uint32_t last; /* page number of the batch before */
	uint32_t pgnos[WREP_CONN_FETCH_MAX];
	const void *images[WREP_CONN_FETCH_MAX];
};

/* Images [first, first + count); the page numbers go on from `last`. */
static int fetch_checked(const struct wrep_conn_txn *txn, struct batch *b)
{
	int r = fetch(txn, b->first, b->count, b->pgnos, b->images);

	for (uint32_t i = 0; i < b->count && r == 0; i++) {
		if (b->pgnos[i] <= b->last || b->pgnos[i] > txn->page_count)
			r = -EINVAL;
		b->last = b->pgnos[i];
	}
	return r;
}

/* Pages and size of the database file, in the kernel's cache too. */
static int write_database(struct wrep_conn *c, const struct wrep_conn_txn *txn)
{
	const uint64_t page_size = txn->page_size, size = page_size * txn->page_count;
	struct batch b = {0};
	int fd = wrep_vfs_database_fd(c->vfs), r;
	uint64_t run_start = 0, run_end = 0, lo, hi;
	struct stat st;

	for (; b.first < txn->image_count; b.first += b.count) {
		b.count = txn->image_count - b.first;
		if (b.count > WREP_CONN_FETCH_MAX)
			b.count = WREP_CONN_FETCH_MAX;
		r = fetch_checked(txn, &b);
		if (r)
			return r;
		for (uint32_t i = 0; i < b.count; i++) {
			uint64_t off = (b.pgnos[i] - 1) * page_size;

			r = wrep_write_all(fd, b.images[i], page_size, off);
			if (r)
				return r;
			if (off != run_end && run_end > run_start)
				c->host.invalidate(c->host.ctx, WREP_DB, run_start,
						   run_end - run_start);
			if (off != run_end || run_end == 0)
				run_start = off;
			run_end = off + page_size;
		}
	}
	if (run_end > run_start)
		c->host.invalidate(c->host.ctx, WREP_DB, run_start, run_end - run_start);

	if (fstat(fd, &st))
		return -errno;
	if ((uint64_t)st.st_size != size) {
		if (ftruncate(fd, (off_t)size))
			return -errno;
		lo = size < (uint64_t)st.st_size ? size : (uint64_t)st.st_size;
		hi = size < (uint64_t)st.st_size ? (uint64_t)st.st_size : size;
		c->host.invalidate(c->host.ctx, WREP_DB, lo, hi - lo);
	}
	return 0;
}

int wrep_conn_apply_direct(struct wrep_conn *c, const struct wrep_conn_txn *txn)
{
	unsigned char version[2]; /* of the file format, for writing and for reading; 2: WAL */
	int r;

	c->code = SQLITE_OK;
	if (c->db || !wrep_conn_fence_closed(c) || !wrep_page_size_valid(txn->page_size))
		return -EINVAL;
	r = wrep_vfs_hold(c->vfs, WREP_HOLD_PENDING);
	if (r == 0)
		r = wrep_vfs_hold(c->vfs, WREP_HOLD_EXCLUSIVE);
	if (r)
		return r;
	r = write_database(c, txn);
	if (r)
		return r; /* still EXCLUSIVE: nobody shall read half a transaction */

	wrep_vfs_drop(c->vfs, WREP_HOLD_EXCLUSIVE);
	if (pread(wrep_vfs_database_fd(c->vfs), version, sizeof(version), 18) == sizeof(version) &&
	    version[1] == 2) {
		/* Into WAL mode: a writer there does not ask for RESERVED. Everybody stays out
		 * until the fence of that mode is closed, which nobody is there to prevent. */
		r = close_wal_fence(c);
		return r == -EBUSY ? 0 : r;
	}
	wrep_vfs_drop(c->vfs, WREP_HOLD_PENDING);
	return 0;
}

/* ---- checkpoint ---- */

int wrep_conn_checkpoint(struct wrep_conn *c, bool all, uint32_t *wal_frames, uint32_t *copied)
{
	int log = -1, done = -1, r;

	c->code = SQLITE_OK;
	if (!c->db) {
		r = attach(c);
		if (r)
			return r;
	}
	r = conn_errno(c, sqlite3_wal_checkpoint_v2(c->db, "main",
						    all ? SQLITE_CHECKPOINT_TRUNCATE
							: SQLITE_CHECKPOINT_PASSIVE,
						    &log, &done));
	if (wal_frames)
		*wal_frames = log < 0 ? 0 : (uint32_t)log;
	if (copied)
		*copied = done < 0 ? 0 : (uint32_t)done;
	return r;
}
