/* The parts of a large transaction that leave while the application still writes it.
 *
 * In the good case an application loads a gigabyte in one transaction. SQLite's cache overflows again and
 * again, into the -wal or (beneath a rollback journal) the overlay, and once START_BYTES of it are there,
 * parts of them are submitted as PAGES entries, a few at a time, each when a MiB has come together. At the
 * commit most pages are on all nodes already: what follows is the rest, and the COMMIT.
 *
 * Why that is sound, whatever the application does meanwhile. What is sent ahead is a guess, and no more
 * than a way to have bytes there early. What the transaction consists of is said by the write that
 * completes it (capture.c), or by the overlay when the journal goes, as if nothing had been sent: a hash for
 * each page. Then each page that was sent with another hash (SQLite wrote it again, or cut frames off by
 * ROLLBACK TO and wrote others) is sent again, behind all that went before, and the last image of a page
 * counts; each page that was sent and is not of the transaction at all is named by the COMMIT as dropped,
 * or lies behind the end that it names. So the images that count are those of the transaction, page by
 * page, on every node alike, and the checksum that the COMMIT leads to proves it. A transaction that
 * never comes leaves parts without a COMMIT, which change nothing, and which a DISCARD, the next transaction
 * of the database or a new term removes. What goes wrong on the way (a part is refused or lost, the term
 * changes, the disk is full, there is too much to be dropped) is never the application's trouble: the guess
 * is given up, and everything is sent at the commit.
 *
 * A guess is given up, too, when the application has not gone on with its transaction for IDLE_MS
 * (it rolled back, or died, or thinks), when nobody has the database open any more, and when others have
 * filled much of the log since it began: the log must keep the parts of an open transaction, but not for an
 * application that takes hours. Should it go on, all is sent anew once there is twice as much.
 *
 * One guess sends no frame of the -wal, and no page that stays in the overlay, twice: what the nodes keep
 * of a transaction is at most twice what it wrote. Memory: 16 bytes for a page, and a part.
 */
#include "txn/streaming.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/array.h"
#include "base/io.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/table.h"
#include "pages/capture.h"
#include "pages/overlay.h"
#include "pages/pagesum.h"
#include "record/entry.h"
#include "sqlite/file_format.h"
#include "sqlite/wal_format.h"
#include "txn/sender.h"
#include "txn/shape.h"

#define START_BYTES (16u << 20) /* what is smaller is sent when it is complete */
/* Parts in flight: others shall commit in between, and the application writes more slowly than this. */
#define WINDOW_PARTS 2u
#define IDLE_MS 5000
/* When a part waits longer than this at the commit, it is better sent anew, with all the time there is. */
#define STUCK_MS 1000

struct wrep_streaming {
	struct wrep_outgoing *out; /* NULL: nothing is sent yet, or it is given up */
	enum wrep_commit_mode mode;
	uint32_t page_size;
	uint64_t attempt; /* WAL: the capture's number of the transaction */
	/* WAL: the first frame of the transaction, and the first that has not been sent; else the latter
	 * in `written`. */
	uint32_t first, next;
	uint64_t begin_at; /* how many frames or pages there shall be before any is sent */
	/* ROLLBACK: the pages in the overlay, in the order in which they got there */
	uint32_t *written;
	size_t written_count, written_room;
	uint64_t written_ms;	       /* the application's last write */
	uint64_t submitted_ms;	       /* the last part */
	uint64_t log_begin;	       /* bytes delivered by anybody before the first part */
	uint64_t sent_bytes;	       /* of entries */
	struct wrep_page_change *sent; /* in the order of the log */
	size_t sent_count, sent_room;
};

/* ---- beginning and end --------------------------------------------------------------------------- */

/* How many frames or pages the transaction has written. */
static uint64_t written(const struct wrep_db *db, const struct wrep_streaming *a)
{
	uint32_t first, count, page_size;

	if (a->mode == WREP_COMMIT_ROLLBACK)
		return db->overlay && db->files[WREP_DB] ? a->written_count : 0;
	if (!db->capture ||
	    wrep_capture_appended(db->capture, &first, &count, &page_size) != a->attempt)
		return 0;
	return count;
}

/* Stop sending, and have what was sent discarded. */
static void stop(struct wrep_db *db, struct wrep_streaming *a)
{
	uint64_t count = written(db, a), sent = a->next - a->first;

	if (a->out) {
		atomic_fetch_sub(&db->w->streaming_count, 1);
		wrep_outgoing_give_up(db, a->out, -ECANCELED);
	}
	a->out = NULL;
	a->next = a->first;
	a->begin_at = 2 * (count > sent ? count : sent);
	free(a->sent);
	a->sent = NULL;
	a->sent_count = a->sent_room = 0;
	a->sent_bytes = 0;
}

void wrep_streaming_stop(struct wrep_db *db)
{
	if (db->streaming)
		stop(db, db->streaming);
}

void wrep_streaming_forget(struct wrep_db *db)
{
	if (!db->streaming)
		return;
	stop(db, db->streaming);
	free(db->streaming->written);
	free(db->streaming);
	db->streaming = NULL;
	db->stream_source = NULL;
}

static const struct wrep_source source;

static struct wrep_streaming *begin(struct wrep_db *db, enum wrep_commit_mode mode)
{
	struct wrep_streaming *a = calloc(1, sizeof *a);

	if (a) {
		a->mode = mode;
		db->streaming = a;
		db->stream_source = &source;
	}
	return a;
}

void wrep_streaming_wrote_wal(struct wrep_db *db)
{
	struct wrep_streaming *a = db->streaming;
	uint32_t first, count, page_size;
	uint64_t attempt = wrep_capture_appended(db->capture, &first, &count, &page_size);

	if (a && (a->mode != WREP_COMMIT_WAL || a->attempt != attempt)) {
		wrep_streaming_forget(db);
		a = NULL;
	}
	if (!a && (uint64_t)count * page_size >= START_BYTES) {
		a = begin(db, WREP_COMMIT_WAL);
		if (!a)
			return;
		a->attempt = attempt;
		a->page_size = page_size;
		a->first = a->next = first;
	}
	if (a)
		a->written_ms = wrep_now_ms();
}

/* The page size of what is being written: as page 1 says now, or the first page that was written. */
static uint32_t page_size_of(struct wrep_db *db, size_t len)
{
	uint32_t page_size, page_count;
	bool whole;

	if (wrep_overlay_shape(db, &page_size, &page_count, &whole) && page_size)
		return page_size;
	return len <= UINT32_MAX && wrep_page_size_valid((uint32_t)len) ? (uint32_t)len : 0;
}

void wrep_streaming_wrote_overlay(struct wrep_db *db, size_t len, uint64_t off)
{
	struct wrep_streaming *a = db->streaming;
	uint64_t pgno, end;

	if (!a)
		a = begin(db, WREP_COMMIT_ROLLBACK);
	if (!a)
		return;
	if (!a->page_size)
		a->page_size = page_size_of(db, len);
	a->written_ms = wrep_now_ms();
	if (!a->page_size)
		return;
	/* The whole pages in there; others are sent at the commit. */
	pgno = (off + a->page_size - 1) / a->page_size + 1;
	end = (off + len) / a->page_size;
	if (pgno > end || end > UINT32_MAX ||
	    wrep_array_reserve(&a->written, &a->written_room, a->written_count + (end - pgno + 1),
			       sizeof *a->written) < 0)
		return;
	while (pgno <= end)
		a->written[a->written_count++] = (uint32_t)pgno++;
}

/* ---- sending --------------------------------------------------------------------------------------- */

/* A page to be sent; of the -wal, where it is among the frames that were read. */
struct pick {
	uint32_t pgno, frame;
};

static int compare_picks(const void *a, const void *b)
{
	const struct pick *x = a, *y = b;

	if (x->pgno != y->pgno)
		return x->pgno < y->pgno ? -1 : 1;
	return x->frame < y->frame ? -1 : x->frame > y->frame;
}

/* What is worth sending of the next `count` frames or pages, in the order of an entry. Page 1 is not: it
 * changes again with the commit, and says what mode the database is in. */
static uint32_t pick_pages(struct wrep_db *db, const struct wrep_streaming *a,
			   const uint8_t *frames, uint32_t count, struct pick *picks)
{
	uint32_t found = 0, kept = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t pgno;

		if (frames)
			pgno = wrep_capture_frame_pgno(db->capture,
						       frames + i * wrep_wal_frame_bytes(
									    a->page_size));
		else
			pgno = a->written[a->next + i];
		if (pgno > 1 && pgno != wrep_lock_page(a->page_size))
			picks[found++] = (struct pick){.pgno = pgno, .frame = i};
	}
	qsort(picks, found, sizeof *picks, compare_picks);
	for (uint32_t i = 0; i < found; i++)
		if (i + 1 == found || picks[i + 1].pgno != picks[i].pgno)
			picks[kept++] = picks[i];
	return kept;
}

static int read_page(struct wrep_db *db, const struct wrep_streaming *a, const uint8_t *frames,
		     const struct pick *pick, uint8_t *page)
{
	uint64_t frame_bytes = wrep_wal_frame_bytes(a->page_size);
	ssize_t n;

	if (frames) {
		memcpy(page, frames + pick->frame * frame_bytes + WREP_FRAME_HEADER_BYTES,
		       a->page_size);
		return 0;
	}
	n = wrep_overlay_read(db->overlay, db->files[WREP_DB]->fd, page, a->page_size,
			      (uint64_t)(pick->pgno - 1) * a->page_size);
	if (n < 0)
		return (int)n;
	memset(page + n, 0, a->page_size - (size_t)n);
	return 0;
}

/* An entry of the pages picked. */
static int encode(struct wrep_db *db, const uint8_t *frames, const struct pick *picks,
		  uint32_t count, struct rlog_request **out)
{
	struct wrep_streaming *a = db->streaming;
	struct wrep_entry e = {
		.type = WREP_ENTRY_PAGES,
		.db_id = db->id,
		.origin = db->w->origin,
		.sequence = a->out->sequence,
		.page_size = a->page_size,
		.part = a->out->next_part,
		.image_count = count,
	};
	struct rlog_buf *buf;
	int rc =
		wrep_array_reserve(&a->sent, &a->sent_room, a->sent_count + count, sizeof *a->sent);

	if (rc < 0)
		return rc;
	buf = wrep_entry_alloc(&e);
	if (!buf)
		return -ENOMEM;
	for (uint32_t i = 0; i < count && !rc; i++) {
		uint8_t *page = (uint8_t *)e.images + (size_t)i * a->page_size;

		rc = read_page(db, a, frames, &picks[i], page);
		wrep_entry_set_pgno(&e, i, picks[i].pgno);
		a->sent[a->sent_count + i] = (struct wrep_page_change){
			.pgno = picks[i].pgno,
			.hash = wrep_page_hash(picks[i].pgno, page, a->page_size),
		};
	}
	if (rc < 0) {
		rlog_buf_unref(buf);
		return rc;
	}
	*out = wrep_outgoing_part(db, a->out, buf);
	if (!*out)
		return -ENOMEM;
	a->sent_count += count;
	a->sent_bytes += (*out)->buf->len;
	return 0;
}

/* A part of the next `count` frames or pages. It may be that none is worth it. 0 or -errno. */
static int make_part(struct wrep_db *db, struct wrep_streaming *a, uint32_t count,
		     struct rlog_request **out)
{
	struct pick *picks = malloc(count * sizeof *picks);
	uint8_t *frames = NULL;
	int rc = picks ? 0 : -ENOMEM;

	if (!rc && a->mode == WREP_COMMIT_WAL) {
		frames = malloc(count * (size_t)wrep_wal_frame_bytes(a->page_size));
		rc = frames ? wrep_capture_read_frames(db->capture, a->next, count, frames)
			    : -ENOMEM;
	}
	if (!rc && !a->out) {
		a->out = wrep_outgoing_new(db->w, &source);
		rc = a->out ? 0 : -ENOMEM;
		if (!rc)
			atomic_fetch_add(&db->w->streaming_count, 1);
		a->log_begin = atomic_load(&db->w->delivered_bytes);
	}
	if (!rc) {
		uint32_t kept = pick_pages(db, a, frames, count, picks);

		a->next += count;
		if (kept)
			rc = encode(db, frames, picks, kept, out);
	}
	free(frames);
	free(picks);
	return rc;
}

static struct rlog_request *next(struct wrep_db *db)
{
	struct wrep_streaming *a = db->streaming;
	struct rlog_request *req = NULL;

	while (a && a->page_size && !req) {
		uint32_t wanted = wrep_entry_images_max(a->page_size);
		uint64_t count = written(db, a);

		if (a->out && a->out->in_flight >= WINDOW_PARTS)
			return NULL;
		if (!a->out && (count < a->begin_at || count * a->page_size < START_BYTES))
			return NULL;
		if (count < (uint64_t)(a->next - a->first) + wanted ||
		    !atomic_load(&db->w->may_write))
			return NULL;
		if (make_part(db, a, wanted, &req) < 0)
			stop(db, a);
	}
	if (req)
		a->submitted_ms = wrep_now_ms();
	return req;
}

static struct wrep_outgoing *outgoing(struct wrep_db *db)
{
	return db->streaming->out;
}

static void part_failed(struct wrep_db *db, struct wrep_outgoing *out, int error)
{
	wrep_outgoing_fail(db, out, error);
	stop(db, db->streaming);
}

static const struct wrep_source source = {
	.next = next,
	.outgoing = outgoing,
	.part_failed = part_failed,
};

/* ---- the commit ------------------------------------------------------------------------------------ */

static int compare_changes(const void *a, const void *b)
{
	const struct wrep_page_change *x = a, *y = b;

	return x->pgno < y->pgno ? -1 : x->pgno > y->pgno;
}

/* Compare what was sent with what the transaction is. False: it has to be sent as a whole. */
static bool compare(struct wrep_streaming *a, const struct wrep_complete *c,
		    struct wrep_streamed *s)
{
	uint32_t *unsent = malloc(((size_t)c->change_count + 1) * sizeof *unsent);
	uint32_t *dropped = malloc((a->sent_count + 1) * sizeof *dropped);
	size_t unsent_count = 0, dropped_count = 0;
	uint32_t i = 0;

	if (!unsent || !dropped)
		goto no;
	qsort(a->sent, a->sent_count, sizeof *a->sent, compare_changes);
	for (size_t k = 0, end; k < a->sent_count; k = end) {
		uint32_t pgno = a->sent[k].pgno;

		/* One that was sent several times is sent once more, as if none of them were right. */
		for (end = k + 1; end < a->sent_count && a->sent[end].pgno == pgno;)
			end++;
		while (i < c->change_count && c->changes[i].pgno < pgno)
			unsent[unsent_count++] = i++;
		if (i < c->change_count && c->changes[i].pgno == pgno) {
			if (end > k + 1 || c->changes[i].hash != a->sent[k].hash)
				unsent[unsent_count++] = i;
			i++;
		} else if (pgno <= c->page_count) {
			dropped[dropped_count++] = pgno;
		}
	}
	while (i < c->change_count)
		unsent[unsent_count++] = i++;
	if (dropped_count > WREP_ENTRY_DROPPED_MAX)
		goto no;
	*s = (struct wrep_streamed){
		.unsent = unsent,
		.unsent_count = (uint32_t)unsent_count,
		.dropped = dropped,
		.dropped_count = (uint32_t)dropped_count,
	};
	return true;
no:
	free(unsent);
	free(dropped);
	return false;
}

bool wrep_streaming_take(struct wrep_db *db, const struct wrep_complete *c, struct wrep_streamed *s)
{
	struct wrep_streaming *a = db->streaming;
	uint32_t first, count, page_size;
	bool of_use;

	of_use = a && a->out && !a->out->failed &&
		 (a->mode == WREP_COMMIT_WAL) == (c->mode == WREP_COMMIT_WAL) &&
		 a->page_size == c->page_size &&
		 (a->mode == WREP_COMMIT_ROLLBACK ||
		  wrep_capture_appended(db->capture, &first, &count, &page_size) == a->attempt) &&
		 (!a->out->in_flight || wrep_now_ms() - a->submitted_ms < STUCK_MS) &&
		 compare(a, c, s);
	if (of_use) {
		s->out = a->out;
		a->out = NULL;
		atomic_fetch_sub(&db->w->streaming_count, 1);
	}
	wrep_streaming_forget(db);
	return of_use;
}

/* ---- guesses that lead nowhere ----------------------------------------------------------------------- */

static bool leads_nowhere(struct wrep_db *db, struct wrep_streaming *a)
{
	struct wrep *w = db->w;
	uint64_t since = atomic_load(&w->delivered_bytes) - a->log_begin;

	return wrep_now_ms() - a->written_ms > IDLE_MS ||
	       since > a->sent_bytes + wrep_log_bytes(w) / 2;
}

void wrep_streaming_tick(struct wrep *w, bool all)
{
	struct wrep_db **dbs;
	size_t count;

	if (!atomic_load(&w->streaming_count) || wrep_db_all(w, &dbs, &count) < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		struct wrep_db *db = dbs[i];

		pthread_mutex_lock(&db->lock);
		if (db->streaming && db->streaming->out &&
		    (all || leads_nowhere(db, db->streaming)))
			stop(db, db->streaming);
		wrep_txn_unlock(db);
		wrep_db_unref(db);
	}
	free(dbs);
}
