/* The applier: one thread that brings the backing files up to what the log says, in its order.
 *
 * A transaction of another node is applied in one of three ways. A database that no application has
 * open is *cold*: its pages go straight into the database file, and what the kernel kept of it is
 * dropped. A *hot* one goes through the daemon's own SQLite connection (conn.h), as one more writer
 * among the applications: appended to the -wal, or written under the EXCLUSIVE lock in rollback mode.
 *
 * The gate: while this node may not write, the connection of every open database holds the writers'
 * lock. It is taken before an application's first open returns, and when leadership went elsewhere
 * (as soon as the writer that holds it lets go; until then its commits are refused by Raft). It is
 * opened when this node leads and everything before its barrier is applied, which is when the VIEW
 * item comes to the head of the queue.
 *
 * What is busy (a reader in rollback mode, a writer that has not noticed that it lost) is tried
 * again, and everything behind it waits: the order of the log is kept. Only opens are served
 * meanwhile: who keeps it busy may be the one who opens.
 */
#include "internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#include "group.h"
#include "io.h"
#include "sumfile.h"
#include "super.h"

#define RETRY_MS 2	       /* between attempts at a busy lock */
#define BUSY_LOG_MS 5000       /* an attempt that lasts this long is worth a log line */
#define FULL_RETRY_MS 250      /* between attempts at a full disk */
#define FULL_LOG_MS 60000      /* and between two lines that say so */
#define HOLD_MS 200	       /* readers are kept out of what is ready meanwhile */
#define LET_IN_MS 50	       /* and then not */
#define IDLE_CONNS 32	       /* kept for databases that nobody has open any more */
#define TRIM_CONNS 256	       /* closed, until the memory of so many goes back to the system */
#define CHECKPOINT_FRAMES 1000 /* of a -wal that only the daemon writes; SQLite's own default */

/* ---- the queue ------------------------------------------------------------------------------------ */

struct wrep_item *wrep_item_new(enum wrep_item_type type, struct wrep_db *db)
{
	struct wrep_item *item = calloc(1, sizeof *item);

	if (!item)
		abort(); /* a few dozen bytes: the machine is beyond help */
	item->type = type;
	item->db = db ? wrep_db_ref(db) : NULL;
	return item;
}

void wrep_item_free(struct wrep_item *item)
{
	if (!item)
		return;
	wrep_db_unref(item->db);
	wrep_db_unref(item->replaced);
	wrep_dir_unref(item->dir);
	wrep_file_unref(item->file);
	rlog_buf_unref(item->buf);
	wrep_parts_unref(item->parts);
	wrep_commit_free(item->commit);
	for (uint32_t i = 0; i < item->member_count; i++) {
		wrep_db_unref(item->members[i].db);
		wrep_parts_unref(item->members[i].parts);
	}
	free(item->members);
	free(item);
}

void wrep_applier_push(struct wrep *w, struct wrep_item *item)
{
	item->next = NULL;
	pthread_mutex_lock(&w->lock);
	*w->queue_tail = item;
	w->queue_tail = &item->next;
	w->queue_bytes += item->bytes;
	pthread_cond_broadcast(&w->queue_wake);
	pthread_mutex_unlock(&w->lock);
}

static bool closing(struct wrep *w)
{
	bool is;

	pthread_mutex_lock(&w->lock);
	is = w->closing;
	pthread_mutex_unlock(&w->lock);
	return is;
}

bool wrep_stopping(struct wrep *w)
{
	bool stop;

	pthread_mutex_lock(&w->lock);
	stop = w->closing || w->failed;
	pthread_mutex_unlock(&w->lock);
	return stop;
}

/* ---- connection and gate ------------------------------------------------------------------------- */

static int conn_mounted_open(void *ctx, const char *name, int flags)
{
	struct wrep *w = ((struct wrep_db *)ctx)->w;
	int fd = w->config.host.mounted_open(w->config.host_ctx, name, flags);

	if (fd >= 0 && wrep_descriptor_is_spare(w, fd)) {
		close(fd);
		fd = -EMFILE;
	}
	return fd;
}

static void invalidate(struct wrep_db *db, enum wrep_kind kind, uint64_t off, uint64_t len)
{
	struct wrep_file *f;

	pthread_mutex_lock(&db->lock);
	f = wrep_db_file(db, kind);
	pthread_mutex_unlock(&db->lock);
	if (f)
		db->w->config.host.invalidate(db->w->config.host_ctx, f, off, len);
	wrep_file_unref(f);
}

static void conn_invalidate(void *ctx, const char *suffix, uint64_t off, uint64_t len)
{
	invalidate(ctx, *suffix ? WREP_WAL : WREP_DB, off, len);
}

/* The database left WAL mode: its -wal or -shm is gone from the backing directory. */
static void conn_removed(void *ctx, const char *suffix)
{
	struct wrep_db *db = ctx;
	enum wrep_kind kind = !strcmp(suffix, "-wal") ? WREP_WAL : WREP_SHM;
	char name[WREP_NAME_MAX + 16];

	wrep_db_backing_name(db, kind, name);
	pthread_mutex_lock(&db->lock);
	wrep_db_forget_file(db, kind);
	pthread_mutex_unlock(&db->lock);
	db->w->config.host.invalidate_name(db->w->config.host_ctx, name);
}

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
	changed = db->overlay && !db->pending && (db->gated || !db->opens);
	if (changed)
		wrep_db_drop_overlay(db);
	wrep_commit_feed(db); /* unlocks */
	/* The journal goes last: without it a reader takes what the kernel has for committed. */
	if (changed)
		invalidate(db, WREP_DB, 0, 0);
	wrep_db_backing_name(db, WREP_JOURNAL, name);
	pthread_mutex_lock(&db->lock);
	journal = wrep_db_file(db, WREP_JOURNAL);
	has_super = journal && wrep_db_hold(db, true) == 0;
	if (has_super) {
		has_super = wrep_super_of_journal(journal->fd, super);
		wrep_db_unhold(db);
	}
	wrep_file_unref(journal);
	changed = !db->overlay && !db->pending && (db->gated || !db->opens) &&
		  unlinkat(wrep_dir_fd(db->w, WREP_JOURNAL), name, 0) == 0;
	if (changed)
		wrep_db_forget_file(db, WREP_JOURNAL);
	pthread_mutex_unlock(&db->lock);
	if (changed)
		db->w->config.host.invalidate_name(db->w->config.host_ctx, name);
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

/* Close the gate of a database, making its connection if there is none. 0, -EBUSY, -errno. */
static int close_gate(struct wrep_db *db)
{
	struct wrep_conn_host host = {
		.data_fd = db->w->config.data_fd,
		.shm_fd = db->w->config.shm_fd,
		.mounted_open = conn_mounted_open,
		.invalidate = conn_invalidate,
		.removed = conn_removed,
		.ctx = db,
	};
	bool wal_mode, alone = false, direct;
	int rc = 0;

	wrep_direct_shut_out(db);
	pthread_mutex_lock(&db->lock);
	wal_mode = db->local_wal_mode;
	pthread_mutex_unlock(&db->lock);
	if (!db->conn)
		rc = wrep_conn_open(&db->conn, db->name, &host);
	/* What a dead writer left must be gone before the gate's RESERVED lock is there: beside that, a
	 * reader takes the journal for a living writer's, and what lies in the overlay for committed. */
	if (!rc && !wal_mode && has_overlay(db)) {
		rc = wrep_conn_keep_out(db->conn);
		alone = !rc;
		pthread_mutex_lock(&db->lock);
		direct = alone && db->direct.active && !db->pending;
		pthread_mutex_unlock(&db->lock);
		if (direct) { /* written without fsync, and others may have read it since */
			wrep_gate_open(db);
			wrep_db_revoke(db, true);
			return -EBUSY;
		}
	}
	if (!rc)
		rc = wrep_conn_gate_close(db->conn, wal_mode);
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
		db->gated = true;
	/* What the daemon is about to write, it does behind the capture's back. */
	if (!rc && db->capture)
		wrep_capture_forget(db->capture);
	pthread_mutex_unlock(&db->lock);
	if (rc) {
		wrep_conn_gate_open(db->conn);
		return rc;
	}
	discard_overlay(db);
	if (alone)
		wrep_conn_let_in(db->conn);
	return 0;
}

void wrep_gate_open(struct wrep_db *db)
{
	if (!db->conn)
		return;
	wrep_conn_close(db->conn);
	db->conn = NULL;
	if (++db->w->closed_conns % TRIM_CONNS == 0)
		malloc_trim(0);
	pthread_mutex_lock(&db->lock);
	/* Where the lock was not to be had, nothing was written, and a commit may be undecided. */
	if (db->gated && db->capture)
		wrep_capture_forget(db->capture);
	db->gated = false;
	pthread_mutex_unlock(&db->lock);
}

/* Nobody here has had the database open for a while: its connection goes. Opens of a database whose gate
 * is not closed come through this thread. */
static void drop_idle_conn(struct wrep_db *db)
{
	bool idle;

	pthread_mutex_lock(&db->lock);
	db->conn_idle = false;
	idle = !db->opens && !db->pending;
	if (idle && db->gated) {
		if (db->capture)
			wrep_capture_forget(db->capture);
		db->gated = false;
	}
	pthread_mutex_unlock(&db->lock);
	if (idle)
		wrep_gate_open(db);
}

/* Keep `max` of the connections that nobody needs, those of the databases that were closed last. How many
 * others there were. */
static unsigned trim_idle_conns(struct wrep *w, unsigned max)
{
	unsigned dropped = 0;

	while (w->idle_conn_count > max) {
		struct wrep_item *item = w->idle_conns;

		w->idle_conns = item->next;
		if (!w->idle_conns)
			w->idle_conns_tail = &w->idle_conns;
		w->idle_conn_count--;
		dropped++;
		drop_idle_conn(item->db);
		wrep_item_free(item);
	}
	return dropped;
}

static void keep_idle_conn(struct wrep *w, struct wrep_item *item)
{
	item->next = NULL;
	*w->idle_conns_tail = item;
	w->idle_conns_tail = &item->next;
	w->idle_conn_count++;
}

/* close_gate(), and where descriptors are short, again without the connections that nobody needs. */
static int close_gate_somehow(struct wrep_db *db)
{
	int rc = close_gate(db);

	if ((rc == -EMFILE || rc == -ENFILE) && trim_idle_conns(db->w, 0))
		rc = close_gate(db);
	return rc;
}

/* What the daemon's SQLite copies into the database file is not on the disk yet. */
static int checkpoint(struct wrep_db *db, bool all, uint32_t *frames, uint32_t *copied)
{
	pthread_mutex_lock(&db->lock);
	db->unsynced = true;
	pthread_mutex_unlock(&db->lock);
	return wrep_conn_checkpoint(db->conn, all, frames, copied);
}

/* SQLite is about to start the -wal over, or to remove it: until wal_gone() no manifest will count on
 * it. If the last one does, the database file is made durable first. 0, -EBUSY (readers keep frames from
 * being copied, so the -wal stays as it is anyway), -errno. */
static int wal_goes(struct wrep_db *db)
{
	int rc;

	for (;;) {
		pthread_mutex_lock(&db->lock);
		db->wal_going = !db->wal_held;
		if (db->wal_going) {
			pthread_mutex_unlock(&db->lock);
			return 0;
		}
		pthread_mutex_unlock(&db->lock);
		rc = checkpoint(db, false, NULL, NULL);
		if (!rc)
			rc = wrep_keeper_release(db);
		if (rc)
			return rc;
	}
}

static void wal_gone(struct wrep_db *db)
{
	pthread_mutex_lock(&db->lock);
	db->wal_going = false;
	pthread_mutex_unlock(&db->lock);
}

/* May the next append start the -wal over? SQLite does so once all of it has been copied. */
static bool wal_is_used_up(struct wrep_db *db)
{
	struct wrep_wal_position at;
	struct wrep_file *shm;
	bool used_up = false;

	pthread_mutex_lock(&db->lock);
	if (db->wal_held && db->capture) {
		shm = wrep_db_file(db, WREP_SHM);
		used_up = shm && wrep_capture_position(db->capture, &at) == 0 &&
			  wrep_shm_copied(shm->fd, at.frame_count, at.salt);
		wrep_file_unref(shm);
	}
	pthread_mutex_unlock(&db->lock);
	return used_up;
}

/* Nobody here has the database open: fold its -wal into the database file and let go of it. */
static int make_cold(struct wrep_db *db)
{
	struct stat st;
	struct wrep_file *wal;
	bool has_frames;
	int rc;

	pthread_mutex_lock(&db->lock);
	wal = wrep_db_file(db, WREP_WAL);
	pthread_mutex_unlock(&db->lock);
	has_frames = wal && wrep_file_stat(wal, &st) == 0 && st.st_size > 0;
	wrep_file_unref(wal);
	if (!db->conn && !has_frames) {
		discard_overlay(db);
		return 0;
	}
	rc = close_gate_somehow(db);
	if (!rc && has_frames) {
		rc = wal_goes(db);
		if (!rc) {
			rc = checkpoint(db, true, NULL, NULL);
			wal_gone(db);
		}
	}
	if (rc)
		return rc;
	wrep_gate_open(db);
	return 0;
}

/* ---- applying -------------------------------------------------------------------------------------- */

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

/* No application has it open, and opens come through this thread: nobody looks. */
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
	invalidate(db, WREP_DB, 0, 0); /* what the kernel kept from the last time it was open */
	return rc;
}

/* Append to the -wal. While the manifest counts on it, it is not started over. */
static int append(struct wrep_db *db, const struct gathered *g)
{
	struct wrep_conn_txn txn = g->txn;
	int rc = wal_is_used_up(db) ? wrep_keeper_release(db) : 0;

	if (rc)
		return rc;
	pthread_mutex_lock(&db->lock);
	txn.keep_wal = db->wal_held;
	db->wal_going = !db->wal_held;
	pthread_mutex_unlock(&db->lock);
	rc = wrep_conn_apply_wal(db->conn, &txn);
	wal_gone(db);
	return rc;
}

static int apply_hot(struct wrep_db *db, const struct gathered *g)
{
	uint32_t frames, copied;
	int rc;

	/* A transaction that was written in rollback mode leaves WAL mode, or has never been in it:
	 * the gate is closed in the mode of the transaction. */
	if (g->mode != WREP_COMMIT_WAL) {
		rc = wal_goes(db);
		if (!rc) {
			rc = wrep_conn_gate_close(db->conn, false);
			wal_gone(db);
		}
		return rc ? rc : wrep_conn_apply_direct(db->conn, &g->txn);
	}
	rc = wrep_conn_gate_close(db->conn, true);
	if (!rc)
		rc = append(db, g);
	if (rc)
		return rc;
	db->frames_to_copy += g->txn.image_count;
	if (db->frames_to_copy < CHECKPOINT_FRAMES)
		return 0;
	/* Readers may hold some frames back, or the disk is full; the next transaction tries again. */
	rc = checkpoint(db, false, &frames, &copied);
	if (rc == 0)
		db->frames_to_copy = frames - copied;
	return rc == -EBUSY || rc == -ENOSPC ? 0 : rc;
}

/* Bring the database to where a transaction can be applied to it. 1: it is cold, apply_cold(); 0: it is
 * hot and its gate closed, apply_hot(); -EBUSY, -errno. */
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
		wrep_gate_open(db);
		if (!wrep_db_revoke(db, false))
			return -EBUSY;
		open = false;
	}
	if (!open) {
		rc = make_cold(db);
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
	return close_gate_somehow(db);
}

static int apply_once(struct wrep_db *db, const struct gathered *g)
{
	int rc = make_ready(db, g->mode);

	return rc == 1 ? apply_cold(db, g) : rc ? rc : apply_hot(db, g);
}

static void open_database(struct wrep *w, struct wrep_item *item);

/* Has what this item asks for nothing to wait for? w->lock held. */
static bool can_be_served(const struct wrep_item *item)
{
	bool can;

	if (item->type == WREP_ITEM_IDLE) /* descriptors may be what is waited for */
		return true;
	if (item->type != WREP_ITEM_OPEN)
		return item->type ==
		       WREP_ITEM_REVERT; /* a writer waits for it, whose lock may be in the way */
	pthread_mutex_lock(&item->db->lock);
	/* Else its CREATE comes first, or it is being renamed. */
	can = item->db->removed || item->db->files[WREP_DB];
	pthread_mutex_unlock(&item->db->lock);
	return can;
}

/* Serve the opens that are queued; what they find is as old as what those see who are in already. */
void wrep_serve_opens(struct wrep *w)
{
	struct wrep_item *opens = NULL, **last = &opens, **p, *item;

	pthread_mutex_lock(&w->lock);
	for (p = &w->queue_head; (item = *p);) {
		if (!can_be_served(item)) {
			p = &item->next;
			continue;
		}
		*p = item->next;
		item->next = NULL;
		*last = item;
		last = &item->next;
	}
	w->queue_tail = p;
	pthread_mutex_unlock(&w->lock);
	while ((item = opens)) {
		opens = item->next;
		if (item->type == WREP_ITEM_IDLE) {
			keep_idle_conn(w, item);
			continue;
		}
		if (item->type == WREP_ITEM_OPEN)
			open_database(w, item);
		else
			wrep_direct_revert(w, item);
		wrep_item_free(item);
	}
}

static bool is_removed(struct wrep_db *db)
{
	bool removed;

	pthread_mutex_lock(&db->lock);
	removed = db->removed;
	pthread_mutex_unlock(&db->lock);
	return removed;
}

bool wrep_fetching(struct wrep *w)
{
	bool fetching;

	pthread_mutex_lock(&w->lock);
	fetching = w->fetching;
	pthread_mutex_unlock(&w->lock);
	return fetching;
}

bool wrep_is_shortage(int rc)
{
	return rc == -ENOSPC || rc == -EDQUOT || rc == -EMFILE || rc == -ENFILE;
}

/* The disk is full, or there are no descriptors left (`rc`). What is committed is in the log and waits
 * there: this node falls behind, and goes on when somebody made room. `logged`: when that was said last. */
void wrep_wait_for_space(struct wrep *w, const char *name, int rc, uint64_t *logged)
{
	if (wrep_out_of_descriptors(w, rc, name)) {
		trim_idle_conns(w, 0);
	} else if (!*logged || wrep_now_ms() - *logged > FULL_LOG_MS) {
		*logged = wrep_now_ms();
		wrep_logf(w, 'E', "disk full, replication waits: free some space database=%s",
			  name);
	}
	wrep_serve_opens(w);
	usleep(FULL_RETRY_MS * 1000);
}

/* Keep the images of a part. An own transaction that finds no room is given up, as long as its COMMIT
 * is not on its way; one that was given up needs none. */
static int store_part(struct wrep *w, struct wrep_db *db, struct wrep_parts *parts,
		      const struct wrep_entry *e)
{
	uint64_t logged = 0;
	int rc = 0;

	while (!rc) {
		if (wrep_stopping(w) || is_removed(db) || wrep_fetching(w) ||
		    atomic_load(&parts->dead))
			return -ECANCELED;
		rc = wrep_parts_store(parts, w->config.data_fd, e);
		if (!wrep_is_shortage(rc))
			break;
		if (!wrep_commit_give_up(db, parts, -ENOSPC))
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

static void keep_part(struct wrep *w, struct wrep_item *item)
{
	struct wrep_entry e;

	if (wrep_entry_decode(item->buf, &e) == 0)
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

/* The files of `db` show the transaction of entry `index`. */
static void applied(struct wrep_db *db, const struct gathered *g, struct wrep_parts *parts,
		    uint64_t index)
{
	pthread_mutex_lock(&db->lock);
	db->local_version++;
	db->local_index = index;
	db->touched = db->unsynced = true;
	wrep_parts_applied(db, parts);
	if (g->sets_wal_mode)
		db->local_wal_mode = g->wal_mode;
	if (db->capture)
		wrep_capture_forget(db->capture);
	pthread_mutex_unlock(&db->lock);
	if (atomic_load(&db->w->may_write))
		wrep_gate_open(db); /* a transaction of ours whose outcome had been unknown */
}

static void cannot_apply(struct wrep_db *db, int rc)
{
	/* else its end is queued, or everybody's has come */
	if (rc == -ENOENT && !is_removed(db))
		wrep_db_missing(db);
	else if (!is_removed(db) && !closing(db->w))
		wrep_fatalf(db->w,
			    "cannot apply a committed transaction database=%s version=%llu "
			    "error=%s; repair the disk and mount again",
			    db->name, (unsigned long long)db->local_version + 1, strerror(-rc));
}

static void apply_transaction(struct wrep *w, struct wrep_item *item)
{
	struct wrep_db *db = item->db;
	struct waiting waiting = {.since = wrep_now_ms()};
	struct wrep_entry e;
	struct gathered g;
	int rc = wrep_entry_decode(item->buf, &e);

	if (rc || is_removed(db) || (item->parts && store_part(w, db, item->parts, &e) < 0))
		return;
	rc = gather(&e, item->parts, &g);
	while (!rc) {
		rc = apply_once(db, &g);
		if (rc != -EBUSY && !wrep_is_shortage(rc))
			break;
		if (wrep_stopping(w) || is_removed(db) || wrep_fetching(w)) {
			gathered_free(&g);
			return;
		}
		wait_to_retry(w, db, rc, &waiting);
		rc = 0;
	}
	if (rc == 0)
		applied(db, &g, item->parts, item->index);
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

/* Bring all members to where nobody reads them. What is held already stays so on -EBUSY. */
static int make_all_ready(const struct wrep_part *members, const struct gathered *g, uint32_t count,
			  bool *cold, uint32_t *at)
{
	int rc = 0;

	for (uint32_t i = 0; i < count && !rc; i++) {
		struct wrep_db *db = members[i].db;

		*at = i;
		if (is_removed(db))
			continue;
		rc = make_ready(db, g[i].mode);
		cold[i] = rc == 1;
		if (rc == 1)
			rc = 0;
		else if (!rc && g[i].mode != WREP_COMMIT_WAL)
			rc = wrep_conn_drain(db->conn);
	}
	return rc;
}

static int apply_all(const struct wrep_part *members, const struct gathered *g, uint32_t count,
		     const bool *cold, uint32_t *at)
{
	int rc = 0;

	for (uint32_t i = 0; i < count && !rc; i++) {
		struct wrep_db *db = members[i].db;

		*at = i;
		if (!is_removed(db)) /* else the file goes, whatever is in it */
			rc = cold[i] ? apply_cold(db, &g[i]) : apply_hot(db, &g[i]);
	}
	return rc;
}

/* A transaction over several databases. Readers are kept out of all of them before the first is written, as
 * SQLite does it where the transaction comes from: who reads several in one transaction sees it in all or
 * in none of them. (In WAL mode they are not, and SQLite promises nothing.) While one is waited for, no new
 * reader gets in, nor into those that are ready; but not for long, since whoever is waited for may be about
 * to read another. When it has to be tried again after some of it was written, all of it is written again:
 * whole pages, so no matter. */
static void apply_group(struct wrep *w, struct wrep_item *item)
{
	const uint32_t count = item->member_count;
	struct wrep_part *members = item->members;
	struct waiting waiting = {.since = wrep_now_ms()};
	struct gathered *g = calloc(count + 1, sizeof *g);
	bool *cold = calloc(count + 1, sizeof *cold);
	uint64_t held_since = wrep_now_ms();
	bool begun = false; /* half of it may be in the files: nobody is let in any more */
	uint32_t at = 0;
	int rc = g && cold ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < count && !rc; i++) {
		struct wrep_part *m = &members[i];

		at = i;
		if (m->parts && !is_removed(m->db) &&
		    store_part(w, m->db, m->parts, &m->entry) < 0 && !is_removed(m->db))
			goto out; /* everything ends, or comes again */
		rc = gather(&m->entry, m->parts, &g[i]);
	}
	while (!rc) {
		rc = make_all_ready(members, g, count, cold, &at);
		if (!rc) {
			begun = true;
			rc = apply_all(members, g, count, cold, &at);
		} else if (!begun && wrep_now_ms() - held_since > HOLD_MS) {
			let_in(members, count);
			usleep(LET_IN_MS * 1000);
			held_since = wrep_now_ms();
		}
		if (rc != -EBUSY && !wrep_is_shortage(rc))
			break;
		if (wrep_stopping(w) || wrep_fetching(w))
			goto out;
		wait_to_retry(w, members[at].db, rc, &waiting);
		rc = 0;
	}
	if (rc && count)
		cannot_apply(members[at].db, rc);
	for (uint32_t i = 0; i < count && !rc; i++)
		if (!is_removed(members[i].db))
			applied(members[i].db, &g[i], members[i].parts, item->index);
out:
	for (uint32_t i = 0; i < count && g; i++)
		gathered_free(&g[i]);
	free(g);
	free(cold);
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

/* And forget how it was kept until then. db->lock held. */
static void install_end(struct wrep_db *db, const struct wrep_commit *c, bool installed)
{
	if (c->mode != WREP_COMMIT_WAL) {
		wrep_db_drop_overlay(db);
	} else if (!installed) {
		wrep_capture_refused(db->capture);
	}
	db->pending = NULL;
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
	bool last = closing(w);
	int rc;

	pthread_mutex_lock(&db->lock);
	if (db->retired) { /* it is committed, and its file is being fetched from a peer */
		assert(db->pending == c);
		install_end(db, c, false);
		wrep_db_settled(db);
		pthread_mutex_unlock(&db->lock);
		return false;
	}
	for (;;) {
		assert(db->pending == c);
		rc = install_once(db, c);
		if (rc != -ENOSPC || last)
			break;
		pthread_mutex_unlock(&db->lock);
		wrep_wait_for_space(w, db->name, rc, &logged);
		last = closing(w);
		pthread_mutex_lock(&db->lock);
	}
	wrep_parts_applied(db, parts);
	install_end(db, c, rc != -ENOSPC || c->mode != WREP_COMMIT_WAL);
	db->local_version++;
	db->local_index = c->index;
	db->touched = db->unsynced = true;
	if (c->sets_wal_mode)
		db->local_wal_mode = c->wal_mode;
	wrep_db_settled(db);
	pthread_mutex_unlock(&db->lock);
	if (rc < 0 && !(last && rc == -ENOSPC)) /* the next start does it again, from the log */
		wrep_fatalf(w,
			    "cannot write a committed transaction into the database file "
			    "database=%s error=%s; repair the disk and mount again",
			    db->name, strerror(-rc));
	return true;
}

static void install(struct wrep *w, struct wrep_item *item)
{
	bool there = install_commit(w, item->db, item->commit, item->parts);

	/* It is committed, whatever became of this copy. */
	if (!there || !again_times(item->commit))
		wrep_commit_tell(item->commit, 0);
}

/* The same for one over several databases. Its application, whose call waits, still holds the locks that
 * keep readers out of all of them. */
static void install_group(struct wrep *w, struct wrep_item *item)
{
	for (uint32_t i = 0; i < item->member_count; i++) {
		struct wrep_part *m = &item->members[i];

		install_commit(w, m->db, m->commit, m->parts);
		wrep_commit_free(m->commit);
	}
	wrep_group_done(item->group);
}

/* ---- names and attributes ------------------------------------------------------------------------ */

static void create_database(struct wrep *w, struct wrep_item *item)
{
	struct wrep_db *db = item->db;
	struct wrep_entry e;
	struct wrep_file *f = NULL;
	uint64_t logged = 0;
	int fd = -1, open_rc = 0, rc = wrep_entry_decode(item->buf, &e);

	if (is_removed(db)) { /* retired: what has the name now is another's */
		if (item->op)
			item->op->done(item->op, -EIO);
		return;
	}
	while (rc == 0) {
		fd = openat(w->config.data_fd, db->name,
			    O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, e.mode);
		if (fd >= 0 || !wrep_is_shortage(-errno) || wrep_stopping(w))
			break;
		wrep_wait_for_space(w, db->name, -errno, &logged);
	}
	if (rc == 0 && (fd < 0 || fchown(fd, e.uid, e.gid) < 0 || fchmod(fd, e.mode) < 0))
		rc = -errno;
	pthread_mutex_lock(&db->lock);
	if (rc == 0)
		rc = wrep_file_make(db, WREP_DB, fd, 0, &f);
	if (rc == 0) {
		db->files[WREP_DB] = f;
		/* (An application that only makes it begins nothing.) */
		if (item->op)
			open_rc = wrep_descriptor_is_spare(w, fd)
					  ? -EMFILE
					  : wrep_file_opened(f, 0, false, 0);
		if (item->op && !open_rc)
			item->op->file = wrep_file_ref(f);
		wrep_db_rest(db);
	}
	pthread_mutex_unlock(&db->lock);
	if (rc == 0) {
		wrep_db_show(db, item->index);
		wrep_dir_touch(w, db->name);
		w->config.host.invalidate_name(w->config.host_ctx, db->name);
	}
	wrep_out_of_descriptors(w, open_rc, db->name);
	if (item->op)
		item->op->done(item->op, rc ? rc : open_rc);
	if (rc < 0) {
		if (fd >= 0)
			close(fd);
		wrep_fatalf(w,
			    "cannot create a database file name=%s error=%s; repair the disk "
			    "and mount again",
			    db->name, strerror(-rc));
	}
}

static void unlink_database(struct wrep *w, struct wrep_item *item)
{
	struct wrep_db *db = item->db;
	char name[WREP_NAME_MAX + 16];
	struct wrep_file *f;
	bool retired; /* what has its names now is another's */
	int rc = 0;

	wrep_gate_open(db);
	pthread_mutex_lock(&db->lock);
	retired = db->retired;
	f = wrep_db_file(db, WREP_DB);
	pthread_mutex_unlock(&db->lock);
	for (int k = 0; k < 4 && !retired; k++) {
		bool gone;

		wrep_db_backing_name(db, k, name);
		pthread_mutex_lock(&db->lock);
		gone = unlinkat(wrep_dir_fd(w, k), name, 0) == 0;
		if (!gone && errno != ENOENT)
			rc = -errno;
		if (k == WREP_JOURNAL && !db->pending)
			wrep_db_drop_overlay(db);
		/* A transaction may still be undecided over the -wal: it keeps the capture. */
		if (!db->pending)
			wrep_db_forget_file(db, k);
		wrep_commit_feed(db); /* unlocks */
		if (gone)
			w->config.host.invalidate_name(w->config.host_ctx, name);
	}
	wrep_dir_touch(w, db->name);
	if (!retired) {
		wrep_db_hide(db, item->index);
		wrep_sumfile_remove(w->config.state_fd, db->id);
		wrep_wal_aside_remove(w, db->id);
	}
	/* A stat of the name would go on to find what the kernel kept. */
	if (f && !item->op)
		w->config.host.invalidate(w->config.host_ctx, f, 0, 0);
	wrep_file_unref(f);
	if (item->op)
		item->op->done(item->op, rc);
	if (rc < 0)
		wrep_logf(w, 'E', "cannot remove a database file name=%s error=%s", db->name,
			  strerror(-rc));
}

struct timespec wrep_to_timespec(int64_t ns, bool omit)
{
	struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

	if (omit)
		t.tv_nsec = UTIME_OMIT;
	else if (t.tv_nsec < 0) {
		t.tv_nsec += 1000000000;
		t.tv_sec--;
	}
	return t;
}

static void set_attributes(struct wrep_item *item)
{
	struct wrep_db *db = item->db;
	struct wrep_file *f;
	struct wrep_entry e;
	int rc = wrep_entry_decode(item->buf, &e);

	pthread_mutex_lock(&db->lock);
	f = db->retired || wrep_db_hold(db, true) ? NULL : wrep_db_file(db, WREP_DB);
	pthread_mutex_unlock(&db->lock);
	if (!f)
		rc = -ENOENT;
	if (!rc && (e.attr_valid & (WREP_ATTR_UID | WREP_ATTR_GID)) &&
	    fchown(f->fd, e.attr_valid & WREP_ATTR_UID ? e.uid : (uid_t)-1,
		   e.attr_valid & WREP_ATTR_GID ? e.gid : (gid_t)-1) < 0)
		rc = -errno;
	if (!rc && (e.attr_valid & WREP_ATTR_MODE) && fchmod(f->fd, e.mode) < 0)
		rc = -errno;
	if (!rc && (e.attr_valid & WREP_ATTR_TIMES) &&
	    futimens(f->fd, (struct timespec[]){wrep_to_timespec(e.atime_ns, e.atime_omit),
						wrep_to_timespec(e.mtime_ns, e.mtime_omit)}) < 0)
		rc = -errno;
	pthread_mutex_lock(&db->lock);
	db->touched = true;
	if (f)
		wrep_db_unhold(db);
	pthread_mutex_unlock(&db->lock);
	wrep_file_unref(f);
	if (!item->op) /* an application's own change the kernel knows by the reply */
		invalidate(db, WREP_DB, 0, 0);
	if (item->op)
		item->op->done(item->op, rc);
}

/* ---- opens, views ---------------------------------------------------------------------------------- */

static void open_database(struct wrep *w, struct wrep_item *item)
{
	struct wrep_db *db = item->db;
	struct wrep_op *op;
	struct wrep_file *f;
	bool damaged;
	int rc = 0;

	pthread_mutex_lock(&w->lock);
	op = item->op; /* NULL: interrupted meanwhile */
	item->op = NULL;
	pthread_mutex_unlock(&w->lock);
	if (!op)
		return;
	pthread_mutex_lock(&db->lock);
	f = db->removed ? NULL : wrep_db_file(db, WREP_DB);
	damaged = db->damaged;
	pthread_mutex_unlock(&db->lock);
	if (!f)
		rc = -ESTALE; /* the kernel looks the name up again */
	else if (item->file && item->file != f)
		rc = -ESTALE; /* renamed meanwhile */
	else if (damaged)
		rc = -EBADMSG;
	if (!rc && !atomic_load(&w->may_write)) {
		rc = close_gate_somehow(db);
		/* A writer of before is still at it: it cannot commit, and readers are welcome. */
		if (rc == -EBUSY)
			rc = 0;
	}
	if (!rc) {
		pthread_mutex_lock(&db->lock);
		rc = wrep_file_opened(f, item->open_flags, false, op->tid);
		pthread_mutex_unlock(&db->lock);
	}
	if (!rc) {
		if (op->state == WREP_OP_CREATE && !op->file)
			op->file = wrep_file_ref(f);
	} else if (rc == -ENOENT) {
		wrep_db_missing(db);
		rc = -ESTALE;
	} else if (!wrep_out_of_descriptors(w, rc, db->name) && rc != -ESTALE && !damaged) {
		wrep_logf(w, 'E', "cannot attach to a database name=%s error=%s", db->name,
			  strerror(-rc));
	}
	wrep_file_unref(f);
	wrep_op_finish_open(op, rc);
}

static void ready(struct wrep *w, struct wrep_item *item)
{
	struct wrep_op *op;

	pthread_mutex_lock(&w->lock);
	op = item->op; /* NULL: interrupted meanwhile */
	item->op = NULL;
	pthread_mutex_unlock(&w->lock);
	if (op)
		op->done(op, 0);
}

/* Bring every gate to where it belongs. Returns true when one could not be closed yet. */
static bool settle_gates(struct wrep *w)
{
	bool may_write = atomic_load(&w->may_write), again = false;
	bool short_of_descriptors = false;
	struct wrep_db **all;
	size_t count;

	if (!may_write && wrep_now_ms() < w->gates_not_before_ms)
		return true;
	if (wrep_db_all(w, &all, &count) < 0)
		return true;
	for (size_t i = 0; i < count; i++) {
		struct wrep_db *db = all[i];
		bool want, gated;

		pthread_mutex_lock(&db->lock);
		want = !may_write && db->opens > 0 && !db->removed;
		gated = db->gated;
		pthread_mutex_unlock(&db->lock);
		if (may_write) {
			wrep_gate_open(db);
		} else if (want && !gated) {
			int rc = short_of_descriptors ? -EBUSY : close_gate_somehow(db);

			if (wrep_out_of_descriptors(w, rc, db->name)) {
				/* Who writes there without a gate is refused by Raft. */
				w->gates_not_before_ms = wrep_now_ms() + FULL_RETRY_MS;
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

static bool view_changed(struct wrep *w, const struct wrep_item *item)
{
	bool latest;

	pthread_mutex_lock(&w->lock);
	latest = item->view_sequence == w->view_sequence;
	/* Only the latest view opens the gate: a later one may lie behind entries yet to come. */
	if (latest && w->view.role == RLOG_LEADER && w->view.ready && !w->fetching)
		atomic_store(&w->may_write, true);
	pthread_mutex_unlock(&w->lock);
	return latest ? settle_gates(w) : false;
}

/* The file is as long as its pages need, and no longer missing. Everything is applied, and nobody has it
 * open. db->lock held. */
static bool file_is_whole(struct wrep_db *db)
{
	uint32_t pages = db->sum.page_count;
	struct stat st;
	bool whole;
	int rc;

	if (db->opens || db->local_version != db->version || db->overlay || !db->files[WREP_DB])
		return true; /* what is read is checked then */
	while (pages && !db->sum.hash[pages - 1])
		pages--; /* never written */
	rc = wrep_db_hold(db, true);
	if (rc)
		return rc != -ENOENT; /* not now */
	whole = fstat(db->files[WREP_DB]->fd, &st) == 0 &&
		(uint64_t)st.st_size >= (uint64_t)pages * db->sum.page_size;
	wrep_db_unhold(db);
	return whole;
}

/* Is what was restored, and brought up to date since, what the checksums say? False: what is not is
 * being fetched. */
static bool prove_all(struct wrep *w)
{
	struct wrep_db **all;
	size_t count;
	bool fetching;

	if (wrep_db_all(w, &all, &count) < 0)
		return false;
	for (size_t i = 0; i < count; i++) {
		struct wrep_db *db = all[i];
		bool sound;

		pthread_mutex_lock(&db->lock);
		sound = db->removed || db->damaged || (wrep_prove(db) && file_is_whole(db));
		pthread_mutex_unlock(&db->lock);
		if (!sound)
			wrep_fetch_wanted(w, "the database file is damaged", db);
		wrep_db_unref(db);
	}
	free(all);
	fetching = wrep_fetching(w);
	return !fetching;
}

static void caught_up(struct wrep *w)
{
	struct wrep_item *waiting, *next;
	bool early;

	pthread_mutex_lock(&w->lock);
	while (!w->opened && !w->closing) /* so that it is known whether this node is alone */
		pthread_cond_wait(&w->queue_wake, &w->lock);
	atomic_store(&w->prove_waits, true);
	early = atomic_load(&w->delivered) < w->prove_from;
	if (!early)
		atomic_store(&w->prove_waits, false);
	pthread_mutex_unlock(&w->lock);
	if (early)
		return; /* on_apply() comes back to it */
	if (!prove_all(w))
		return; /* raftlog tells again after the fetch */
	pthread_mutex_lock(&w->lock);
	if (w->fetching) {
		pthread_mutex_unlock(&w->lock);
		return;
	}
	atomic_store(&w->caught_up, true);
	waiting = w->waiting;
	w->waiting = NULL;
	pthread_mutex_unlock(&w->lock);
	for (; waiting; waiting = next) {
		next = waiting->next;
		wrep_applier_push(w, waiting); /* as OPEN items, behind what is queued */
	}
}

/* The keeper's barrier. What the daemon's SQLite can still copy out of a -wal need not be held there. */
static void point(struct wrep *w, struct wrep_item *item)
{
	struct wrep_db **all;
	size_t count;

	if (wrep_db_all(w, &all, &count) == 0) {
		for (size_t i = 0; i < count; i++) {
			struct wrep_db *db = all[i];
			bool wal;

			pthread_mutex_lock(&db->lock);
			wal = db->gated && db->local_wal_mode && !db->removed;
			pthread_mutex_unlock(&db->lock);
			if (wal && db->conn && wrep_conn_gate_closed(db->conn))
				checkpoint(db, false, NULL, NULL);
			wrep_db_unref(db);
		}
		free(all);
	}
	item->op->done(item->op, 0);
}

/* ---- the thread ------------------------------------------------------------------------------------ */

static struct wrep_item *take(struct wrep *w, bool retry)
{
	struct wrep_item *item;
	struct timespec until;

	pthread_mutex_lock(&w->lock);
	if (!w->queue_head && !w->closing && retry) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += RETRY_MS * 1000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		pthread_cond_timedwait(&w->queue_wake, &w->lock, &until);
	}
	while (!w->queue_head && !w->closing && !retry)
		pthread_cond_wait(&w->queue_wake, &w->lock);
	item = w->queue_head;
	if (item) {
		w->queue_head = item->next;
		if (!w->queue_head)
			w->queue_tail = &w->queue_head;
		w->queue_bytes -= item->bytes;
		if (w->queue_full && w->resumable) {
			w->queue_full = false;
			rlog_resume(w->log); /* under the lock: wrep_close() frees the log */
		}
	}
	pthread_mutex_unlock(&w->lock);
	return item;
}

/* The daemon is going away: nothing more is applied (the log has it), nobody is left waiting. */
static void end_item(struct wrep_item *item)
{
	if (!item)
		return;
	if (item->op && item->type == WREP_ITEM_OPEN)
		wrep_op_finish_open(item->op, -EIO);
	else if (item->type == WREP_ITEM_REVERT && item->commit)
		wrep_commit_tell(item->commit, -EIO);
	else if (item->op)
		item->op->done(item->op, -EIO);
	wrep_item_free(item);
}

static void *applier_main(void *arg)
{
	struct wrep *w = arg;
	bool retry = false;

	prctl(PR_SET_NAME, "applier");
	atomic_store(&w->applier_tid, gettid());
	for (;;) {
		struct wrep_item *item = take(w, retry);

		if (wrep_stopping(w) && !(item && (item->type == WREP_ITEM_INSTALL ||
						   item->type == WREP_ITEM_INSTALL_GROUP))) {
			if (!item && closing(w))
				return NULL;
			end_item(item);
			retry = false;
			continue;
		}
		if (!item) {
			retry = settle_gates(w);
			continue;
		}
		switch (item->type) {
		case WREP_ITEM_CREATE:
			create_database(w, item);
			break;
		case WREP_ITEM_UNLINK:
			unlink_database(w, item);
			break;
		case WREP_ITEM_SETATTR:
			set_attributes(item);
			break;
		case WREP_ITEM_PAGES:
			keep_part(w, item);
			break;
		case WREP_ITEM_DROP: /* freeing the item does it */
			break;
		case WREP_ITEM_APPLY:
			apply_transaction(w, item);
			break;
		case WREP_ITEM_INSTALL:
			install(w, item);
			break;
		case WREP_ITEM_REVERT:
			wrep_direct_revert(w, item);
			break;
		case WREP_ITEM_APPLY_GROUP:
			apply_group(w, item);
			break;
		case WREP_ITEM_INSTALL_GROUP:
			install_group(w, item);
			break;
		case WREP_ITEM_OPEN:
			open_database(w, item);
			break;
		case WREP_ITEM_READY:
			ready(w, item);
			break;
		case WREP_ITEM_VIEW:
			retry = view_changed(w, item) || retry;
			break;
		case WREP_ITEM_CAUGHT_UP:
			caught_up(w);
			break;
		case WREP_ITEM_POINT:
			point(w, item);
			break;
		case WREP_ITEM_IDLE:
			keep_idle_conn(w, item);
			trim_idle_conns(w, IDLE_CONNS);
			item = NULL;
			break;
		case WREP_ITEM_MKDIR:
			wrep_dir_make(w, item);
			break;
		case WREP_ITEM_RMDIR:
			wrep_dir_remove(w, item);
			break;
		case WREP_ITEM_DIRATTR:
			wrep_dir_set_attributes(w, item);
			break;
		case WREP_ITEM_RENAME:
			wrep_rename_run(w, item);
			break;
		case WREP_ITEM_FETCH:
			wrep_fetch_run(w);
			break;
		}
		wrep_item_free(item);
	}
}

int wrep_applier_start(struct wrep *w)
{
	int rc;

	w->idle_conns_tail = &w->idle_conns;
	rc = pthread_create(&w->applier, NULL, applier_main, w);
	if (rc)
		return -rc;
	w->applier_running = true;
	return 0;
}

void wrep_applier_stop(struct wrep *w)
{
	struct wrep_item *waiting, *item;
	struct wrep_db **all;
	size_t count;

	if (!w->applier_running)
		return;
	pthread_mutex_lock(&w->lock);
	assert(w->closing);
	waiting = w->waiting;
	w->waiting = NULL;
	pthread_cond_broadcast(&w->queue_wake);
	pthread_mutex_unlock(&w->lock);
	while (waiting) {
		struct wrep_item *next = waiting->next;

		end_item(waiting);
		waiting = next;
	}
	pthread_join(w->applier, NULL);
	w->applier_running = false;
	/* What raftlog's last deliveries queued when the applier had gone already. */
	while ((item = take(w, false))) {
		if (item->type == WREP_ITEM_INSTALL) {
			install(w, item);
			wrep_item_free(item);
		} else if (item->type == WREP_ITEM_INSTALL_GROUP) {
			install_group(w, item);
			wrep_item_free(item);
		} else {
			end_item(item);
		}
	}
	/* The connections were the applier's; it is gone. */
	trim_idle_conns(w, 0);
	if (wrep_db_all(w, &all, &count) < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		wrep_gate_open(all[i]);
		wrep_db_unref(all[i]);
	}
	free(all);
}
