/* An application's transaction on its way through Raft.
 *
 * WAL mode: capture.c says which write completed the transaction; its pages are read back from the
 * backing -wal (and from that write), become one COMMIT entry, and the write waits. Rollback mode: the
 * pages are in the overlay, and what waits is the removal, truncation or zeroing of the journal.
 *
 * A transaction that does not fit one entry is preceded by PAGES entries. They are read and submitted
 * a few at a time: each that is delivered back to this node makes room for the next one. When all
 * have been delivered, the COMMIT follows by itself.
 *
 *   PAGES 0 ..    delivered | in flight, at most WINDOW_PARTS | not read yet        COMMIT
 *                           next_part - in_flight             next_part
 *
 * Of a very large one most parts have left before, while it was being written (txn/streaming.c): then the window
 * begins behind these, and only what they do not hold already is sent.
 *
 * So memory does not grow with the transaction; and as long as parts are on their way, the COMMIT has
 * not been submitted. Should one of them end as anything but delivered, or in another term than the
 * others (leadership was lost), no more is submitted: nobody ever sees a COMMIT, so the transaction is
 * refused for certain, even where the end of a part is unknown. What has gone out already is thrown
 * away by all nodes when the DISCARD that follows is delivered, from here or from the next leader, or
 * any other entry of a newer term.
 * Meanwhile nothing moves the images: SQLite waits for its write, others are refused because of
 * `db->pending`, and the applier leaves a database with an undecided transaction alone.
 *
 * One transaction of a database is undecided at a time: SQLite's writers' lock sees to that, and a
 * second one is refused. When the outcome is refused or unknown the application gets EIO, and its
 * files show the state before: the held write never reaches the -wal, so no recovery can bring it
 * back; the overlay stays under its hot journal, which SQLite rolls back. Should an unknown one turn
 * out committed later, it arrives at deliver_commit.c without its request, like any other node's, and the
 * applier brings it in; until then `local_version` lags `version`, and commits built on it are
 * refused here before they are sent.
 */
#include "txn/commit.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/io.h"
#include "base/report.h"
#include "db/db.h"
#include "db/pin.h"
#include "db/table.h"
#include "pages/capture.h"
#include "pages/overlay.h"
#include "pages/pagesum.h"
#include "record/entry.h"
#include "sqlite/file_format.h"
#include "txn/discard.h"
#include "txn/sender.h"
#include "txn/shape.h"
#include "txn/streaming.h"

void wrep_commit_free(struct wrep_commit *c)
{
	if (!c)
		return;
	wrep_db_unref(c->db);
	assert(!c->out || !c->out->in_flight);
	free(c->out);
	free(c->unsent);
	free(c->dropped);
	free(c->changes);
	free(c->journal_bytes);
	free(c);
}

static void tell(struct wrep_op *op, int result)
{
	while (op) {
		struct wrep_op *next = op->next;

		op->done(op, result);
		op = next;
	}
}

void wrep_commit_tell(struct wrep_commit *c, int result)
{
	struct wrep_op *op = c->op, *sharers = c->sharers, *writers = c->writers;

	/* `sharers` and `writers` are not linked behind `op`, whose `next` is somebody else's. */
	if (op)
		op->done(op, result);
	tell(sharers, result);
	tell(writers, result < 0 ? -EIO : -EINTR);
}

void wrep_commit_tell_writers(struct wrep_commit *c, int result)
{
	tell(c->writers, result);
	c->writers = NULL;
}

void wrep_commit_end(struct wrep_commit *c, int result)
{
	if (result < 0 && c->refused) {
		c->refused(c, result);
		return;
	}
	wrep_commit_tell(c, result);
	wrep_commit_free(c);
}

/* PAGES entries in flight, of a MiB each: enough to keep disks and network busy, and what a large
 * transaction costs in memory here and in raftlog. */
#define WINDOW_PARTS 8u

/* ---- reading and encoding ------------------------------------------------------------------------ */

/* The number and the image of the `i`-th of the pages that are to be sent. */
static int read_image(struct wrep_commit *c, uint32_t i, uint32_t *pgno, uint8_t *page)
{
	struct wrep_db *db = c->db;
	ssize_t n;

	if (c->unsent)
		i = c->unsent[i];
	if (c->txn) {
		*pgno = c->txn->images[i].pgno;
		return wrep_capture_image(db->capture, &c->txn->images[i], page);
	}
	*pgno = c->changes[i].pgno;
	n = wrep_overlay_read(db->overlay, db->files[WREP_DB]->fd, page, c->page_size,
			      (uint64_t)(*pgno - 1) * c->page_size);
	if (n < 0)
		return (int)n;
	memset(page + n, 0, c->page_size - (size_t)n);
	return 0;
}

/* Put images [from, from + e->image_count) into their places in the entry. */
static int fill_piece(struct wrep_commit *c, struct wrep_entry *e, uint32_t from)
{
	for (uint32_t i = 0; i < e->image_count; i++) {
		uint8_t *page = (uint8_t *)e->images + (size_t)i * c->page_size;
		uint32_t pgno;
		int rc = read_image(c, from + i, &pgno, page);

		if (rc < 0)
			return rc;
		wrep_entry_set_pgno(e, i, pgno);
		if (pgno == 1) {
			c->sets_wal_mode = true;
			c->wal_mode = wrep_page1_is_wal(page);
		}
	}
	return 0;
}

/* Encode them into one entry. */
static int encode_piece(struct wrep_commit *c, struct wrep_entry *e, uint32_t from,
			struct rlog_buf **out)
{
	struct rlog_buf *buf = wrep_entry_alloc(e);
	int rc = buf ? fill_piece(c, e, from) : -ENOMEM;

	if (rc < 0)
		rlog_buf_unref(buf);
	else
		*out = buf;
	return rc;
}

static uint32_t images_per_entry(const struct wrep_commit *c)
{
	return c->page_size ? wrep_entry_images_max(c->page_size) : 1;
}

/* What is committed in rollback mode must find room in the database file. 0 or -ENOSPC. db->lock held. */
static int reserve(struct wrep_commit *c)
{
	uint64_t size = (uint64_t)c->page_count * c->page_size;
	int fd = c->db->files[WREP_DB]->fd;
	struct stat st;

	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size >= size)
		return 0;
	c->reserved = fallocate(fd, FALLOC_FL_KEEP_SIZE, st.st_size, (off_t)size - st.st_size) == 0;
	return c->reserved || (errno != ENOSPC && errno != EDQUOT) ? 0 : -ENOSPC;
}

/* It will not be. db->lock held. */
static void unreserve(struct wrep_commit *c)
{
	struct wrep_file *f = c->db->files[WREP_DB];
	struct stat st;

	if (c->reserved && f && !c->db->retired && fstat(f->fd, &st) == 0 &&
	    ftruncate(f->fd, st.st_size) < 0)
		wrep_logf(c->db->w, 'W', "cannot give space back database=%s error=\"%s\"",
			  c->db->name, strerror(errno));
	c->reserved = false;
}

static void commit_done(struct rlog_request *req, enum rlog_outcome outcome);

/* Images in the parts in front of that one, but for those that left before the transaction was complete. */
static uint32_t images_before(const struct wrep_commit *c, uint32_t part)
{
	uint64_t count = (uint64_t)(part - c->guessed) * images_per_entry(c);

	return count < c->send_count ? (uint32_t)count : c->send_count;
}

static int encode_part(struct wrep_commit *c, struct rlog_request **out)
{
	uint32_t from = images_before(c, c->out->next_part);
	uint32_t count = images_before(c, c->out->next_part + 1) - from;
	struct wrep_entry e = {
		.type = WREP_ENTRY_PAGES,
		.db_id = c->db->id,
		.origin = c->db->w->origin,
		.sequence = c->out->sequence,
		.page_size = c->page_size,
		.part = c->out->next_part,
		.image_count = count,
	};
	struct rlog_buf *buf;
	int rc = encode_piece(c, &e, from, &buf);

	if (rc < 0)
		return rc;
	*out = wrep_outgoing_part(c->db, c->out, buf);
	return *out ? 0 : -ENOMEM;
}

void wrep_commit_describe(const struct wrep_commit *c, struct wrep_entry *e)
{
	*e = (struct wrep_entry){
		.type = WREP_ENTRY_COMMIT,
		.db_id = c->db->id,
		.origin = c->db->w->origin,
		.sequence = c->out->sequence,
		.page_size = c->page_size,
		.part = c->parts,
		.image_count = c->dropped_count ? 0 : c->send_count - images_before(c, c->parts),
		.commit_mode = c->mode,
		.base_version = c->base_version,
		.checksum = c->checksum,
		.page_count = c->page_count,
		.total_pages = c->change_count,
		.dropped_count = c->dropped_count,
	};
}

int wrep_commit_fill(struct wrep_commit *c, struct wrep_entry *e)
{
	int rc = c->out->failed ? c->out->failed : fill_piece(c, e, images_before(c, c->parts));

	for (uint32_t i = 0; i < c->dropped_count && !rc; i++)
		wrep_entry_set_dropped(e, i, c->dropped[i]);
	c->sent = !rc;
	return rc;
}

static int encode_commit(struct wrep_commit *c, struct rlog_request **out)
{
	struct wrep_entry e;
	int rc;

	wrep_commit_describe(c, &e);
	rc = encode_piece(c, &e, images_before(c, c->parts), &c->request.buf);
	if (rc < 0)
		return rc;
	for (uint32_t i = 0; i < c->dropped_count; i++)
		wrep_entry_set_dropped(&e, i, c->dropped[i]);
	c->request.done = commit_done;
	*out = &c->request;
	return 0;
}

/* ---- submitting ---------------------------------------------------------------------------------- */

void wrep_commit_detach(struct wrep_db *db)
{
	db->pending = NULL;
	db->commit_source = NULL;
}

/* The transaction ended without effect; tell_refused() is to follow. db->lock held. */
static void end_refused(struct wrep_commit *c, int result)
{
	struct wrep_db *db = c->db;

	assert(db->pending == c);
	wrep_commit_detach(db);
	if (c->mode == WREP_COMMIT_WAL) {
		wrep_capture_refused(db->capture);
		db->wal_ended = result;
	}
	unreserve(c);
	wrep_db_settled(db);
}

/* No lock held. Takes `c`. */
static void tell_refused(struct wrep_commit *c, int result)
{
	struct wrep_db *db = c->db;

	if (c->out->next_part > 0)
		wrep_submit_discard(db->w, db->id, db->w->origin, c->out->sequence);
	wrep_commit_end(c, result);
}

void wrep_commit_dismiss(struct wrep_commit *c, bool refused)
{
	struct wrep_db *db = c->db;
	struct wrep_outgoing *out = c->out;

	pthread_mutex_lock(&db->lock);
	assert(db->pending == c);
	wrep_commit_detach(db);
	unreserve(c);
	wrep_db_settled(db);
	if (refused) { /* some may still be on their way */
		c->out = NULL;
		wrep_outgoing_give_up(db, out, -EIO);
		wrep_txn_unlock(db);
	} else {
		pthread_mutex_unlock(&db->lock);
		if (out->next_part > 0)
			wrep_submit_discard(db->w, db->id, db->w->origin, out->sequence);
	}
	wrep_commit_free(c);
}

/* As struct wrep_source says. */
static struct rlog_request *next(struct wrep_db *db)
{
	struct wrep_commit *c = db->pending;
	struct rlog_request *req;
	bool part;
	int rc;

	if (c->sent || c->out->failed)
		return NULL;
	part = c->out->next_part < c->parts;
	if (c->member_count && (!part || !c->started))
		return NULL; /* its turn comes; its COMMIT goes into the entry of all members */
	if (c->out->in_flight >= (part ? WINDOW_PARTS : 1))
		return NULL;
	rc = part ? encode_part(c, &req) : encode_commit(c, &req);
	if (rc < 0) {
		wrep_outgoing_fail(db, c->out, rc);
		return NULL;
	}
	c->sent = !part;
	return req;
}

static struct wrep_outgoing *outgoing(struct wrep_db *db)
{
	return db->pending->sent ? NULL : db->pending->out;
}

static void run_parts_done(struct wrep_due *due)
{
	struct wrep_commit *c =
		(struct wrep_commit *)((char *)due - offsetof(struct wrep_commit, due));

	c->parts_done(c);
}

static void run_tell_refused(struct wrep_due *due)
{
	struct wrep_commit *c =
		(struct wrep_commit *)((char *)due - offsetof(struct wrep_commit, due));

	tell_refused(c, c->out->failed);
}

static struct wrep_due *drained(struct wrep_db *db)
{
	struct wrep_commit *c = db->pending;

	if (c->out->in_flight)
		return NULL;
	if (c->member_count) {
		if (!c->started || c->arrived || (!c->out->failed && c->out->next_part < c->parts))
			return NULL;
		c->arrived = true;
		c->due.run = run_parts_done;
		return &c->due;
	}
	if (c->sent || !c->out->failed)
		return NULL;
	/* (No space, and the like, say so themselves.) */
	if (c->out->failed == -EIO)
		wrep_commit_log_refused(db, WREP_REFUSED_NO_LEADER);
	end_refused(c, c->out->failed);
	c->due.run = run_tell_refused;
	return &c->due;
}

static const struct wrep_source source = {
	.next = next,
	.outgoing = outgoing,
	.part_failed = wrep_outgoing_fail,
	.drained = drained,
};

#define REFUSED_LOG_MS 1000 /* between two such lines of a database */

void wrep_commit_log_refused(struct wrep_db *db, const char *why)
{
	uint64_t now = wrep_now_ms(), last = atomic_load(&db->refusal_logged_ms);

	if ((!last || now - last >= REFUSED_LOG_MS) &&
	    atomic_compare_exchange_strong(&db->refusal_logged_ms, &last, now))
		wrep_logf(
			db->w, 'W',
			"commit refused, and certain not to happen: %s; the application got an error, and "
			"may try again, where the leader is database=%s",
			why, db->name);
}

/* raftlog: the COMMIT is refused, or unknown. */
static void commit_done(struct rlog_request *req, enum rlog_outcome outcome)
{
	struct wrep_commit *c = (struct wrep_commit *)req;
	struct wrep_db *db = c->db;

	if (outcome == RLOG_UNKNOWN)
		wrep_logf(db->w, 'W',
			  "commit outcome unknown: no majority answered in time; the "
			  "application got EIO database=%s base_version=%llu",
			  db->name, (unsigned long long)c->base_version);
	else if (!req->error)
		wrep_commit_log_refused(db, WREP_REFUSED_NO_LEADER);
	pthread_mutex_lock(&db->lock);
	if (outcome == RLOG_REFUSED)
		wrep_outgoing_forget(db, c->out);
	end_refused(c, wrep_request_error(req, outcome));
	pthread_mutex_unlock(&db->lock);
	tell_refused(c, wrep_request_error(req, outcome));
}

/* Take over what left before the transaction was complete, if it is of use. db->lock held. */
static void take_streamed(struct wrep_db *db, struct wrep_commit *c)
{
	const struct wrep_complete complete = {
		.mode = c->mode,
		.page_size = c->page_size,
		.page_count = c->page_count,
		.changes = c->changes,
		.change_count = c->change_count,
	};
	struct wrep_streamed s;

	c->send_count = c->change_count;
	if (!wrep_streaming_take(db, &complete, &s))
		return;
	if (c->member_count && s.dropped_count > wrep_entry_group_dropped_max(c->member_count)) {
		wrep_outgoing_give_up(db, s.out, -EIO);
		free(s.unsent);
		free(s.dropped);
		return;
	}
	c->out = s.out;
	c->out->source = &source;
	c->guessed = c->out->next_part;
	c->unsent = s.unsent;
	c->send_count = s.unsent_count;
	c->dropped = s.dropped;
	c->dropped_count = s.dropped_count;
}

/* Fill in what depends on the replicated state, and make it the undecided transaction. db->lock held. 0:
 * wrep_txn_unlock() is to follow, after which `c` belongs to its requests. */
static int start(struct wrep_db *db, struct wrep_commit *c)
{
	uint32_t per_entry = images_per_entry(c), group_max = 0;

	if (db->removed || db->renames_pending || db->local_version != db->state.version) {
		wrep_commit_log_refused(db, WREP_REFUSED_TOO_LATE);
		return -EIO; /* built on a state that is no longer the database's */
	}
	/* Its writes were counted (file/write.c); a file that grew by truncation was not. */
	if ((uint64_t)c->change_count * c->page_size > db->w->config.max_transaction_bytes)
		return wrep_refuse_large(db);
	take_streamed(db, c);
	if (!c->out)
		c->out = wrep_outgoing_new(db->w, &source);
	if (!c->out)
		return -ENOMEM;
	c->base_version = db->state.version;
	c->checksum = wrep_pagesum_preview(&db->state.sum, c->page_size, c->page_count, c->changes,
					   c->change_count);
	if (c->member_count && c->page_size)
		group_max = wrep_entry_group_images_max(c->page_size, c->member_count);
	/* A COMMIT that drops pages has no room for images, and a group's entry little for each member: what
	 * is too much for that goes ahead, all of it. */
	c->parts = c->guessed;
	if (c->dropped_count || (c->member_count && c->send_count > group_max))
		c->parts += (c->send_count + per_entry - 1) / per_entry;
	else if (c->send_count && !c->member_count)
		c->parts += (c->send_count - 1) / per_entry;
	db->pending = c;
	db->commit_source = &source;
	return 0;
}

/* ---- the two modes ------------------------------------------------------------------------------- */

int wrep_commit_wal(struct wrep_db *db, const struct wrep_wal_txn *txn, struct wrep_op *op)
{
	struct wrep_commit *c = calloc(1, sizeof *c);
	int rc = -ENOMEM;

	if (!c)
		goto fail;
	c->db = wrep_db_ref(db);
	c->op = op;
	c->mode = WREP_COMMIT_WAL;
	c->txn = txn;
	c->page_size = txn->page_size;
	c->page_count = txn->page_count;
	c->change_count = txn->image_count;
	c->changes = malloc(((size_t)txn->image_count + 1) * sizeof *c->changes);
	if (!c->changes)
		goto fail;
	for (uint32_t i = 0; i < txn->image_count; i++)
		c->changes[i] = (struct wrep_page_change){txn->images[i].pgno, txn->images[i].hash};
	rc = wrep_capture_reserve(db->capture);
	if (rc == 0)
		rc = start(db, c);
	if (rc == 0)
		return WREP_PENDING;
fail:
	wrep_capture_refused(db->capture);
	db->wal_ended = rc;
	wrep_commit_free(c); /* the caller has a reference to the database, too */
	return rc;
}

static bool same_process(struct wrep_db *db, pid_t a, pid_t b)
{
	struct wrep_host *host = &db->w->config.host;
	void *ctx = db->w->config.host_ctx;

	/* Of one that is not known (0: another pid namespace) it may be. */
	return !a || !b || a == b || host->process_of(ctx, a) == host->process_of(ctx, b);
}

/* What the overlay holds is what is committed already. Has a transaction committed all the same, on which its
 * application relies (a lease renewed by UPDATE t SET x=x), so that it needs a majority like any other; or was
 * one rolled back, which needs none, and must not, or nobody could read what a dead writer left?
 *
 * Mostly a commit changes the counter in page 1. With locking_mode=EXCLUSIVE SQLite does so only once. Then what
 * was written tells. The removal of a super-journal is no rollback; nor has one who takes no locks any. A
 * rollback brings back what was other before: so without a journal, where nothing ever was, it is a commit. With
 * one SQLite writes the journal's header (how many records, syncJournal()) before it writes pages: by a commit
 * nothing but what is committed has been written since, and by the same process; a rollback writes no header,
 * and takes back what came behind the last one; a recovery is done by another process, and so is whatever
 * comes after a commit that failed (`journaled` holds once).
 *
 * It errs towards a majority, where a cache spilled last what had not changed and is rolled back; and the other
 * way only where it spilled what then changed back, without a journal, or with synchronous=OFF. */
static bool is_commit(struct wrep_db *db, const struct wrep_commit *c)
{
	if (!wrep_overlay_dirty(db->overlay))
		return false;
	if (c->member_count || c->mode == WREP_COMMIT_REPLACE)
		return true;
	if (c->session)
		return !db->differed;
	return db->journaled && same_process(db, db->journal_tid, c->op ? c->op->tid : 0);
}

/* Would the commit lead to what is committed? db->lock held. */
static bool changes_nothing(const struct wrep_db *db, const struct wrep_commit *c)
{
	return db->local_version == db->state.version && !c->change_count &&
	       c->page_count == db->state.sum.page_count &&
	       (c->page_size == db->state.sum.page_size || !c->page_count);
}

/* Has a transaction been rolled back while newer ones wait to be applied? They wait for the lock of who does so:
 * on a node that no longer leads, mostly a reader, who finds the journal of a commit that was refused.
 * db->lock held. */
static bool is_older(struct wrep_db *db)
{
	return db->local_version != db->state.version && wrep_overlay_restores(db);
}

int wrep_commit_prepare(struct wrep_db *db, struct wrep_commit *c)
{
	bool whole, commit;
	int rc;

	c->db = wrep_db_ref(db);
	if (!c->mode)
		c->mode = WREP_COMMIT_ROLLBACK;
	if (db->pending || !db->files[WREP_DB]) {
		rc = -EIO;
		goto fail;
	}
	if (!wrep_overlay_shape(db, &c->page_size, &c->page_count, &whole)) {
		wrep_logf(db->w, 'W',
			  "commit refused: what was written is no SQLite database, or an encrypted "
			  "one database=%s",
			  db->name);
		rc = -EIO;
		goto fail;
	}
	if (c->page_count) {
		rc = wrep_overlay_changes(db, c->page_size, c->page_count, &c->changes,
					  &c->change_count);
		if (rc < 0)
			goto fail;
	}
	/* Of an empty file that was emptied nobody expects anything. */
	commit = c->page_count && is_commit(db, c);
	db->journaled = false;
	if (!commit && (changes_nothing(db, c) || is_older(db))) {
		/* The database file holds it already. */
		wrep_db_drop_overlay(db);
		wrep_commit_free(c);
		return 0;
	}
	rc = reserve(c);
	if (rc == 0)
		rc = start(db, c);
	if (rc == 0)
		return 1;
fail:
	unreserve(c);
	wrep_commit_free(c);
	return rc;
}

int wrep_commit_overlay(struct wrep_db *db, struct wrep_commit *c)
{
	int rc = wrep_commit_prepare(db, c);

	if (rc == 0)
		return 0;
	if (rc == 1) {
		wrep_txn_unlock(db);
		return WREP_PENDING;
	}
	pthread_mutex_unlock(&db->lock);
	return rc;
}

/* Frames are a little longer than pages, so that a transaction of just the limit may be refused in
 * WAL mode; none that is larger is let through. */
int wrep_refuse_large(struct wrep_db *db)
{
	wrep_logf(db->w, 'W',
		  "transaction refused: it is larger than %llu MiB database=%s; split it, or mount "
		  "with a larger --max-transaction",
		  (unsigned long long)(db->w->config.max_transaction_bytes >> 20), db->name);
	return -ENOSPC;
}
