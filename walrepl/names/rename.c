/* Renaming a database: it gets another name, in order with its transactions, and takes the place of the one
 * that has that name, which is removed with it.
 *
 * SQLite says that renaming a database that is open corrupts it: so while an application of this node has
 * it open, the request waits a little (departure.c), then gets EBUSY.
 * On other nodes, and here when somebody opens it while the entry is on its way, readers lose it: their
 * descriptors are of an incarnation that is *revoked*. Reads and writes through it fail (ESTALE), what the
 * kernel kept of it is dropped, and its locks meet nobody's. The database goes on in another incarnation,
 * with a wrep_file and an inode number of its own over the same backing file, and with no side files:
 * what its -wal holds is copied into the database file first, and a journal that lies there belongs to a
 * transaction that never committed. So nothing of the daemon's or an application's is open over it when
 * its name changes. What an application here has undecided at that time is decided by Raft as ever, and
 * applied like another node's.
 *
 * On the disk a rename must be found by a restart, whatever it was interrupted in. The names in the manifest
 * are as of one entry, `names_index`, and entries up to it change no names again. The applier, in this
 * order, while no other manifest is written:
 *
 *   1. revokes, copies what the -wal holds, and syncs the database file;
 *   2. moves the file from its name aside to DATA/.dqlitefs/moved-ID, and syncs both directories;
 *   3. writes a manifest that differs from the last one in its names, which are as of this entry now, and
 *      in that it needs no -wal of this database;
 *   4. removes the side files of both, moves the file to its new name, and lets it be found there.
 *
 * Why a restart finds the right file. Of every database in the last manifest this holds at any time: its
 * file is moved-ID if there is one, else it has the name that the manifest says, unless an entry behind
 * names_index removes the database. Step 2 keeps it, the name free for others afterwards; and nobody takes
 * it before step 3, since the applier does one thing after the other. Step 3 keeps it, moved-ID being
 * there, and is the only one by which the manifest's name changes. Step 4 ends with a move to that name:
 * it is the file's, or moved-ID is still there. What lies under the new name before belongs to the database
 * that is replaced, which the manifest of step 3 does not have any more. Before step 3 the restart puts
 * the file back under its old name and finds the entry behind names_index: it is done again. After it, it
 * puts the file under its new name, and the entry is passed over. So in a chain a to b, a new a, b to c, each
 * rename begins from what the one before has left for good: the new a, made behind the first manifest, is
 * not in it, so it is removed, and made again by its entry; and step 2 of the second is durable before
 * its manifest, and so is all that came before it. The content is not touched by any of this: it is as of
 * the version that the manifest says or newer, and applying the log again makes it right (restore.c).
 */
#include "names/rename.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "apply/applier.h"
#include "base/bytes.h"
#include "base/io.h"
#include "base/phase.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/attach.h"
#include "db/db.h"
#include "db/departure.h"
#include "db/directory.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/side_stray.h"
#include "db/state_files.h"
#include "db/table.h"
#include "names/database.h"
#include "pages/capture.h"
#include "pages/capture_state.h"
#include "pages/sumfile.h"
#include "pages/wal_chain.h"
#include "pages/wal_content.h"
#include "record/entry.h"
#include "snapshot/current_manifest.h"
#include "snapshot/restore.h"
#include "sqlite/journal_format.h"
#include "sqlite/names.h"
#include "sqlite/wal_format.h"
#include "sqlite/wal_index.h"
#include "state/name_tree.h"
#include "state/state.h"
#include "state/version.h"
#include "txn/discard.h"
#include "txn/proposal.h"
#include "txn/sender.h"
#include "txn/streaming.h"
#include "txn/super_journal.h"
#include "txn/unjournaled.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif

#define SETTLE_US 2000
#define FOLD_PAGES 64u

/* ---- what applications ask for -------------------------------------------------------------------- */

/* A request that waits until its database is closed. */
struct rename {
	struct wrep_departure departure; /* first */
	char *to;
	unsigned flags;
	struct wrep_op *op;
};

static bool is_open(struct wrep_db *db)
{
	bool open;

	pthread_mutex_lock(&db->lock);
	open = db->opens > 0;
	pthread_mutex_unlock(&db->lock);
	return open;
}

static int submit_alone(struct wrep_db *db, const char *to, unsigned flags, struct wrep_op *op)
{
	struct wrep_entry e = {.type = WREP_ENTRY_RENAME,
			       .db_id = db->id,
			       .keep = flags & RENAME_NOREPLACE};

	if (!atomic_load(&db->w->may_write))
		return -EROFS;
	strcpy(e.name, to);
	return wrep_propose(db->w, db, &e, 0, op);
}

/* What waited at the new name is to be in the database before it gets that. */
struct paired {
	struct wrep_op op;  /* first */
	struct wrep_db *db; /* a reference */
	unsigned flags;
	struct wrep_op *asked;
	char to[];
};

static void paired_done(struct wrep_op *op, int result)
{
	struct paired *p = (struct paired *)op;
	struct wrep *w = p->db->w;

	if (!result) {
		pthread_mutex_lock(&w->lock); /* wrep_close() frees the log */
		result = w->resumable ? submit_alone(p->db, p->to, p->flags, p->asked) : -EIO;
		pthread_mutex_unlock(&w->lock);
	}
	if (result != WREP_PENDING)
		p->asked->done(p->asked, result);
	wrep_db_unref(p->db);
	free(p);
}

static int submit(struct wrep_db *db, const char *to, unsigned flags, struct wrep_op *op)
{
	struct wrep *w = db->w;
	struct paired *p;
	bool is_copy;
	int rc;

	if (!wrep_strays_wait(w, to))
		return submit_alone(db, to, flags, op);
	pthread_mutex_lock(&db->lock);
	is_copy = wrep_unjournaled_is_copy(db, 0) && !db->opens;
	pthread_mutex_unlock(&db->lock);
	if (!is_copy) {
		wrep_logf(w, 'W',
			  "refused rename name=%s to=%s: a file was copied there that may hold "
			  "transactions of another database; remove it, or copy its database",
			  db->name, to);
		return -EBUSY;
	}
	p = calloc(1, sizeof *p + strlen(to) + 1);
	if (!p)
		return -ENOMEM;
	p->op = (struct wrep_op){.done = paired_done, .tid = op->tid};
	p->db = wrep_db_ref(db);
	p->flags = flags;
	p->asked = op;
	strcpy(p->to, to);
	rc = wrep_strays_move(w, to, db->name);
	if (!rc) {
		pthread_mutex_lock(&db->lock);
		rc = wrep_unjournaled_take_strays(db, &p->op); /* unlocks */
	}
	if (rc != WREP_PENDING)
		paired_done(&p->op, rc);
	return WREP_PENDING;
}

static void rename_free(struct rename *r)
{
	free(r->to);
	free(r);
}

static void go_on(struct wrep_departure *d, bool closing)
{
	struct rename *r = (struct rename *)d;
	struct wrep_db *db = d->db;
	bool busy = is_open(db) && wrep_departure_late(r->op);
	int rc = closing ? -EIO : busy ? -EBUSY : submit(db, r->to, r->flags, r->op);

	if (busy && !closing)
		wrep_logf(db->w, 'W',
			  "refused rename name=%s to=%s: an application has the database open; "
			  "close it first",
			  db->name, r->to);
	if (rc != WREP_PENDING)
		r->op->done(r->op, rc);
	rename_free(r);
}

static int wait_closed(struct wrep_db *db, const char *to, unsigned flags, struct wrep_op *op)
{
	struct rename *r = calloc(1, sizeof *r);
	int rc;

	if (r)
		r->to = strdup(to);
	if (!r || !r->to) {
		free(r);
		return -ENOMEM;
	}
	r->departure.db = db;
	r->departure.until_ms = wrep_departure_deadline(op);
	r->departure.go_on = go_on;
	r->flags = flags;
	r->op = op;
	rc = wrep_departure_wait(&r->departure);
	if (rc != WREP_PENDING)
		rename_free(r);
	return rc;
}

int wrep_db_rename(struct wrep_db *db, const char *to, unsigned flags, struct wrep_op *op)
{
	if (!atomic_load(&db->w->may_write))
		return -EROFS;
	return is_open(db) ? wait_closed(db, to, flags, op) : submit(db, to, flags, op);
}

/* ---- on the disk --------------------------------------------------------------------------------- */

/* What is left of the incarnation that is given up. */
struct former {
	struct wrep_db *db;
	struct wrep_file *files[4]; /* references, or NULL; with descriptors while `held` */
	bool held;		    /* else the database has lost its file */
	struct wrep_capture *capture;
	char super[WREP_SUPER_PATH_MAX]; /* the super-journal that its -journal names, or "" */
};

/* Nobody sees the files of `db` any more. 0; -EBUSY: a transaction is undecided; -EMFILE; -ECANCELED: it has
 * been retired. */
static int give_up(struct wrep_db *db, struct former *old)
{
	int rc = 0;

	memset(old, 0, sizeof *old);
	old->db = db;
	pthread_mutex_lock(&db->lock);
	if (db->retired)
		rc = -ECANCELED;
	else if (db->pending)
		rc = -EBUSY;
	else
		rc = wrep_db_pin(db, true);
	old->held = !rc;
	if (rc == -ENOENT) /* who opens it under its new name finds that out */
		rc = 0;
	for (int k = 0; k < 4 && !rc; k++)
		old->files[k] = wrep_db_file(db, k);
	if (!rc) {
		if (old->files[WREP_JOURNAL] && old->held &&
		    !wrep_journal_super(old->files[WREP_JOURNAL]->fd, old->super))
			old->super[0] = '\0';
		wrep_streaming_forget(db); /* it reads through the capture */
		old->capture = db->capture;
		db->capture = NULL;
		if (old->capture && db->fenced) /* the daemon's SQLite wrote behind its back */
			wrep_capture_forget(old->capture);
		for (int k = 0; k < 4; k++) {
			if (old->files[k])
				old->files[k]->revoked = true;
			wrep_db_forget_file(db, k);
		}
		if (old->files[WREP_DB] && db->unjournaled.active)
			old->files[WREP_DB]->lost = true; /* what was written without a journal */
		wrep_db_drop_overlay(db);
		/* Else what readers have cached might be all that they need. */
		if (old->files[WREP_SHM] && old->files[WREP_SHM]->fd >= 0)
			wrep_wal_index_spoil(old->files[WREP_SHM]->fd);
		db->opens = 0;
		db->locker_tid = 0;
	}
	wrep_txn_unlock(db);
	return rc;
}

static void former_clear(struct former *old)
{
	if (old->capture)
		wrep_capture_close(old->capture);
	pthread_mutex_lock(&old->db->lock);
	if (old->held)
		wrep_db_unpin(old->db);
	for (int k = 0; k < 4 && !old->db->pins; k++) {
		if (old->files[k] && old->files[k]->fd >= 0) {
			close(old->files[k]->fd); /* nobody has it open */
			old->files[k]->fd = -1;
		}
	}
	pthread_mutex_unlock(&old->db->lock);
	for (int k = 0; k < 4; k++)
		wrep_file_unref(old->files[k]);
}

/* How long the database is behind the last committed frame. 0 or -errno. */
static int last_size(int wal_fd, const struct wrep_wal_position *at, uint32_t *page_count)
{
	uint8_t head[WREP_FRAME_HEADER_BYTES];
	int rc = wrep_read_exact(wal_fd, head, sizeof head,
				 wrep_wal_frame_offset(at->page_size, at->frame_count - 1));

	*page_count = wrep_get_be32(head + 4);
	return rc ? rc : *page_count ? 0 : -EBADMSG;
}

/* Copy what is committed in the -wal into the database file. */
static int fold(struct former *old)
{
	uint32_t pgno[FOLD_PAGES], page_count;
	uint64_t offset[FOLD_PAGES];
	struct wrep_wal_position at;
	uint8_t *page;
	int rc;

	if (!old->capture || !old->files[WREP_DB] || !old->held)
		return 0;
	rc = wrep_wal_content_position(old->capture, &at);
	if (rc || !at.frame_count)
		return rc;
	rc = last_size(old->files[WREP_WAL]->fd, &at, &page_count);
	page = malloc(at.page_size);
	if (!page)
		rc = -ENOMEM;
	for (uint64_t first = 1; first <= page_count && !rc; first += FOLD_PAGES) {
		uint32_t n = page_count - first + 1 < FOLD_PAGES
				     ? (uint32_t)(page_count - first + 1)
				     : FOLD_PAGES;

		for (uint32_t i = 0; i < n; i++)
			pgno[i] = (uint32_t)first + i;
		rc = wrep_wal_content_find(old->capture, at.page_size, pgno, n, offset);
		for (uint32_t i = 0; i < n && !rc; i++) {
			if (!offset[i])
				continue;
			rc = wrep_read_exact(old->files[WREP_WAL]->fd, page, at.page_size,
					     offset[i]);
			if (!rc)
				rc = wrep_write_all(old->files[WREP_DB]->fd, page, at.page_size,
						    (uint64_t)(pgno[i] - 1) * at.page_size);
		}
	}
	free(page);
	if (!rc && ftruncate(old->files[WREP_DB]->fd, (off_t)page_count * at.page_size) < 0)
		rc = -errno;
	return rc;
}

/* Steps 1 to 3. What finds no space, or no file, can be done again. */
static int move_aside(struct wrep_db *db, struct former *old, const char *to,
		      const struct wrep_db *replaced, uint64_t index)
{
	struct wrep *w = db->w;
	char moved[WREP_MOVED_SIZE];
	int rc = fold(old);

	if (!rc && old->files[WREP_DB] && old->held && fsync(old->files[WREP_DB]->fd) < 0)
		rc = -EIO; /* never to be believed again: not -ENOSPC */
	if (rc)
		return rc;
	wrep_moved_name(moved, db->id);
	/* Not there: a former attempt, or the database lost its file, which is fetched later. */
	if (renameat(w->config.data_fd, db->name, w->config.state_fd, moved) < 0 && errno != ENOENT)
		return -errno;
	wrep_dir_touch(w, db->name);
	if (fsync(w->config.state_fd) < 0)
		return -errno;
	rc = wrep_dirs_sync(w);
	return rc ? rc : wrep_snapshotter_rename(db, to, replaced, index);
}

static void remove_side_files(struct wrep *w, const char *name)
{
	char path[WREP_FILE_NAME_SIZE];

	for (enum wrep_kind kind = WREP_WAL; kind <= WREP_JOURNAL; kind++) {
		wrep_names_file(name, kind, path);
		unlinkat(wrep_dir_fd(w, kind), path, 0);
	}
}

struct rename_work {
	struct wrep_work work;	  /* first */
	struct wrep_db *db;	  /* a reference */
	struct wrep_db *replaced; /* what has the name; a reference, or NULL */
	struct rlog_buf *buf;	  /* the entry, a reference */
	uint64_t index;
	struct wrep_op *op; /* of the application that asked for it, or NULL */
};

/* Let the database be found by its new name, in place of the replaced one. `former`: its file, of which
 * `fd` is another descriptor (-1: it is gone); NULL: there is none. */
static int swap(struct rename_work *r, const char *to, const struct wrep_file *former, int fd)
{
	struct wrep_db *db = r->db;
	struct wrep *w = db->w;
	struct wrep_file *f = NULL;
	int rc;

	pthread_mutex_lock(&w->lock);
	pthread_mutex_lock(&db->lock);
	if (r->replaced)
		wrep_db_hide_locked(r->replaced);
	wrep_db_hide_locked(db);
	rc = wrep_db_set_name(db, to);
	wrep_db_show_locked(db);
	if (!rc && former)
		rc = wrep_file_make(db, WREP_DB, fd, former->ino, &f);
	if (!rc) {
		db->files[WREP_DB] = f;
		db->touched = true;
		db->wal_held = db->unsynced = false;
		db->renames_pending--;
		w->names_index = r->index;
	}
	pthread_mutex_unlock(&db->lock);
	pthread_mutex_unlock(&w->lock);
	return rc;
}

static void invalidate(struct wrep *w, struct wrep_file *f)
{
	if (f)
		w->config.host.invalidate(w->config.host_ctx, f, 0, 0);
}

/* The replaced database has lost its name: what unlinking does, but for that. */
static void let_go(struct wrep_db *db)
{
	struct wrep *w = db->w;
	struct wrep_file *f;

	pthread_mutex_lock(&db->lock);
	f = wrep_db_file(db, WREP_DB);
	if (!db->pending) {
		wrep_db_drop_overlay(db);
		for (int k = 0; k < 4; k++)
			wrep_db_forget_file(db, k);
	}
	wrep_txn_unlock(db);
	invalidate(w, f);
	wrep_file_unref(f);
	wrep_sumfile_remove(w->config.state_fd, db->id);
	wrep_wal_aside_remove(w, db->id);
}

static int run_once(struct wrep *w, struct rename_work *r, const char *to)
{
	struct wrep_db *db = r->db, *replaced = r->replaced;
	uint64_t logged = 0;
	struct former old;
	int fd = -1, rc = give_up(db, &old);

	if (rc)
		return rc;
	invalidate(w, old.files[WREP_DB]);
	invalidate(w, old.files[WREP_WAL]);
	wrep_db_detach(db); /* the locks of its connection are on the old inode */
	if (replaced)
		wrep_db_detach(replaced);
	wrep_snapshotter_lock(
		w); /* not earlier: what the kernel wants to write may wait for the snapshotter */
	for (;;) {
		rc = move_aside(db, &old, to, replaced, r->index);
		if (!wrep_is_shortage(rc) || wrep_stopping(w))
			break;
		wrep_wait_for_space(w, db->name, rc, &logged);
	}
	if (rc == -EBUSY) /* the end has come */
		rc = -ECANCELED;
	if (!rc) {
		remove_side_files(w, db->name);
		remove_side_files(w, to);
		wrep_strays_begin(w, to, r->index, false);
		rc = wrep_moved_place(w, db->id, to);
		wrep_dir_touch(w, to);
	}
	/* One that an entry yet to come removes was perhaps not even made (names/database.c). */
	if (!rc && old.held && old.files[WREP_DB]) {
		fd = fcntl(old.files[WREP_DB]->fd, F_DUPFD_CLOEXEC, 0);
		rc = fd < 0 ? -errno : 0;
	}
	if (!rc)
		rc = swap(r, to, old.files[WREP_DB], fd);
	if (rc && fd >= 0)
		close(fd);
	wrep_snapshotter_unlock(w);
	if (!rc && replaced)
		let_go(replaced);
	if (!rc)
		wrep_wal_aside_remove(w, db->id);
	if (!rc && old.super[0])
		wrep_super_orphaned(w, old.super);
	former_clear(&old);
	return rc;
}

static void run(struct wrep *w, struct wrep_work *work)
{
	struct rename_work *r = (struct rename_work *)work;
	struct wrep_db *db = r->db;
	struct wrep_entry e;
	int rc = wrep_entry_decode(r->buf, &e);

	while (!rc) {
		rc = run_once(w, r, e.name);
		if (rc != -EBUSY && !wrep_out_of_descriptors(w, rc, db->name))
			break;
		/* An application's transaction: Raft ends it, one way or the other. */
		rc = wrep_goes_on(w) ? 0 : -ECANCELED;
		wrep_serve_opens(w);
		usleep(SETTLE_US);
	}
	if (r->op)
		r->op->done(r->op, rc ? -EIO : 0);
	if (rc && rc != -ECANCELED && wrep_goes_on(w))
		wrep_fatalf(w,
			    "cannot rename a database file name=%s to=%s error=%s; repair the disk "
			    "and mount again",
			    db->name, e.name, strerror(-rc));
}

static void cancel(struct wrep *w, struct wrep_work *work)
{
	struct wrep_op *op = ((struct rename_work *)work)->op;

	(void)w;
	if (op)
		op->done(op, -EIO);
}

static void retire(struct wrep_work *work)
{
	struct rename_work *r = (struct rename_work *)work;

	wrep_db_retire(r->db);
	if (r->replaced)
		wrep_db_retire(r->replaced);
}

static void release(struct wrep_work *work)
{
	struct rename_work *r = (struct rename_work *)work;

	wrep_db_unref(r->db);
	wrep_db_unref(r->replaced);
	rlog_buf_unref(r->buf);
	free(r);
}

static const struct wrep_work_ops rename_ops = {
	.name = "rename",
	.run = run,
	.cancel = cancel,
	.retire = retire,
	.release = release,
	.follows_log = true,
};

/* ---- the committed entry ------------------------------------------------------------------------- */

void wrep_rename_delivered(struct wrep_db *db, uint64_t index, const struct wrep_entry *e,
			   struct rlog_buf *buf, struct rlog_request *req)
{
	struct wrep *w = db->w;
	struct wrep_db *replaced = NULL;
	struct wrep_name_effect effect;
	struct rename_work *r;

	if (wrep_state_change_names(w->state, index, e, &effect)) {
		wrep_fatalf(w, "out of memory while renaming a database name=%s", e->name);
		wrep_proposal_finish(req, -ENOMEM);
		return;
	}
	if (effect.verdict != WREP_TAKES_EFFECT) {
		wrep_proposal_finish(req, effect.error);
		return;
	}
	if (effect.replaced)
		replaced = wrep_db_by_id(w, effect.replaced);
	if (replaced)
		wrep_db_unlinked(replaced);
	pthread_mutex_lock(&db->lock);
	db->renames_pending++;
	pthread_mutex_unlock(&db->lock);
	r = wrep_work_make(sizeof *r, &rename_ops);
	r->db = wrep_db_ref(db);
	r->replaced = replaced;
	r->index = index;
	r->buf = rlog_buf_ref(buf);
	r->op = wrep_proposal_take_op(req, NULL);
	r->work.bytes = buf->len;
	wrep_work_is_about(&r->work, db->id);
	if (replaced)
		wrep_work_is_about(&r->work, replaced->id);
	wrep_work_is_about(&r->work, effect.parent);
	wrep_work_is_about(&r->work, wrep_tree_parent(w->state->names, db->id)); /* its new one */
	wrep_queue_push(w->queue, &r->work);
}
