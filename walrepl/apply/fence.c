/* The fence: while this node may not write, the daemon's connection (conn.h) to every database that an
 * application has open holds the writers' lock.
 *
 * It is taken before an application's first open returns, and when leadership went elsewhere (as soon as the
 * writer that holds it lets go; until then its commits are refused by Raft). It is opened when this node leads
 * and everything before its barrier is applied, which is when the work that tells of the view comes to the head of the
 * applier's queue. Behind a closed fence nobody but the daemon writes the -wal: what it does with that, and
 * how a database that nobody has open any more is folded up, stands here as well.
 */
#include "apply/fence.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "apply/applier.h"
#include "base/io.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/attach.h"
#include "db/db.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/side_stray.h"
#include "db/table.h"
#include "pages/capture.h"
#include "pages/wal_content.h"
#include "record/entry.h"
#include "snapshot/wal_hold.h"
#include "sqlite/conn.h"
#include "sqlite/journal_format.h"
#include "sqlite/wal_index.h"
#include "txn/discard.h"
#include "txn/sender.h"
#include "txn/super_journal.h"
#include "txn/unjournaled.h"

/* The applier keeps the connection to a database that nobody has open, in case somebody opens it again. */
struct wrep_idle_conn {
	STAILQ_ENTRY(wrep_idle_conn) link;
	struct wrep_db *db; /* a reference */
};

#define IDLE_CONNS 32 /* so many of them */

/* ---- one fence ------------------------------------------------------------------------------------- */

/* With the writers' lock in hand, or while nobody has the database open, no application is in a
 * transaction: a journal that lies there, and the overlay beneath it, belong to one that died or
 * was refused. The committed state is the database file. A journal without an overlay must go, too:
 * its writer died before it wrote a page, and once what is applied now has changed the database, a
 * rollback of it would bring former pages back, as a transaction that all nodes take. */
static void discard_overlay(struct wrep_db *db)
{
	char name[WREP_NAME_MAX + 16], super[WREP_SUPER_PATH_MAX];
	struct wrep_file *journal;
	bool changed, has_super;

	pthread_mutex_lock(&db->lock);
	changed = db->overlay && !db->pending && (db->fenced || !db->opens);
	if (changed)
		wrep_db_drop_overlay(db);
	wrep_txn_unlock(db);
	/* The journal goes last: without it a reader takes what the kernel has for committed. */
	if (changed)
		wrep_db_invalidate(db, WREP_DB, 0, 0);
	wrep_db_backing_name(db, WREP_JOURNAL, name);
	pthread_mutex_lock(&db->lock);
	journal = wrep_db_file(db, WREP_JOURNAL);
	has_super = journal && wrep_db_pin(db, true) == 0;
	if (has_super) {
		has_super = wrep_journal_super(journal->fd, super);
		wrep_db_unpin(db);
	}
	wrep_file_unref(journal);
	changed = !db->overlay && !db->pending && (db->fenced || !db->opens) &&
		  unlinkat(wrep_dir_fd(db->w, WREP_JOURNAL), name, 0) == 0;
	if (changed)
		wrep_db_forget_file(db, WREP_JOURNAL);
	pthread_mutex_unlock(&db->lock);
	if (changed && has_super)
		wrep_super_orphaned(db->w, super);
}

static bool has_overlay(struct wrep_db *db)
{
	bool has;

	pthread_mutex_lock(&db->lock);
	has = db->overlay;
	pthread_mutex_unlock(&db->lock);
	return has;
}

/* Close the fence of a database, making its connection if there is none. 0, -EBUSY, -errno. */
static int close_fence(struct wrep_db *db)
{
	bool wal_mode, alone = false, direct;
	int rc = 0;

	wrep_unjournaled_shut_out(db);
	pthread_mutex_lock(&db->lock);
	wal_mode = db->local_wal_mode;
	pthread_mutex_unlock(&db->lock);
	rc = wrep_db_attach(db);
	/* What a dead writer left must be gone before the fence's RESERVED lock is there: beside that, a
	 * reader takes the journal for a living writer's, and what lies in the overlay for committed. */
	if (!rc && !wal_mode && has_overlay(db)) {
		rc = wrep_conn_keep_out(db->conn);
		alone = !rc;
		pthread_mutex_lock(&db->lock);
		direct = alone && db->unjournaled.active && !db->pending;
		pthread_mutex_unlock(&db->lock);
		if (direct) { /* written without fsync, and others may have read it since */
			wrep_db_detach(db);
			wrep_db_revoke(db, true);
			return -EBUSY;
		}
	}
	if (!rc)
		rc = wrep_conn_fence_close(db->conn, wal_mode);
	if (rc) {
		if (alone)
			wrep_conn_let_in(db->conn);
		return rc;
	}
	pthread_mutex_lock(&db->lock);
	/* The lock of one who waits for Raft is his; without it he lost it, and is waited for. So is
	 * one who has just begun to roll a dead writer's journal back, which takes no RESERVED. */
	if (db->pending || (db->overlay && !wal_mode && !alone))
		rc = -EBUSY;
	else
		db->fenced = true;
	/* What the daemon is about to write, it does behind the capture's back. */
	if (!rc && db->capture)
		wrep_capture_forget(db->capture);
	pthread_mutex_unlock(&db->lock);
	if (rc) {
		wrep_conn_fence_open(db->conn);
		return rc;
	}
	wrep_strays_displaced(db);
	discard_overlay(db);
	if (alone)
		wrep_conn_let_in(db->conn);
	return 0;
}

/* Nobody here has had the database open for a while: its connection goes. Opens of a database whose fence
 * is not closed come through this thread. */
static void drop_idle_conn(struct wrep_db *db)
{
	bool idle;

	pthread_mutex_lock(&db->lock);
	db->conn_idle = false;
	idle = !db->opens && !db->pending;
	if (idle && db->fenced) {
		if (db->capture)
			wrep_capture_forget(db->capture);
		db->fenced = false;
	}
	pthread_mutex_unlock(&db->lock);
	if (idle)
		wrep_db_detach(db);
}

unsigned wrep_fences_trim(struct wrep *w, unsigned max)
{
	unsigned dropped = 0;

	while (w->idle_conn_count > max) {
		struct wrep_idle_conn *idle = STAILQ_FIRST(&w->idle_conns);

		STAILQ_REMOVE_HEAD(&w->idle_conns, link);
		w->idle_conn_count--;
		dropped++;
		drop_idle_conn(idle->db);
		wrep_db_unref(idle->db);
		free(idle);
	}
	return dropped;
}

/* The last application closed a database that has a fence: its connection may go. */
struct idle_work {
	struct wrep_work work; /* first */
	struct wrep_db *db;
	struct wrep_idle_conn *idle; /* for the list */
};

static void run_idle_amid(struct wrep *w, struct wrep_work *work)
{
	struct idle_work *i = (struct idle_work *)work;

	i->idle->db = i->db;
	STAILQ_INSERT_TAIL(&w->idle_conns, i->idle, link);
	w->idle_conn_count++;
	i->db = NULL;
	i->idle = NULL;
}

static void run_idle(struct wrep *w, struct wrep_work *work)
{
	run_idle_amid(w, work);
	wrep_fences_trim(w, IDLE_CONNS);
}

/* Descriptors may be what is waited for. */
static bool idle_overtakes(const struct wrep_work *work)
{
	(void)work;
	return true;
}

static void retire_idle(struct wrep_work *work)
{
	wrep_db_retire(((struct idle_work *)work)->db);
}

static void release_idle(struct wrep_work *work)
{
	struct idle_work *i = (struct idle_work *)work;

	wrep_db_unref(i->db);
	free(i->idle);
	free(i);
}

static const struct wrep_work_ops idle_ops = {
	.name = "idle",
	.run = run_idle,
	.run_amid = run_idle_amid,
	.overtakes = idle_overtakes,
	.retire = retire_idle,
	.release = release_idle,
};

void wrep_idle_queue(struct wrep_db *db)
{
	struct idle_work *i = wrep_work_make(sizeof *i, &idle_ops);

	i->idle = calloc(1, sizeof *i->idle);
	if (!i->idle)
		abort(); /* as wrep_work_make() */
	i->db = wrep_db_ref(db);
	wrep_work_is_about(&i->work, db->id);
	wrep_queue_push(db->w->queue, &i->work);
}

/* close_fence(), and where descriptors are short, again without the connections that nobody needs. */
int wrep_fence_close(struct wrep_db *db)
{
	int rc = close_fence(db);

	if ((rc == -EMFILE || rc == -ENFILE) && wrep_fences_trim(db->w, 0))
		rc = close_fence(db);
	return rc;
}

int wrep_fence_wal_goes(struct wrep_db *db)
{
	int rc;

	for (;;) {
		pthread_mutex_lock(&db->lock);
		db->wal_resetting = !db->wal_held;
		if (db->wal_resetting) {
			pthread_mutex_unlock(&db->lock);
			return 0;
		}
		pthread_mutex_unlock(&db->lock);
		rc = wrep_db_checkpoint(db, false, NULL, NULL);
		if (!rc)
			rc = wrep_snapshotter_release(db);
		if (rc)
			return rc;
	}
}

void wrep_fence_wal_gone(struct wrep_db *db)
{
	pthread_mutex_lock(&db->lock);
	db->wal_resetting = false;
	pthread_cond_broadcast(&db->wal_gone);
	pthread_mutex_unlock(&db->lock);
}

bool wrep_fence_wal_is_used_up(struct wrep_db *db)
{
	struct wrep_wal_position at;
	struct wrep_file *shm;
	bool used_up = false;

	pthread_mutex_lock(&db->lock);
	if (db->wal_held && db->capture) {
		shm = wrep_db_file(db, WREP_SHM);
		used_up = shm && wrep_wal_content_position(db->capture, &at) == 0 &&
			  wrep_wal_index_copied(shm->fd, at.frame_count, at.salt);
		wrep_file_unref(shm);
	}
	pthread_mutex_unlock(&db->lock);
	return used_up;
}

/* db->lock held. */
static bool has_content(const struct wrep_file *wal)
{
	int dir_fd = wrep_dir_fd(wal->db->w, WREP_WAL), rc;
	struct stat st;

	if (wal->revoked || wal->db->retired)
		return false;
	rc = wal->fd >= 0 ? fstat(wal->fd, &st)
			  : fstatat(dir_fd, wal->name, &st, AT_SYMLINK_NOFOLLOW);
	return rc == 0 && st.st_size > 0;
}

int wrep_fence_make_cold(struct wrep_db *db)
{
	struct wrep_file *wal;
	bool has_frames;
	int rc;

	pthread_mutex_lock(&db->lock);
	wal = wrep_db_file(db, WREP_WAL);
	has_frames = wal && has_content(wal);
	pthread_mutex_unlock(&db->lock);
	wrep_file_unref(wal);
	if (!db->conn && !has_frames) {
		discard_overlay(db);
		return 0;
	}
	rc = wrep_fence_close(db);
	if (!rc && has_frames) {
		rc = wrep_fence_wal_goes(db);
		if (!rc) {
			rc = wrep_db_checkpoint(db, true, NULL, NULL);
			wrep_fence_wal_gone(db);
		}
	}
	if (rc)
		return rc;
	wrep_db_detach(db);
	return 0;
}

static bool settle(struct wrep *w)
{
	bool may_write = atomic_load(&w->may_write), again = false;
	bool short_of_descriptors = false;
	struct wrep_db **all;
	size_t count;

	if (!may_write && wrep_now_ms() < w->fences_not_before_ms)
		return true;
	if (wrep_db_all(w, &all, &count) < 0)
		return true;
	for (size_t i = 0; i < count; i++) {
		struct wrep_db *db = all[i];
		bool want, fenced;

		pthread_mutex_lock(&db->lock);
		want = !may_write && db->opens > 0 && !db->removed;
		fenced = db->fenced;
		pthread_mutex_unlock(&db->lock);
		if (may_write) {
			wrep_db_detach(db);
		} else if (want && !fenced) {
			int rc = short_of_descriptors ? -EBUSY : wrep_fence_close(db);

			if (wrep_out_of_descriptors(w, rc, db->name)) {
				/* Who writes there without a fence is refused by Raft. */
				w->fences_not_before_ms = wrep_now_ms() + WREP_FULL_RETRY_MS;
				short_of_descriptors = again = true;
			} else if (rc == -EBUSY)
				again = true;
			else if (rc < 0)
				wrep_logf(w, 'E', "cannot close the gate database=%s error=%s",
					  db->name, strerror(-rc));
		}
		wrep_db_unref(db);
	}
	free(all);
	return again;
}

void wrep_fences_settle(struct wrep *w)
{
	w->fences_unsettled = settle(w);
}

void wrep_fences_settle_later(struct wrep *w)
{
	w->fences_unsettled = true;
}
