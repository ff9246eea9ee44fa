/* Transactions on their way into the files.
 *
 * One of another node is applied in one of three ways. A database that no application has open is *cold*:
 * its pages go straight into the database file, and what the kernel kept of it is dropped. A *hot* one goes
 * through the daemon's own SQLite connection (conn.h), as one more writer among the applications:
 * appended to the -wal, or written under the EXCLUSIVE lock in rollback mode. Over several databases: readers
 * are kept out of all of them before the first is written.
 *
 * One of an application here that Raft has committed is installed (install.c): what was held back goes where it belongs.
 *
 * What is busy (a reader in rollback mode, a writer that has not noticed that it lost) is tried again, and
 * everything behind it waits: the order of the log is kept. wrep_apply_takes() says why nothing gets into the files on top
 * of a gap.
 */
#include "apply/apply.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "apply/applier.h"
#include "apply/fence.h"
#include "base/io.h"
#include "base/phase.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/attach.h"
#include "db/db.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/spool.h"
#include "db/table.h"
#include "pages/capture.h"
#include "record/entry.h"
#include "snapshot/wal_hold.h"
#include "sqlite/conn.h"
#include "sqlite/file_format.h"
#include "txn/discard.h"
#include "txn/sender.h"

#define RETRY_MS 2	       /* between attempts at a busy lock */
#define BUSY_LOG_MS 5000       /* an attempt that lasts this long is worth a log line */
#define CHECKPOINT_FRAMES 1000 /* of a -wal that only the daemon writes; SQLite's own default */

/* ---- order ------------------------------------------------------------------------------------------ */

/* Is the database where a transaction that was built on `base_version` can be applied to it? A transaction takes
 * effect in the replicated state only on the version before it (state/state.c), and is queued then; so as long as
 * none is passed over, the files are at that version when it comes to the head of the queue. After a restart or
 * a fetch, too: the pages in the files may be newer, but both versions begin at what the manifest says.
 *
 * False: it is passed over, and for a reason that holds until the database is gone, so that whatever is behind
 * it is passed over as well. The database is removed, or retired. Or its file is gone, no other node has a copy,
 * and a former one was passed over for want of it (wrep_cannot_apply()): no matter whether somebody has put the file
 * back since. */
bool wrep_apply_takes(struct wrep_db *db, uint64_t base_version)
{
	bool takes;

	pthread_mutex_lock(&db->lock);
	takes = !db->removed && !db->left_behind;
	assert(!takes || db->local_version == base_version);
	pthread_mutex_unlock(&db->lock);
	return takes;
}

/* ---- another node's ------------------------------------------------------------------------------- */

void wrep_gathered_free(struct wrep_gathered *g)
{
	free(g->pgnos);
	free(g->images);
}

/* The entries were checked when they were delivered (state/version.c). */
int wrep_gather(const struct wrep_entry *e, struct wrep_spool *spool, struct wrep_gathered *g)
{
	memset(g, 0, sizeof *g);
	g->mode = e->commit_mode;
	g->txn.page_size = e->page_size;
	g->txn.page_count = e->page_count;
	g->txn.image_count = e->total_pages;
	if (spool) {
		g->spool = spool;
		g->txn.fetch = wrep_spool_fetch;
		g->txn.ctx = spool;
		g->sets_wal_mode = spool->parts->sets_wal_mode;
		g->wal_mode = spool->parts->wal_mode;
		return 0;
	}
	g->pgnos = malloc(((size_t)e->total_pages + 1) * sizeof *g->pgnos);
	g->images = malloc(((size_t)e->total_pages + 1) * sizeof *g->images);
	if (!g->pgnos || !g->images) {
		wrep_gathered_free(g);
		memset(g, 0, sizeof *g);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < e->image_count; i++) {
		g->pgnos[i] = wrep_entry_pgno(e, i);
		g->images[i] = e->images + (size_t)i * e->page_size;
		if (g->pgnos[i] == 1) {
			g->sets_wal_mode = true;
			g->wal_mode = wrep_page1_is_wal(g->images[i]);
		}
	}
	g->txn.pgnos = g->pgnos;
	g->txn.images = g->images;
	return 0;
}

/* No application has it open, and opens come through this thread: nobody looks. Should it fail half-way, for
 * want of space, nobody gets it open until it is done. */
int wrep_apply_cold(struct wrep_db *db, const struct wrep_gathered *g)
{
	struct wrep_file *f;
	int rc = 0;

	pthread_mutex_lock(&db->lock);
	rc = wrep_db_pin(db, true);
	f = rc ? NULL : wrep_db_file(db, WREP_DB);
	if (!rc && !f)
		wrep_db_unpin(db);
	db->unsynced |= f != NULL;
	db->half_applied |= f != NULL;
	pthread_mutex_unlock(&db->lock);
	if (!f)
		return rc ? rc : -ENOENT;
	if (g->spool)
		rc = wrep_spool_copy(g->spool, f->fd);
	for (uint32_t i = 0; !g->spool && i < g->txn.image_count && !rc; i++) {
		rc = wrep_write_all(f->fd, g->images[i], g->txn.page_size,
				    (uint64_t)(g->pgnos[i] - 1) * g->txn.page_size);
	}
	if (!rc && ftruncate(f->fd, (off_t)g->txn.page_count * g->txn.page_size) < 0)
		rc = -errno;
	pthread_mutex_lock(&db->lock);
	wrep_db_unpin(db);
	pthread_mutex_unlock(&db->lock);
	wrep_file_unref(f);
	wrep_db_invalidate(db, WREP_DB, 0,
			   0); /* what the kernel kept from the last time it was open */
	return rc;
}

/* Append to the -wal. While the manifest counts on it, it is not started over. */
static int append(struct wrep_db *db, const struct wrep_gathered *g)
{
	struct wrep_conn_txn txn = g->txn;
	int rc = wrep_fence_wal_is_used_up(db) ? wrep_snapshotter_release(db) : 0;

	if (rc)
		return rc;
	pthread_mutex_lock(&db->lock);
	txn.keep_wal = db->wal_held;
	db->wal_resetting = !db->wal_held;
	pthread_mutex_unlock(&db->lock);
	rc = wrep_conn_apply_wal(db->conn, &txn);
	wrep_fence_wal_gone(db);
	return rc;
}

static int apply_direct(struct wrep_db *db, const struct wrep_gathered *g)
{
	int rc = wrep_conn_apply_direct(db->conn, &g->txn);

	if (!rc || rc == -EBUSY)
		return rc;
	/* The connection still has its EXCLUSIVE lock; should that go, nobody reads the file even so. */
	pthread_mutex_lock(&db->lock);
	db->half_applied = true;
	pthread_mutex_unlock(&db->lock);
	return rc;
}

int wrep_apply_hot(struct wrep_db *db, const struct wrep_gathered *g)
{
	uint32_t frames, copied;
	int rc;

	/* A transaction that was written in rollback mode leaves WAL mode, or has never been in it:
	 * the fence is closed in the mode of the transaction. */
	if (g->mode != WREP_COMMIT_WAL) {
		rc = wrep_fence_wal_goes(db);
		if (!rc) {
			rc = wrep_conn_fence_close(db->conn, false);
			wrep_fence_wal_gone(db);
		}
		return rc ? rc : apply_direct(db, g);
	}
	rc = wrep_conn_fence_close(db->conn, true);
	if (!rc)
		rc = append(db, g);
	if (rc)
		return rc;
	db->frames_to_copy += g->txn.image_count;
	if (db->frames_to_copy < CHECKPOINT_FRAMES)
		return 0;
	/* Readers may hold some frames back, or the disk is full; the next transaction tries again. */
	rc = wrep_db_checkpoint(db, false, &frames, &copied);
	if (rc == 0)
		db->frames_to_copy = frames - copied;
	return rc == -EBUSY || rc == -ENOSPC ? 0 : rc;
}

/* Bring the database to where a transaction can be applied to it. 1: it is cold, wrep_apply_cold(); 0: it is
 * hot and its fence closed, wrep_apply_hot(); -EBUSY, -errno. */
int wrep_apply_make_ready(struct wrep_db *db, enum wrep_commit_mode mode)
{
	bool open, undecided;
	int rc;

	pthread_mutex_lock(&db->lock);
	open = db->opens > 0;
	undecided = db->pending;
	pthread_mutex_unlock(&db->lock);
	if (undecided) /* it will be refused, being built on what was before */
		return -EBUSY;
	if (open && mode == WREP_COMMIT_REPLACE) {
		wrep_db_detach(db);
		if (!wrep_db_revoke(db, false))
			return -EBUSY;
		open = false;
	}
	if (!open) {
		rc = wrep_fence_make_cold(db);
		if (rc == 0) {
			/* This node may write: opens do not come through this thread. The local
			 * version still lags, so nothing that is built now can commit, but readers
			 * must not see half a transaction. */
			pthread_mutex_lock(&db->lock);
			open = db->opens > 0 || atomic_load(&db->w->may_write);
			pthread_mutex_unlock(&db->lock);
			if (!open)
				return 1;
		} else if (rc != -EBUSY) {
			return rc;
		}
	}
	return wrep_fence_close(db);
}

static int apply_once(struct wrep_db *db, const struct wrep_gathered *g)
{
	int rc = wrep_apply_make_ready(db, g->mode);

	return rc == 1 ? wrep_apply_cold(db, g) : rc ? rc : wrep_apply_hot(db, g);
}

/* Keep the images of a part. An own transaction that finds no room is given up, as long as its COMMIT
 * is not on its way; one that was given up needs none. */
static int store_part(struct wrep *w, struct wrep_db *db, struct wrep_spool *spool,
		      const struct wrep_entry *e)
{
	uint64_t logged = 0;
	int rc = 0;

	while (!rc) {
		if (!wrep_goes_on(w) || wrep_db_is_removed(db) || atomic_load(&spool->dead))
			return -ECANCELED;
		rc = wrep_spool_store(spool, w->config.data_fd, e);
		if (!wrep_is_shortage(rc))
			break;
		if (!wrep_part_not_kept(db, spool, -ENOSPC))
			wrep_wait_for_space(w, db->name, rc, &logged);
		rc = 0;
	}
	if (rc < 0)
		wrep_fatalf(w,
			    "cannot keep a part of a large transaction database=%s error=%s; "
			    "repair the disk and mount again",
			    db->name, strerror(-rc));
	return rc;
}

/* Keep the images that came with the COMMIT itself, behind those of its PAGES entries. False: it is not to be
 * applied any more; nor may some of the latter be there then, for the same reason. */
bool wrep_apply_has_parts(struct wrep *w, struct wrep_db *db, struct wrep_spool *spool,
			  const struct wrep_entry *e)
{
	/* What is given up is not committed. */
	assert(!spool || !atomic_load(&spool->dead));
	return !spool || store_part(w, db, spool, e) == 0;
}

/* After an attempt that ended with -EBUSY, or for want of space or descriptors, because of `db`. */
void wrep_wait_to_retry(struct wrep *w, struct wrep_db *db, int rc, struct wrep_retrying *t)
{
	if (rc != -EBUSY) {
		wrep_wait_for_space(w, db->name, rc, &t->logged_full);
		return;
	}
	if (!t->logged && wrep_now_ms() - t->since > BUSY_LOG_MS) {
		t->logged = 1;
		if (db->conn && wrep_conn_waits_for_size(db->conn))
			wrep_logf(
				w, 'W',
				"replication waits for the kernel, which does not take in how long "
				"a file is database=%s; mount again if that lasts",
				db->name);
		else
			wrep_logf(w, 'W',
				  "replication waits for an application that holds a lock "
				  "database=%s; end its open transaction",
				  db->name);
	}
	wrep_serve_opens(w);
	usleep(RETRY_MS * 1000);
}

/* The files of `db` show the transaction `e` of entry `index`. */
void wrep_applied(struct wrep_db *db, const struct wrep_entry *e, const struct wrep_gathered *g,
		  struct wrep_spool *spool, uint64_t index)
{
	pthread_mutex_lock(&db->lock);
	assert(db->local_version == e->base_version);
	db->local_version++;
	db->local_index = index;
	db->half_applied = false;
	db->touched = db->unsynced = true;
	wrep_spool_applied(db, spool);
	if (g->sets_wal_mode)
		db->local_wal_mode = g->wal_mode;
	if (db->capture)
		wrep_capture_forget(db->capture);
	pthread_mutex_unlock(&db->lock);
	if (atomic_load(&db->w->may_write))
		wrep_db_detach(db); /* a transaction of ours whose outcome had been unknown */
}

/* It is passed over, and what is behind it will be: either the node stops, or gets its files from the leader; or
 * the database is removed; or it stays behind for good, since nobody has its file. */
void wrep_cannot_apply(struct wrep_db *db, int rc)
{
	char failure[WREP_CONN_FAILURE_MAX] = "";

	if (wrep_db_is_removed(db))
		return; /* its end is queued, or everybody's has come */
	if (rc == -ENOENT) {
		wrep_db_missing(db);
		pthread_mutex_lock(&db->lock);
		db->left_behind = true;
		pthread_mutex_unlock(&db->lock);
	} else if (!wrep_closing(db->w)) {
		if (db->conn)
			wrep_conn_failure(db->conn, rc, failure);
		wrep_fatalf(db->w,
			    "cannot apply a committed transaction database=%s version=%llu "
			    "error=%s%s; repair the disk and mount again",
			    db->name, (unsigned long long)db->local_version + 1, strerror(-rc),
			    failure);
	}
}

/* ---- the work ---------------------------------------------------------------------------------------- */

/* A part of a transaction: keep its images. */
struct part_work {
	struct wrep_work work; /* first */
	struct wrep_db *db;
	struct wrep_spool *spool;
	struct rlog_buf *buf;
};

static void run_part(struct wrep *w, struct wrep_work *work)
{
	struct part_work *p = (struct part_work *)work;
	struct wrep_entry e;
	int rc = wrep_entry_decode(p->buf, &e);

	assert(!rc);
	store_part(w, p->db, p->spool, &e);
}

static void retire_part(struct wrep_work *work)
{
	wrep_db_retire(((struct part_work *)work)->db);
}

static void release_part(struct wrep_work *work)
{
	struct part_work *p = (struct part_work *)work;

	wrep_db_unref(p->db);
	wrep_spool_unref(p->spool);
	rlog_buf_unref(p->buf);
	free(p);
}

static const struct wrep_work_ops part_ops = {
	.name = "part",
	.run = run_part,
	.retire = retire_part,
	.release = release_part,
	.follows_log = true,
};

void wrep_apply_queue_part(struct wrep_db *db, struct wrep_spool *spool, struct rlog_buf *buf)
{
	struct part_work *p = wrep_work_make(sizeof *p, &part_ops);

	p->db = wrep_db_ref(db);
	p->spool = wrep_spool_ref(spool);
	p->buf = rlog_buf_ref(buf);
	p->work.bytes = buf->len;
	wrep_work_is_about(&p->work, db->id);
	wrep_queue_push(db->w->queue, &p->work);
}

/* The parts of a transaction are not needed any more: their file is closed, which takes a while. */
struct drop_work {
	struct wrep_work work; /* first */
	struct wrep_spool *spool;
};

static void run_drop(struct wrep *w, struct wrep_work *work)
{
	(void)w;
	(void)work; /* its release does it */
}

static void release_drop(struct wrep_work *work)
{
	struct drop_work *d = (struct drop_work *)work;

	wrep_spool_unref(d->spool);
	free(d);
}

static const struct wrep_work_ops drop_ops = {.name = "drop",
					      .run = run_drop,
					      .release = release_drop};

void wrep_apply_queue_drop(struct wrep *w, struct wrep_spool *spool)
{
	struct drop_work *d;

	if (!spool)
		return;
	atomic_store(&spool->dead, true);
	d = wrep_work_make(sizeof *d, &drop_ops);
	d->spool = spool;
	wrep_queue_push(w->queue,
			&d->work); /* whoever is at these parts holds them, too: no lane */
}

/* A transaction of another node. */
struct transaction_work {
	struct wrep_work work; /* first */
	struct wrep_db *db;
	struct wrep_spool *spool; /* or NULL */
	struct rlog_buf *buf;
	uint64_t index;
	bool changes_nothing; /* but the version */
};

static void run_transaction(struct wrep *w, struct wrep_work *work)
{
	struct transaction_work *t = (struct transaction_work *)work;
	struct wrep_db *db = t->db;
	struct wrep_retrying waiting = {.since = wrep_now_ms()};
	struct wrep_entry e;
	struct wrep_gathered g;
	int rc = wrep_entry_decode(t->buf, &e);

	assert(!rc); /* as when it was delivered */
	if (!wrep_goes_on(w) || !wrep_apply_takes(db, e.base_version) ||
	    !wrep_apply_has_parts(w, db, t->spool, &e))
		return;
	rc = wrep_gather(&e, t->spool, &g);
	while (!rc && !t->changes_nothing) {
		rc = apply_once(db, &g);
		if (rc != -EBUSY && !wrep_is_shortage(rc))
			break;
		if (!wrep_goes_on(w) || !wrep_apply_takes(db, e.base_version)) {
			wrep_gathered_free(&g);
			return;
		}
		wrep_wait_to_retry(w, db, rc, &waiting);
		rc = 0;
	}
	if (rc == 0)
		wrep_applied(db, &e, &g, t->spool, t->index);
	else
		wrep_cannot_apply(db, rc);
	wrep_gathered_free(&g);
}

static void retire_transaction(struct wrep_work *work)
{
	wrep_db_retire(((struct transaction_work *)work)->db);
}

static void release_transaction(struct wrep_work *work)
{
	struct transaction_work *t = (struct transaction_work *)work;

	wrep_db_unref(t->db);
	wrep_spool_unref(t->spool);
	rlog_buf_unref(t->buf);
	free(t);
}

static const struct wrep_work_ops transaction_ops = {
	.name = "transaction",
	.run = run_transaction,
	.retire = retire_transaction,
	.release = release_transaction,
	.follows_log = true,
};

void wrep_apply_queue(struct wrep_db *db, uint64_t index, struct rlog_buf *buf,
		      struct wrep_spool *spool, bool changes_nothing)
{
	struct transaction_work *t = wrep_work_make(sizeof *t, &transaction_ops);

	t->db = wrep_db_ref(db);
	t->index = index;
	t->buf = rlog_buf_ref(buf);
	t->spool = spool;
	t->changes_nothing = changes_nothing;
	t->work.bytes = buf->len;
	wrep_work_is_about(&t->work, db->id);
	wrep_queue_push(db->w->queue, &t->work);
}
