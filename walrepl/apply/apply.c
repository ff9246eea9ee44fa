/* Transactions on their way into the files.
 *
 * One of another node is applied in one of three ways. A database that no application has open is *cold*:
 * its pages go straight into the database file, and what the kernel kept of it is dropped. A *hot* one goes
 * through the daemon's own SQLite connection (conn.h), as one more writer among the applications:
 * appended to the -wal, or written under the EXCLUSIVE lock in rollback mode. Over several databases: readers
 * are kept out of all of them before the first is written.
 *
 * One of an application here that Raft has committed is installed: what was held back goes where it belongs.
 *
 * What is busy (a reader in rollback mode, a writer that has not noticed that it lost) is tried again, and
 * everything behind it waits: the order of the log is kept. takes() says why nothing gets into the files on top
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
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/pin.h"
#include "db/spool.h"
#include "db/table.h"
#include "pages/capture.h"
#include "pages/overlay.h"
#include "record/entry.h"
#include "snapshot/snapshotter.h"
#include "sqlite/conn.h"
#include "sqlite/file_format.h"
#include "state/parts.h"
#include "txn/commit.h"
#include "txn/journal.h"
#include "txn/multi_commit.h"
#include "txn/proposal.h"
#include "txn/sender.h"
#include "txn/unjournaled.h"

#define RETRY_MS 2	       /* between attempts at a busy lock */
#define BUSY_LOG_MS 5000       /* an attempt that lasts this long is worth a log line */
#define HOLD_MS 200	       /* readers are kept out of what is ready meanwhile */
#define LET_IN_MS 50	       /* and then not */
#define CHECKPOINT_FRAMES 1000 /* of a -wal that only the daemon writes; SQLite's own default */

/* ---- order ------------------------------------------------------------------------------------------ */

/* Is the database where a transaction that was built on `base_version` can be applied to it? A transaction takes
 * effect in the replicated state only on the version before it (replica.c), and is queued then; so as long as
 * none is passed over, the files are at that version when it comes to the head of the queue. After a restart or
 * a fetch, too: the pages in the files may be newer, but both versions begin at what the manifest says.
 *
 * False: it is passed over, and for a reason that holds until the database is gone, so that whatever is behind
 * it is passed over as well. The database is removed, or retired. Or its file is gone, no other node has a copy,
 * and a former one was passed over for want of it (cannot_apply()): no matter whether somebody has put the file
 * back since. */
static bool takes(struct wrep_db *db, uint64_t base_version)
{
	bool takes;

	pthread_mutex_lock(&db->lock);
	takes = !db->removed && !db->left_behind;
	assert(!takes || db->local_version == base_version);
	pthread_mutex_unlock(&db->lock);
	return takes;
}

/* Is anything applied any more? If not, nothing is until the databases are others: the node stops, or is about
 * to fetch, which retires every database. */
static bool goes_on(struct wrep *w)
{
	return !wrep_stopping(w) && !wrep_fetching(w);
}

/* ---- another node's ------------------------------------------------------------------------------- */

/* A transaction, ready to be applied. */
struct gathered {
	struct wrep_conn_txn txn;
	struct wrep_parts *parts; /* where the images are, or NULL: in the entry */
	enum wrep_commit_mode mode;
	uint32_t *pgnos;
	const void **images;
	bool sets_wal_mode, wal_mode;
};

static void gathered_free(struct gathered *g)
{
	free(g->pgnos);
	free(g->images);
}

/* The entries were checked when they were delivered (replica.c). */
static int gather(const struct wrep_entry *e, struct wrep_parts *parts, struct gathered *g)
{
	memset(g, 0, sizeof *g);
	g->mode = e->commit_mode;
	g->txn.page_size = e->page_size;
	g->txn.page_count = e->page_count;
	g->txn.image_count = e->total_pages;
	if (parts) {
		g->parts = parts;
		g->txn.fetch = wrep_parts_fetch;
		g->txn.ctx = parts;
		g->sets_wal_mode = parts->sets_wal_mode;
		g->wal_mode = parts->wal_mode;
		return 0;
	}
	g->pgnos = malloc(((size_t)e->total_pages + 1) * sizeof *g->pgnos);
	g->images = malloc(((size_t)e->total_pages + 1) * sizeof *g->images);
	if (!g->pgnos || !g->images) {
		gathered_free(g);
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
static int apply_cold(struct wrep_db *db, const struct gathered *g)
{
	struct wrep_file *f;
	int rc = 0;

	pthread_mutex_lock(&db->lock);
	rc = wrep_db_hold(db, true);
	f = rc ? NULL : wrep_db_file(db, WREP_DB);
	if (!rc && !f)
		wrep_db_unhold(db);
	db->unsynced |= f != NULL;
	db->half_applied |= f != NULL;
	pthread_mutex_unlock(&db->lock);
	if (!f)
		return rc ? rc : -ENOENT;
	if (g->parts)
		rc = wrep_parts_copy(g->parts, f->fd);
	for (uint32_t i = 0; !g->parts && i < g->txn.image_count && !rc; i++) {
		rc = wrep_write_all(f->fd, g->images[i], g->txn.page_size,
				    (uint64_t)(g->pgnos[i] - 1) * g->txn.page_size);
	}
	if (!rc && ftruncate(f->fd, (off_t)g->txn.page_count * g->txn.page_size) < 0)
		rc = -errno;
	pthread_mutex_lock(&db->lock);
	wrep_db_unhold(db);
	pthread_mutex_unlock(&db->lock);
	wrep_file_unref(f);
	wrep_applier_invalidate(db, WREP_DB, 0,
				0); /* what the kernel kept from the last time it was open */
	return rc;
}

/* Append to the -wal. While the manifest counts on it, it is not started over. */
static int append(struct wrep_db *db, const struct gathered *g)
{
	struct wrep_conn_txn txn = g->txn;
	int rc = wrep_fence_wal_is_used_up(db) ? wrep_keeper_release(db) : 0;

	if (rc)
		return rc;
	pthread_mutex_lock(&db->lock);
	txn.keep_wal = db->wal_held;
	db->wal_going = !db->wal_held;
	pthread_mutex_unlock(&db->lock);
	rc = wrep_conn_apply_wal(db->conn, &txn);
	wrep_fence_wal_gone(db);
	return rc;
}

static int apply_direct(struct wrep_db *db, const struct gathered *g)
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

static int apply_hot(struct wrep_db *db, const struct gathered *g)
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
	rc = wrep_fence_checkpoint(db, false, &frames, &copied);
	if (rc == 0)
		db->frames_to_copy = frames - copied;
	return rc == -EBUSY || rc == -ENOSPC ? 0 : rc;
}

/* Bring the database to where a transaction can be applied to it. 1: it is cold, apply_cold(); 0: it is
 * hot and its fence closed, apply_hot(); -EBUSY, -errno. */
static int make_ready(struct wrep_db *db, enum wrep_commit_mode mode)
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
		wrep_fence_open(db);
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

static int apply_once(struct wrep_db *db, const struct gathered *g)
{
	int rc = make_ready(db, g->mode);

	return rc == 1 ? apply_cold(db, g) : rc ? rc : apply_hot(db, g);
}

/* Keep the images of a part. An own transaction that finds no room is given up, as long as its COMMIT
 * is not on its way; one that was given up needs none. */
static int store_part(struct wrep *w, struct wrep_db *db, struct wrep_parts *parts,
		      const struct wrep_entry *e)
{
	uint64_t logged = 0;
	int rc = 0;

	while (!rc) {
		if (wrep_stopping(w) || wrep_db_is_removed(db) || wrep_fetching(w) ||
		    atomic_load(&parts->dead))
			return -ECANCELED;
		rc = wrep_parts_store(parts, w->config.data_fd, e);
		if (!wrep_is_shortage(rc))
			break;
		if (!wrep_part_not_kept(db, parts, -ENOSPC))
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
static bool has_parts(struct wrep *w, struct wrep_db *db, struct wrep_parts *parts,
		      const struct wrep_entry *e)
{
	/* What is given up is not committed. */
	assert(!parts || !atomic_load(&parts->dead));
	return !parts || store_part(w, db, parts, e) == 0;
}

void wrep_apply_part(struct wrep *w, struct wrep_item *item)
{
	struct wrep_entry e;
	int rc = wrep_entry_decode(item->buf, &e);

	assert(!rc);
	store_part(w, item->db, item->parts, &e);
}

/* A transaction that keeps the applier waiting. */
struct waiting {
	uint64_t since, logged, logged_full;
};

/* After an attempt that ended with -EBUSY, or for want of space or descriptors, because of `db`. */
static void wait_to_retry(struct wrep *w, struct wrep_db *db, int rc, struct waiting *t)
{
	if (rc != -EBUSY) {
		wrep_wait_for_space(w, db->name, rc, &t->logged_full);
		return;
	}
	if (!t->logged && wrep_now_ms() - t->since > BUSY_LOG_MS) {
		t->logged = 1;
		wrep_logf(w, 'W',
			  "replication waits for an application that holds a lock database=%s; "
			  "end its open transaction",
			  db->name);
	}
	wrep_serve_opens(w);
	usleep(RETRY_MS * 1000);
}

/* The files of `db` show the transaction `e` of entry `index`. */
static void applied(struct wrep_db *db, const struct wrep_entry *e, const struct gathered *g,
		    struct wrep_parts *parts, uint64_t index)
{
	pthread_mutex_lock(&db->lock);
	assert(db->local_version == e->base_version);
	db->local_version++;
	db->local_index = index;
	db->half_applied = false;
	db->touched = db->unsynced = true;
	wrep_parts_applied(db, parts);
	if (g->sets_wal_mode)
		db->local_wal_mode = g->wal_mode;
	if (db->capture)
		wrep_capture_forget(db->capture);
	pthread_mutex_unlock(&db->lock);
	if (atomic_load(&db->w->may_write))
		wrep_fence_open(db); /* a transaction of ours whose outcome had been unknown */
}

/* It is passed over, and what is behind it will be: either the node stops, or gets its files from the leader; or
 * the database is removed; or it stays behind for good, since nobody has its file. */
static void cannot_apply(struct wrep_db *db, int rc)
{
	if (wrep_db_is_removed(db))
		return; /* its end is queued, or everybody's has come */
	if (rc == -ENOENT) {
		wrep_db_missing(db);
		pthread_mutex_lock(&db->lock);
		db->left_behind = true;
		pthread_mutex_unlock(&db->lock);
	} else if (!wrep_closing(db->w)) {
		wrep_fatalf(db->w,
			    "cannot apply a committed transaction database=%s version=%llu "
			    "error=%s; repair the disk and mount again",
			    db->name, (unsigned long long)db->local_version + 1, strerror(-rc));
	}
}

void wrep_apply_transaction(struct wrep *w, struct wrep_item *item)
{
	struct wrep_db *db = item->db;
	struct waiting waiting = {.since = wrep_now_ms()};
	struct wrep_entry e;
	struct gathered g;
	int rc = wrep_entry_decode(item->buf, &e);

	assert(!rc); /* as when it was delivered */
	if (!goes_on(w) || !takes(db, e.base_version) || !has_parts(w, db, item->parts, &e))
		return;
	rc = gather(&e, item->parts, &g);
	while (!rc && !item->changes_nothing) {
		rc = apply_once(db, &g);
		if (rc != -EBUSY && !wrep_is_shortage(rc))
			break;
		if (!goes_on(w) || !takes(db, e.base_version)) {
			gathered_free(&g);
			return;
		}
		wait_to_retry(w, db, rc, &waiting);
		rc = 0;
	}
	if (rc == 0)
		applied(db, &e, &g, item->parts, item->index);
	else
		cannot_apply(db, rc);
	gathered_free(&g);
}

/* ---- several databases ---------------------------------------------------------------------------- */

/* Readers of all members are welcome again. */
static void let_in(const struct wrep_part *members, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (members[i].db->conn)
			wrep_conn_let_in(members[i].db->conn);
}

/* How a member is applied. */
enum way { PASSED_OVER, NOTHING, COLD, HOT };

/* Bring all members to where nobody reads them. What is held already stays so on -EBUSY. */
static int make_all_ready(const struct wrep_part *members, const struct gathered *g, uint32_t count,
			  enum way *way, uint32_t *at)
{
	int rc = 0;

	for (uint32_t i = 0; i < count && !rc; i++) {
		struct wrep_db *db = members[i].db;

		*at = i;
		way[i] = PASSED_OVER;
		if (!takes(db, members[i].entry.base_version))
			continue;
		if (members[i].changes_nothing) {
			way[i] = NOTHING;
			continue;
		}
		rc = make_ready(db, g[i].mode);
		way[i] = rc == 1 ? COLD : HOT;
		if (rc == 1)
			rc = 0;
		else if (!rc && g[i].mode != WREP_COMMIT_WAL)
			rc = wrep_conn_drain(db->conn);
	}
	return rc;
}

static int apply_all(const struct wrep_part *members, const struct gathered *g, uint32_t count,
		     const enum way *way, uint32_t *at)
{
	int rc = 0;

	for (uint32_t i = 0; i < count && !rc; i++) {
		struct wrep_db *db = members[i].db;

		*at = i;
		if (way[i] == COLD)
			rc = apply_cold(db, &g[i]);
		else if (way[i] == HOT)
			rc = apply_hot(db, &g[i]);
	}
	return rc;
}

/* A transaction over several databases. Readers are kept out of all of them before the first is written, as
 * SQLite does it where the transaction comes from: who reads several in one transaction sees it in all or
 * in none of them. (In WAL mode they are not, and SQLite promises nothing.) While one is waited for, no new
 * reader gets in, nor into those that are ready; but not for long, since whoever is waited for may be about
 * to read another. When it has to be tried again after some of it was written, all of it is written again:
 * whole pages, so no matter. If it is given up then, because of a fetch, those that it is not in yet let nobody
 * in before they are retired. */
void wrep_apply_group(struct wrep *w, struct wrep_item *item)
{
	const uint32_t count = item->member_count;
	struct wrep_part *members = item->members;
	struct waiting waiting = {.since = wrep_now_ms()};
	struct gathered *g = calloc(count + 1, sizeof *g);
	enum way *way = calloc(count + 1, sizeof *way);
	uint64_t held_since = wrep_now_ms();
	bool begun = false; /* half of it may be in the files: nobody is let in any more */
	uint32_t at = 0;
	int rc = g && way ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < count && !rc; i++) {
		struct wrep_part *m = &members[i];

		at = i;
		if (takes(m->db, m->entry.base_version) &&
		    !has_parts(w, m->db, m->parts, &m->entry) && !wrep_db_is_removed(m->db))
			goto out; /* everything ends, or comes again */
		rc = gather(&m->entry, m->parts, &g[i]);
	}
	while (!rc) {
		if (!goes_on(w))
			goto out;
		rc = make_all_ready(members, g, count, way, &at);
		if (!rc) {
			begun = true;
			rc = apply_all(members, g, count, way, &at);
		} else if (!begun && wrep_now_ms() - held_since > HOLD_MS) {
			let_in(members, count);
			usleep(LET_IN_MS * 1000);
			held_since = wrep_now_ms();
		}
		if (!rc)
			break;
		if (rc == -EBUSY || wrep_is_shortage(rc))
			wait_to_retry(w, members[at].db, rc, &waiting);
		else /* the others go on without it, or nothing does */
			cannot_apply(members[at].db, rc);
		rc = 0;
	}
	if (rc && count)
		cannot_apply(members[at].db, rc);
	for (uint32_t i = 0; i < count && !rc; i++)
		if (way[i] != PASSED_OVER)
			applied(members[i].db, &members[i].entry, &g[i], members[i].parts,
				item->index);
out:
	for (uint32_t i = 0; i < count && g; i++)
		gathered_free(&g[i]);
	free(g);
	free(way);
}

/* ---- an application's own -------------------------------------------------------------------------- */

/* May be tried again when it failed. db->lock held. */
static int install_overlay(struct wrep_db *db, const struct wrep_commit *c)
{
	int rc = db->files[WREP_DB] ? wrep_overlay_commit(db->overlay, db->files[WREP_DB]->fd)
				    : -ENOENT;

	/* SQLite cuts a database that shrank only after its commit. */
	if (rc == 0 && ftruncate(db->files[WREP_DB]->fd, (off_t)c->page_count * c->page_size) < 0)
		rc = -errno;
	return rc ? rc : wrep_commit_pull_trigger(db, c);
}

/* Put what a transaction of an application here consists of where it belongs. May be tried again when it
 * failed for lack of space. db->lock held. */
static int install_once(struct wrep_db *db, const struct wrep_commit *c)
{
	return c->mode == WREP_COMMIT_WAL ? wrep_capture_committed(db->capture)
					  : install_overlay(db, c);
}

/* And forget how it was kept until then. With an error it stays in the overlay, which readers go on to see, as
 * long as the file may hold half of it. db->lock held. */
static void install_end(struct wrep_db *db, const struct wrep_commit *c, int rc)
{
	if (c->mode == WREP_COMMIT_WAL) {
		if (rc == -ENOSPC)
			wrep_capture_refused(db->capture);
	} else if (!rc || db->retired) {
		wrep_db_drop_overlay(db);
	}
	wrep_commit_detach(db);
}

/* What was copied into the database had its times set before; by now the file has been written. False:
 * nobody waits for that. */
static bool again_times(struct wrep_commit *c)
{
	struct wrep *w = c->db->w;
	bool submitted;

	if (!c->times.valid || c->sharers || c->writers)
		return false;
	pthread_mutex_lock(&w->lock); /* wrep_close() frees the log */
	submitted = w->resumable && wrep_submit_attr(c->db, &c->times, c->op) == WREP_PENDING;
	pthread_mutex_unlock(&w->lock);
	return submitted;
}

/* A rollback-journal transaction of an application here has committed: its pages move from the
 * overlay into the database file, and the journal goes. Or one in WAL mode: its last write is let
 * through, for which there was no room before. False: its file has been retired. */
static bool install_commit(struct wrep *w, struct wrep_db *db, struct wrep_commit *c,
			   struct wrep_parts *parts)
{
	uint64_t logged = 0;
	bool last = wrep_closing(w);
	int rc;

	pthread_mutex_lock(&db->lock);
	if (db->retired) { /* it is committed, and its file is being fetched from a peer */
		assert(db->pending == c);
		install_end(db, c, -ENOSPC);
		wrep_db_settled(db);
		pthread_mutex_unlock(&db->lock);
		return false;
	}
	for (;;) {
		/* Nothing else is applied while it is undecided. */
		assert(db->pending == c && db->local_version == c->base_version);
		rc = install_once(db, c);
		if (rc != -ENOSPC || last)
			break;
		pthread_mutex_unlock(&db->lock);
		wrep_wait_for_space(w, db->name, rc, &logged);
		last = wrep_closing(w);
		pthread_mutex_lock(&db->lock);
	}
	install_end(db, c, rc);
	if (!rc) {
		wrep_parts_applied(db, parts);
		db->local_version++;
		db->local_index = c->index;
		if (c->sets_wal_mode)
			db->local_wal_mode = c->wal_mode;
	}
	db->touched = db->unsynced = true;
	if (!rc && c->mode == WREP_COMMIT_REPLACE)
		wrep_direct_copied(db, c->index, c->strays);
	wrep_db_settled(db);
	pthread_mutex_unlock(&db->lock);
	if (rc < 0 && !(last && rc == -ENOSPC)) /* the next start does it again, from the log */
		wrep_fatalf(w,
			    "cannot write a committed transaction into the database file "
			    "database=%s error=%s; repair the disk and mount again",
			    db->name, strerror(-rc));
	return true;
}

void wrep_install(struct wrep *w, struct wrep_item *item)
{
	bool there = install_commit(w, item->db, item->commit, item->parts);

	/* The kernel knows what was copied, but not what lay beside it. */
	if (there && item->commit->strays)
		wrep_applier_invalidate(item->db, WREP_DB, 0, 0);

	/* It is committed, whatever became of this copy. */
	if (!there || !again_times(item->commit))
		wrep_commit_tell(item->commit, 0);
}

/* The same for one over several databases. Its application, whose call waits, still holds the locks that
 * keep readers out of all of them. */
void wrep_install_group(struct wrep *w, struct wrep_item *item)
{
	for (uint32_t i = 0; i < item->member_count; i++) {
		struct wrep_part *m = &item->members[i];

		install_commit(w, m->db, m->commit, m->parts);
		wrep_commit_free(m->commit);
	}
	wrep_group_done(item->group);
}
