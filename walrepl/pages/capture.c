/* Follows the chain of frame checksums in a -wal while it is being written.
 *
 * The good case: SQLite appends frames, each as a 24-byte header and a page. The capture knows where
 * the next frame belongs (the scan position: `frames` of them are valid so far) and the running
 * checksum there. A write that makes the frame at the scan position whole and valid moves the scan on;
 * a frame that names a database size makes it a transaction, and that write is held back.
 *
 *   header | committed frames | valid frames, no commit yet | frame being written | ...
 *          0                  committed                     scanned               size of the file
 *
 * The judgement is: were this write put into the backing file, would a recovery find one more
 * commit frame there? It holds at every write, so the backing file alone never holds a transaction
 * that was not agreed, whatever the writer does. The invariant, between any two calls:
 *
 *   In the backing file the frames before the scan position are valid, no commit frame is among those
 *   behind the committed end, and the frame at the scan position is not valid: a recovery stops there.
 *
 * So a commit frame can join the chain only by a change that makes the frame at the scan position valid,
 * and every change of its bytes is looked at: a write into it; a write behind the end of the file, which
 * fills the hole in front of it with zeros, as a longer truncation does; another header, which makes the
 * frames that are there already valid or not, so that they are read (`recheck`). A write into a frame
 * before it moves the scan position back first. A header is not changed, nor a committed frame, but by one
 * that starts a new generation at offset 0. What is refused changes nothing: the scan goes back to the
 * first byte that the write would have changed, the hole included. And where a write was let through, but
 * only a part of it got into the file (a full disk), that part was never judged: what follows the committed
 * end is judged then, and made invalid if it completes something (wrep_capture_write_failed()).
 *
 * A frame is looked at only when its bytes change, so each page is read and summed once:
 *
 * - the bytes of the frame at the scan position are kept as they arrive (`cache`), since the kernel
 *   splits writes at page boundaries; the backing file is read only for what was not seen;
 * - a write into an already valid frame moves the scan back to it. After a cache spill SQLite
 *   overwrites pages of its transaction in place and then rewrites the frame headers in order, from
 *   the first that no longer fits: the scan waits at that frame and follows the headers;
 * - the frames of an old generation stay behind the header of a new one, dead by their salts. A frame
 *   written over them looks whole, and is summed, at each of its writes. Cutting the file there would
 *   save that, but the file may not become shorter than the kernel believes: a size that it asks for
 *   just then would make it zero what it has cached of a write under way.
 *
 * Memory: 24 bytes per frame, the held-back write, and the image list of the undecided transaction.
 */
#include "pages/capture.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/array.h"
#include "base/bytes.h"
#include "base/io.h"
#include "sqlite/file_format.h"
#include "sqlite/wal_format.h"

struct frame {
	uint32_t pgno;
	uint32_t page_count; /* not 0: a commit frame */
	uint32_t sum[2];
	uint64_t hash; /* of the page, as in pagesum.h */
};

#define RESERVE_BYTES (256u << 10) /* of room in the backing file, ahead */

struct wrep_capture {
	int fd;
	bool loaded; /* the rest agrees with the backing file */

	/* The generation. Without a valid header there are no frames. */
	bool header_valid;
	uint8_t header_bytes[WREP_WAL_HEADER_BYTES];
	struct wrep_wal_header header;

	struct frame *frames; /* the valid ones: `scanned` of them */
	uint32_t scanned, committed;
	size_t capacity;
	uint64_t size; /* of the backing file, with the write at hand */
	/* The frame at the scan position may be valid although no write has touched it since. */
	bool recheck;

	uint8_t *cache; /* the first `cached` bytes of the frame at the scan position */
	size_t cached, cache_capacity;

	/* What SQLite was seen doing: the frame (+ 1) whose header it wrote and whose page is next, and
	 * the lowest frame whose page it overwrote since it last appended a frame with a checksum. */
	uint64_t appending;
	uint32_t overwritten;

	/* What the open transaction has appended: without a gap from the committed end up to here. */
	uint64_t append_end;
	uint64_t attempt; /* how many transactions have begun to append */

	/* What the last write was judged on: the header, and how much was committed. */
	bool before_valid;
	uint8_t before[WREP_WAL_HEADER_BYTES];
	uint32_t before_committed;

	/* The write that completed the transaction, and what to go back to when it is refused. */
	bool undecided, held_restart;
	uint8_t *held;
	size_t held_len, held_capacity;
	uint64_t reserved; /* the backing file has room up to here */
	uint64_t held_off, size_before;
	uint32_t held_committed; /* committed frames when it is agreed */
	struct wrep_wal_txn txn;
	size_t image_capacity;

	/* Committed frames by content: open addressing, frame number + 1, 0 is free. */
	uint32_t *index;
	size_t index_slots;
	uint32_t indexed;
};

/* A write, as the application issued it. */
struct write {
	const uint8_t *data;
	size_t len;
	uint64_t off;
};

static const struct write nothing = {.data = (const uint8_t *)"", .len = 0, .off = 0};

/* ---- small helpers ----------------------------------------------------------------------------- */

static uint64_t write_end(const struct write *w)
{
	return w->off + w->len;
}

static uint64_t frame_offset(const struct wrep_capture *c, uint64_t frame)
{
	return wrep_wal_frame_offset(c->header.page_size, frame);
}

static uint64_t committed_end(const struct wrep_capture *c)
{
	return c->committed > 0 ? frame_offset(c, c->committed) : 0;
}

/* Copy what `w` holds of [off, off + len) over `bytes`. */
static void overlay(uint8_t *bytes, uint64_t off, size_t len, const struct write *w)
{
	uint64_t from = w->off > off ? w->off : off;
	uint64_t to = write_end(w) < off + len ? write_end(w) : off + len;

	if (from < to)
		memcpy(bytes + (from - off), w->data + (from - w->off), (size_t)(to - from));
}

/* What is appended from here on is another transaction's. */
static void begin_appends(struct wrep_capture *c)
{
	c->append_end = c->header_valid ? frame_offset(c, c->committed) : 0;
	c->attempt++;
}

/* ---- the scan ---------------------------------------------------------------------------------- */

static void set_scan(struct wrep_capture *c, uint32_t frame)
{
	if (c->scanned != frame)
		c->cached = 0;
	c->scanned = frame;
}

/* Keep what `w` brings of the frame at the scan position, as long as the kept bytes have no gap. */
static int absorb(struct wrep_capture *c, const struct write *w)
{
	uint64_t start = frame_offset(c, c->scanned);
	size_t bytes = (size_t)wrep_wal_frame_bytes(c->header.page_size);
	uint64_t end = write_end(w) - start < bytes ? write_end(w) - start : bytes;
	int rc;

	if (write_end(w) <= start || w->off > start + c->cached || w->off >= start + bytes)
		return 0;
	rc = wrep_array_reserve(&c->cache, &c->cache_capacity, bytes, 1);
	if (rc != 0)
		return rc;
	overlay(c->cache, start, bytes, w);
	if (end > c->cached)
		c->cached = (size_t)end;
	return 0;
}

/* The bytes of the frame at the scan position, as they are once `w` is written. */
static int view_frame(struct wrep_capture *c, const struct write *w, const uint8_t **header,
		      const uint8_t **page)
{
	uint64_t start = frame_offset(c, c->scanned);
	size_t bytes = (size_t)wrep_wal_frame_bytes(c->header.page_size);
	uint64_t page_start = start + WREP_FRAME_HEADER_BYTES;
	bool page_in_write = w->off <= page_start && write_end(w) >= start + bytes;
	int rc;

	if (page_in_write && w->off <= start) {
		*header = w->data + (start - w->off);
		*page = w->data + (page_start - w->off);
		return 0;
	}
	if (page_in_write && w->off == page_start && c->cached >= WREP_FRAME_HEADER_BYTES) {
		*header = c->cache;
		*page = w->data;
		return 0;
	}
	rc = wrep_array_reserve(&c->cache, &c->cache_capacity, bytes, 1);
	if (rc == 0)
		rc = absorb(c, w);
	if (rc != 0)
		return rc;
	if (c->cached < bytes) {
		size_t rest = bytes - c->cached;
		ssize_t n = wrep_read_some(c->fd, c->cache + c->cached, rest, start + c->cached);

		if (n < 0)
			return -EIO;
		/* Behind the end of the file: what the write brings, and zeros in a hole before it. */
		memset(c->cache + c->cached + n, 0, rest - (size_t)n);
		overlay(c->cache, start, bytes, w);
		c->cached = bytes;
	}
	*header = c->cache;
	*page = c->cache + WREP_FRAME_HEADER_BYTES;
	return 0;
}

/* Move the scan over all valid frames. `*commits` becomes the number of frames up to and with the
 * last commit frame found, or stays. */
static int advance(struct wrep_capture *c, const struct write *w, uint32_t *commits)
{
	c->recheck = false;
	while (c->scanned < UINT32_MAX && frame_offset(c, (uint64_t)c->scanned + 1) <= c->size) {
		const uint32_t *before =
			c->scanned > 0 ? c->frames[c->scanned - 1].sum : c->header.sum;
		const uint8_t *header, *page;
		struct wrep_wal_frame parsed;
		struct frame *frame;
		int rc = view_frame(c, w, &header, &page);

		if (rc != 0)
			return rc;
		if (!wrep_wal_frame_parse(&c->header, before, header, page, &parsed))
			return 0;
		rc = wrep_array_reserve(&c->frames, &c->capacity, (size_t)c->scanned + 1,
					sizeof(*c->frames));
		if (rc != 0)
			return rc;
		frame = &c->frames[c->scanned];
		frame->pgno = parsed.pgno;
		frame->page_count = parsed.page_count;
		frame->sum[0] = parsed.sum[0];
		frame->sum[1] = parsed.sum[1];
		frame->hash = wrep_page_hash(parsed.pgno, page, c->header.page_size);
		set_scan(c, c->scanned + 1);
		if (parsed.page_count != 0)
			*commits = c->scanned;
	}
	return 0;
}

/* ---- generations and loading ------------------------------------------------------------------- */

static void drop_frames(struct wrep_capture *c)
{
	c->header_valid = false;
	c->scanned = c->committed = c->indexed = 0;
	c->cached = 0;
	c->recheck = false;
	if (c->index != NULL)
		memset(c->index, 0, c->index_slots * sizeof(*c->index));
	begin_appends(c);
}

/* Distrust everything: something failed half way. */
static void reset(struct wrep_capture *c)
{
	drop_frames(c);
	c->loaded = false;
	c->reserved = 0;
}

static void start_generation(struct wrep_capture *c, const uint8_t bytes[WREP_WAL_HEADER_BYTES],
			     const struct wrep_wal_header *header)
{
	drop_frames(c);
	c->header_valid = true;
	c->header = *header;
	memcpy(c->header_bytes, bytes, WREP_WAL_HEADER_BYTES);
	c->recheck = true; /* there may be frames in the file that it makes valid */
	begin_appends(c);
}

/* Is the last committed frame still where it was? Its checksum vouches for all before it. */
static bool committed_frames_remain(struct wrep_capture *c, const uint8_t *header_bytes)
{
	uint8_t bytes[WREP_FRAME_HEADER_BYTES], expected[WREP_FRAME_HEADER_BYTES];
	const struct frame *last;

	if (!c->header_valid || c->committed == 0 || c->size < committed_end(c) ||
	    memcmp(header_bytes, c->header_bytes, sizeof(c->header_bytes)) != 0)
		return false;
	last = &c->frames[c->committed - 1];
	if (wrep_read_exact(c->fd, bytes, sizeof(bytes), frame_offset(c, c->committed - 1)) != 0)
		return false;
	wrep_wal_frame_header(&c->header, last->pgno, last->page_count, last->sum, expected);
	return memcmp(bytes, expected, sizeof(bytes)) == 0;
}

/* Make the state agree with the backing file. */
static int load(struct wrep_capture *c)
{
	uint8_t bytes[WREP_WAL_HEADER_BYTES];
	struct wrep_wal_header header;
	uint32_t commits;
	struct stat st;
	ssize_t n;
	int rc;

	if (c->loaded)
		return 0;
	if (fstat(c->fd, &st) != 0)
		return -EIO;
	c->size = (uint64_t)st.st_size;
	n = wrep_read_some(c->fd, bytes, sizeof(bytes), 0);
	if (n < 0)
		return -EIO;
	if (n < (ssize_t)sizeof(bytes) || !wrep_wal_header_parse(bytes, &header)) {
		drop_frames(c);
		c->loaded = true;
		return 0;
	}
	if (committed_frames_remain(c, bytes)) {
		c->scanned = c->committed;
		c->cached = 0;
	} else {
		start_generation(c, bytes, &header);
	}
	commits = c->committed;
	rc = advance(c, &nothing, &commits);
	if (rc != 0) {
		reset(c);
		return rc;
	}
	c->committed = commits;
	c->loaded = true;
	begin_appends(c);
	return 0;
}

int wrep_capture_open(struct wrep_capture **out, int fd)
{
	struct wrep_capture *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return -ENOMEM;
	c->fd = fd;
	c->overwritten = UINT32_MAX;
	*out = c;
	return 0;
}

void wrep_capture_close(struct wrep_capture *c)
{
	if (c == NULL)
		return;
	free(c->frames);
	free(c->cache);
	free(c->held);
	free(c->txn.images);
	free(c->index);
	free(c);
}

void wrep_capture_forget(struct wrep_capture *c)
{
	assert(!c->undecided);
	c->loaded = false;
}

int wrep_capture_write_failed(struct wrep_capture *c, uint64_t off)
{
	uint64_t at = off;
	uint32_t expected = 0;
	uint8_t byte;
	int rc;

	assert(!c->undecided);
	reset(c);
	rc = load(c);
	if (rc != 0 || !c->header_valid)
		return rc;
	if (c->before_valid && memcmp(c->before, c->header_bytes, sizeof(c->before)) == 0)
		expected = c->before_committed;
	if (c->committed <= expected)
		return 0;
	/* A byte of the write itself: that of the header, or of the first frame that nobody has agreed on. */
	if (expected > 0 || at >= WREP_WAL_HEADER_BYTES)
		at = at > frame_offset(c, expected) ? at : frame_offset(c, expected);
	rc = wrep_read_exact(c->fd, &byte, 1, at);
	byte ^= 0xff;
	if (rc == 0)
		rc = wrep_write_all(c->fd, &byte, 1, at);
	reset(c);
	return rc;
}

/* ---- transactions ------------------------------------------------------------------------------ */

static int compare_images(const void *a, const void *b)
{
	const struct wrep_wal_image *x = a, *y = b;

	if (x->pgno != y->pgno)
		return x->pgno < y->pgno ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Are frames [committed, commits) the last committed one again? */
static bool repeats_last(const struct wrep_capture *c, uint32_t commits)
{
	const struct frame *last;

	if (c->committed == 0)
		return false;
	last = &c->frames[c->committed - 1];
	for (uint32_t i = c->committed; i < commits; i++) {
		const struct frame *frame = &c->frames[i];

		if (frame->pgno != last->pgno || frame->page_count != last->page_count ||
		    frame->hash != last->hash)
			return false;
	}
	return true;
}

/* The transaction that frames [committed, commits) make: the last image of each page that lies
 * within the database afterwards. When they hold several commit frames, it is one transaction that
 * leads to the last of them: they came into being with one write. */
static int build_txn(struct wrep_capture *c, uint32_t commits)
{
	struct wrep_wal_txn *txn = &c->txn;
	uint32_t lock_page = wrep_lock_page(c->header.page_size);
	bool ascending = true;
	uint32_t count = 0, kept = 0;
	int rc = wrep_array_reserve(&txn->images, &c->image_capacity, commits - c->committed,
				    sizeof(*txn->images));

	if (rc != 0)
		return rc;
	txn->page_size = c->header.page_size;
	txn->page_count = c->frames[commits - 1].page_count;
	txn->end = frame_offset(c, commits);
	for (uint32_t i = c->committed; i < commits; i++) {
		const struct frame *frame = &c->frames[i];
		struct wrep_wal_image *image = &txn->images[count];

		if (frame->pgno > txn->page_count || frame->pgno == lock_page)
			continue;
		image->pgno = frame->pgno;
		image->hash = frame->hash;
		image->offset = frame_offset(c, i) + WREP_FRAME_HEADER_BYTES;
		if (count > 0 && image->pgno <= txn->images[count - 1].pgno)
			ascending = false;
		count++;
	}
	if (!ascending) {
		qsort(txn->images, count, sizeof(*txn->images), compare_images);
		for (uint32_t i = 0; i < count; i++) {
			if (i + 1 < count && txn->images[i + 1].pgno == txn->images[i].pgno)
				continue;
			txn->images[kept++] = txn->images[i];
		}
		count = kept;
	}
	txn->image_count = count;
	txn->repeats = repeats_last(c, commits);
	return 0;
}

static int hold_back(struct wrep_capture *c, const struct write *w, uint32_t commits)
{
	int rc = wrep_array_reserve(&c->held, &c->held_capacity, w->len, 1);

	if (rc != 0)
		return rc;
	memcpy(c->held, w->data, w->len);
	c->held_len = w->len;
	c->held_off = w->off;
	c->held_committed = commits;
	c->undecided = true;
	return 0;
}

/* ---- writes ------------------------------------------------------------------------------------ */

/* The part of a write that lies below the committed end may only repeat what is there. A prepared
 * page whose last piece equalled what lay there before it counts as written before that piece comes. */
static int check_committed(const struct wrep_capture *c, const struct write *w)
{
	uint64_t end = committed_end(c) < write_end(w) ? committed_end(c) : write_end(w);
	uint8_t bytes[4096];

	for (uint64_t off = w->off; off < end;) {
		size_t part = end - off < sizeof(bytes) ? (size_t)(end - off) : sizeof(bytes);

		if (wrep_read_exact(c->fd, bytes, part, off) != 0)
			return -EIO;
		if (memcmp(bytes, w->data + (off - w->off), part) != 0)
			return -EPERM;
		off += part;
	}
	return 0;
}

/* A write into the header. 0: go on with the frames, or -EPERM, -EIO. `*restart`: a generation
 * starts. */
static int write_header(struct wrep_capture *c, const struct write *w, bool *restart)
{
	uint8_t bytes[WREP_WAL_HEADER_BYTES] = {0};
	struct wrep_wal_header header;
	bool valid;

	if ((w->off > 0 || w->len < sizeof(bytes)) &&
	    wrep_read_some(c->fd, bytes, sizeof(bytes), 0) < 0)
		return -EIO;
	overlay(bytes, 0, sizeof(bytes), w);
	valid = (write_end(w) >= sizeof(bytes) || c->size >= sizeof(bytes)) &&
		wrep_wal_header_parse(bytes, &header);
	if (c->committed > 0) {
		if (memcmp(bytes, c->header_bytes, sizeof(bytes)) == 0)
			return check_committed(c, w);
		/* Only a whole header ends the generation: a torn one would leave what is
		 * committed without the header that makes it readable. */
		if (!valid || w->off > 0 || w->len < sizeof(bytes))
			return -EPERM;
	}
	if (!valid) {
		drop_frames(c);
		return 0;
	}
	start_generation(c, bytes, &header);
	*restart = true;
	return 0;
}

/* Does the write change whether the frame at the scan position is valid? */
static bool concerns_scan(const struct wrep_capture *c, const struct write *w, uint64_t old_size)
{
	uint64_t start = frame_offset(c, c->scanned);
	uint64_t end = frame_offset(c, (uint64_t)c->scanned + 1);

	if (c->recheck)
		return true;
	if (w->off < end && write_end(w) > start)
		return true;
	/* A hole that the write leaves behind it makes the frame whole, too. */
	return old_size < end && c->size >= end;
}

static bool without_checksum(const uint8_t header[WREP_FRAME_HEADER_BYTES])
{
	static const uint8_t zeros[16];
	static const uint8_t no_page[4];

	return memcmp(header + 8, zeros, sizeof(zeros)) == 0 &&
	       memcmp(header, no_page, sizeof(no_page)) != 0;
}

static bool covers(const struct write *w, uint64_t off)
{
	return w->off <= off && off < write_end(w);
}

/* The page of a frame comes behind its header: it is appended. If it was there before, SQLite went back
 * (ROLLBACK TO), and if it is the first, the transaction begins anew or is another one. */
static void follow_append(struct wrep_capture *c, uint64_t frame)
{
	uint64_t page = frame_offset(c, frame) + WREP_FRAME_HEADER_BYTES;

	if (c->append_end <= page)
		return;
	if (frame <= c->committed)
		begin_appends(c);
	c->append_end = page;
}

/* Tell appended frames, a header and then its page, from pages overwritten in place. */
static void follow_overwrites(struct wrep_capture *c, const struct write *w, uint64_t first)
{
	for (uint64_t frame = first; frame_offset(c, frame) < write_end(w); frame++) {
		uint64_t start = frame_offset(c, frame);
		const uint8_t *header = NULL;

		if (covers(w, start))
			c->appending = frame + 1;
		if (!covers(w, start + WREP_FRAME_HEADER_BYTES))
			continue;
		if (c->appending != frame + 1) {
			if (frame < c->overwritten)
				c->overwritten = (uint32_t)frame;
			continue;
		}
		c->appending = 0;
		follow_append(c, frame);
		if (frame != c->scanned)
			continue;
		if (covers(w, start))
			header = w->data + (start - w->off);
		else if (c->cached >= WREP_FRAME_HEADER_BYTES)
			header = c->cache;
		if (header != NULL && !without_checksum(header))
			c->overwritten = UINT32_MAX;
	}
	if (w->off <= c->append_end && write_end(w) > c->append_end)
		c->append_end = write_end(w);
}

/* After a cache spill that overwrote a frame, SQLite appends frames without checksums and computes all
 * of them before it is done, from the lowest overwritten frame on. Older versions (3.40 is one)
 * forget, on ROLLBACK TO a savepoint before that frame, that there is nothing left to compute: they go
 * on appending without checksums below the overwritten frame, begin to compute only at it, and leave a
 * transaction that no recovery would ever find.
 *
 * -EBADMSG: this write completes the commit frame of such a transaction. */
static int check_checksums_will_come(struct wrep_capture *c, const struct write *w)
{
	uint64_t bytes = wrep_wal_frame_bytes(c->header.page_size);
	uint8_t header[WREP_FRAME_HEADER_BYTES];
	uint64_t frame = c->scanned;

	if (c->cached < sizeof(header) || !without_checksum(c->cache) ||
	    c->overwritten <= c->scanned)
		return 0;
	if (w->off > frame_offset(c, frame))
		frame = (w->off - WREP_WAL_HEADER_BYTES) / bytes;
	for (; frame_offset(c, frame + 1) <= write_end(w); frame++) {
		static const uint8_t no_commit[4];

		memset(header, 0, sizeof(header));
		if (frame == c->scanned)
			memcpy(header, c->cache, sizeof(header));
		else if (wrep_read_some(c->fd, header, sizeof(header), frame_offset(c, frame)) < 0)
			return -EIO;
		overlay(header, frame_offset(c, frame), sizeof(header), w);
		if (without_checksum(header) && memcmp(header + 4, no_commit, 4) != 0)
			return -EBADMSG;
	}
	return 0;
}

/* The frames in the write, from `from` on. Sets `*commits` when a transaction is complete. */
static int write_frames(struct wrep_capture *c, const struct write *w, uint64_t old_size,
			uint32_t *commits)
{
	uint64_t from = w->off > committed_end(c) ? w->off : committed_end(c);
	uint64_t first = 0;
	int rc = 0;

	if (from > WREP_WAL_HEADER_BYTES)
		first = (from - WREP_WAL_HEADER_BYTES) / wrep_wal_frame_bytes(c->header.page_size);
	if (first < c->scanned)
		set_scan(c, (uint32_t)first);
	follow_overwrites(c, w, first);
	if (concerns_scan(c, w, old_size))
		rc = advance(c, w, commits);
	if (rc == 0)
		rc = absorb(c, w);
	return rc != 0 || *commits > c->committed ? rc : check_checksums_will_come(c, w);
}

/* All of wrep_capture_write() but its cleanup: on an error the state is no longer to be trusted,
 * except where it is -EPERM. */
static int judge(struct wrep_capture *c, const struct write *w, const struct wrep_wal_txn **txn)
{
	uint64_t old_size = c->size;
	bool restart = false;
	uint32_t commits;
	int rc = 0;

	if (w->off < WREP_WAL_HEADER_BYTES)
		rc = write_header(c, w, &restart);
	else if (w->off < committed_end(c))
		rc = check_committed(c, w);
	if (rc != 0)
		return rc;
	if (c->size < write_end(w))
		c->size = write_end(w);
	if (!c->header_valid || write_end(w) <= committed_end(c))
		return 0;
	commits = c->committed;
	rc = write_frames(c, w, old_size, &commits);
	if (rc != 0)
		return rc;
	if (commits == c->committed)
		return 0;
	rc = build_txn(c, commits);
	if (rc != 0)
		return rc;
	c->held_restart = restart;
	c->size_before = old_size;
	rc = hold_back(c, w, commits);
	if (rc != 0)
		return rc;
	*txn = &c->txn;
	return 1;
}

int wrep_capture_write(struct wrep_capture *c, const void *buf, size_t len, uint64_t off,
		       const struct wrep_wal_txn **txn)
{
	struct write w = {.data = buf, .len = len, .off = off};
	int rc;

	if (c->undecided)
		return -EBUSY;
	if (len == 0)
		return 0;
	if (off > INT64_MAX || len > INT64_MAX - off)
		return -EFBIG;
	rc = load(c);
	if (rc != 0)
		return rc;
	c->before_valid = c->header_valid;
	memcpy(c->before, c->header_bytes, sizeof(c->before));
	c->before_committed = c->committed;
	rc = judge(c, &w, txn);
	if (rc < 0 && rc != -EPERM)
		reset(c);
	return rc;
}

uint64_t wrep_capture_uncommitted(struct wrep_capture *c, size_t len, uint64_t off)
{
	if (load(c) != 0 || off + len <= committed_end(c))
		return 0;
	return off + len - committed_end(c);
}

uint64_t wrep_capture_appended(const struct wrep_capture *c, uint32_t *first, uint32_t *count,
			       uint32_t *page_size)
{
	uint64_t bytes = 0;

	*first = c->committed;
	*page_size = c->header.page_size;
	if (c->loaded && c->header_valid && c->append_end > frame_offset(c, c->committed))
		bytes = c->append_end - frame_offset(c, c->committed);
	*count = bytes ? (uint32_t)(bytes / wrep_wal_frame_bytes(c->header.page_size)) : 0;
	return c->attempt;
}

int wrep_capture_read_frames(const struct wrep_capture *c, uint32_t first, uint32_t count,
			     void *bytes)
{
	return wrep_read_exact(c->fd, bytes,
			       count * (size_t)wrep_wal_frame_bytes(c->header.page_size),
			       frame_offset(c, first));
}

uint32_t wrep_capture_frame_pgno(const struct wrep_capture *c, const uint8_t *header)
{
	uint32_t pgno = wrep_get_be32(header);

	return without_checksum(header) || memcmp(header + 8, c->header.salt, 8) == 0 ? pgno : 0;
}

/* Behind the end of the file lies the hole that the write leaves. */
static int read_or_zeros(int fd, uint8_t *bytes, size_t len, uint64_t off)
{
	ssize_t n = wrep_read_some(fd, bytes, len, off);

	if (n < 0)
		return (int)n;
	memset(bytes + n, 0, len - (size_t)n);
	return 0;
}

int wrep_capture_image(struct wrep_capture *c, const struct wrep_wal_image *image, void *page)
{
	struct write held = {.data = c->held, .len = c->held_len, .off = c->held_off};
	uint64_t start = image->offset;
	uint64_t end = start + c->header.page_size;
	uint64_t from = held.off > start ? held.off : start;
	uint64_t to = write_end(&held) < end ? write_end(&held) : end;
	uint8_t *bytes = page;
	int rc = 0;

	assert(c->undecided);
	if (from >= to)
		return read_or_zeros(c->fd, page, c->header.page_size, start);
	if (start < from)
		rc = read_or_zeros(c->fd, bytes, (size_t)(from - start), start);
	if (rc == 0 && to < end)
		rc = read_or_zeros(c->fd, bytes + (to - start), (size_t)(end - to), to);
	overlay(bytes, start, c->header.page_size, &held);
	return rc;
}

int wrep_capture_reserve(struct wrep_capture *c)
{
	const uint64_t end = c->held_off + c->held_len;

	assert(c->undecided);
	if (end <= c->reserved || end <= c->size_before)
		return 0;
	/* Some more, so that the next ones find it done. A file system that cannot do this is asked
	 * again each time. */
	if (fallocate(c->fd, FALLOC_FL_KEEP_SIZE, (off_t)c->held_off,
		      (off_t)(c->held_len + RESERVE_BYTES)) == 0) {
		c->reserved = end + RESERVE_BYTES;
		return 0;
	}
	if (fallocate(c->fd, FALLOC_FL_KEEP_SIZE, (off_t)c->held_off, (off_t)c->held_len) == 0)
		return 0;
	return errno == ENOSPC || errno == EDQUOT ? -ENOSPC : 0;
}

int wrep_capture_committed(struct wrep_capture *c)
{
	int rc;

	assert(c->undecided);
	rc = wrep_write_all(c->fd, c->held, c->held_len, c->held_off);
	if (rc == -ENOSPC || rc == -EDQUOT)
		return -ENOSPC;
	c->undecided = false;
	if (rc != 0) {
		reset(c);
		return rc;
	}
	c->committed = c->held_committed;
	begin_appends(c);
	return 0;
}

void wrep_capture_refused(struct wrep_capture *c)
{
	/* The write, or the hole in front of it. */
	uint64_t from = c->held_off < c->size_before ? c->held_off : c->size_before;
	uint64_t first = 0;

	assert(c->undecided);
	c->undecided = false;
	if (c->held_restart) {
		reset(c); /* the former generation is still in the backing file */
		return;
	}
	c->size = c->size_before;
	c->cached = 0;
	if (from > WREP_WAL_HEADER_BYTES)
		first = (from - WREP_WAL_HEADER_BYTES) / wrep_wal_frame_bytes(c->header.page_size);
	if (first < c->committed)
		first = c->committed;
	if (first < c->scanned)
		set_scan(c, (uint32_t)first);
	/* What the write would have overwritten may have been valid before. */
	c->recheck = true;
	begin_appends(c);
}

int wrep_capture_truncate(struct wrep_capture *c, uint64_t size)
{
	uint64_t old_size;
	uint32_t commits;
	int rc;

	if (c->undecided)
		return -EBUSY;
	rc = load(c);
	if (rc != 0)
		return rc;
	if (size != 0 && size < committed_end(c))
		return -EPERM;
	if (size < c->reserved)
		c->reserved = size;
	old_size = c->size;
	c->size = size;
	if (size < c->append_end)
		begin_appends(c);
	if (size < WREP_WAL_HEADER_BYTES) {
		drop_frames(c);
		return 0;
	}
	if (!c->header_valid)
		return 0;
	if (frame_offset(c, c->scanned) > size)
		set_scan(c, (uint32_t)((size - WREP_WAL_HEADER_BYTES) /
				       wrep_wal_frame_bytes(c->header.page_size)));
	if (size < old_size) {
		c->cached = 0;
		return 0;
	}
	/* Longer: zeros. They may not be what a frame was waiting for, since this call cannot wait. */
	commits = c->committed;
	rc = advance(c, &nothing, &commits);
	if (rc == 0 && commits > c->committed)
		rc = -EPERM;
	if (rc != 0)
		reset(c);
	return rc;
}

/* ---- what is committed ------------------------------------------------------------------------- */

int wrep_capture_position(struct wrep_capture *c, struct wrep_wal_position *out)
{
	int rc = load(c);

	memset(out, 0, sizeof(*out));
	if (rc != 0)
		return rc;
	if (c->header_valid) {
		out->frame_count = c->committed;
		out->page_size = c->header.page_size;
		memcpy(out->salt, c->header.salt, sizeof(out->salt));
	}
	return 0;
}

static size_t index_slot(const struct wrep_capture *c, uint32_t pgno, uint64_t hash)
{
	/* The hash is well mixed; the page number is its seed. */
	return (size_t)((hash ^ (uint64_t)pgno * UINT64_C(0x9e3779b97f4a7c15)) &
			(c->index_slots - 1));
}

static void index_frame(struct wrep_capture *c, uint32_t frame)
{
	const struct frame *f = &c->frames[frame];
	size_t slot = index_slot(c, f->pgno, f->hash);

	while (c->index[slot] != 0) {
		const struct frame *g = &c->frames[c->index[slot] - 1];

		if (g->pgno == f->pgno && g->hash == f->hash)
			return;
		slot = (slot + 1) & (c->index_slots - 1);
	}
	c->index[slot] = frame + 1;
}

/* Index the frames committed since the last time. */
static int index_frames(struct wrep_capture *c)
{
	if ((size_t)c->committed * 2 >= c->index_slots) {
		size_t slots = 1024;
		uint32_t *index;

		while (slots < (size_t)c->committed * 4)
			slots *= 2;
		index = calloc(slots, sizeof(*index));
		if (index == NULL)
			return -ENOMEM;
		free(c->index);
		c->index = index;
		c->index_slots = slots;
		c->indexed = 0;
	}
	for (; c->indexed < c->committed; c->indexed++)
		index_frame(c, c->indexed);
	return 0;
}

/* Which image of a page is the newest is for the -wal to say, not for the replicated state: where the
 * files lag, that is ahead, and may be back at the content of an older frame. */
bool wrep_capture_copied(struct wrep_capture *c, int db_fd, const struct wrep_pagesum *sum)
{
	bool copied = true;
	uint32_t page_size, page_count;
	uint8_t *page, *seen;

	if (load(c) != 0)
		return false;
	if (c->committed == 0 || sum->page_size != c->header.page_size)
		return true; /* an emptied database, or one of another page size: nothing of it counts */
	page_size = c->header.page_size;
	page_count = c->frames[c->committed - 1].page_count;
	page = malloc(page_size);
	seen = calloc(page_count / 8 + 1, 1);
	if (page == NULL || seen == NULL)
		copied = false;
	for (uint32_t i = c->committed; i > 0 && copied; i--) {
		const struct frame *f = &c->frames[i - 1];
		uint8_t bit = (uint8_t)(1u << f->pgno % 8);

		if (f->pgno > page_count || (seen[f->pgno / 8] & bit))
			continue; /* cut off, or not the newest */
		seen[f->pgno / 8] |= bit;
		copied = wrep_read_exact(db_fd, page, page_size,
					 (uint64_t)(f->pgno - 1) * page_size) == 0 &&
			 wrep_page_hash(f->pgno, page, page_size) == f->hash;
	}
	free(page);
	free(seen);
	return copied;
}

int wrep_capture_find(struct wrep_capture *c, uint32_t page_size, const uint32_t *pgno,
		      uint32_t count, uint64_t *offset)
{
	int rc = load(c);

	memset(offset, 0, count * sizeof(*offset));
	if (rc != 0 || c->committed == 0 || c->header.page_size != page_size)
		return rc;
	for (uint32_t i = 0; i < c->committed; i++)
		for (uint32_t k = 0; k < count; k++)
			if (c->frames[i].pgno == pgno[k])
				offset[k] = wrep_wal_frame_offset(page_size, i) +
					    WREP_FRAME_HEADER_BYTES;
	return 0;
}

bool wrep_capture_holds(struct wrep_capture *c, uint32_t pgno, uint64_t hash)
{
	size_t slot;

	if (load(c) != 0 || c->committed == 0)
		return false;
	if (index_frames(c) != 0) {
		for (uint32_t i = 0; i < c->committed; i++)
			if (c->frames[i].pgno == pgno && c->frames[i].hash == hash)
				return true;
		return false;
	}
	for (slot = index_slot(c, pgno, hash); c->index[slot] != 0;
	     slot = (slot + 1) & (c->index_slots - 1)) {
		const struct frame *f = &c->frames[c->index[slot] - 1];

		if (f->pgno == pgno && f->hash == hash)
			return true;
	}
	return false;
}

bool wrep_capture_fits(struct wrep_capture *c, uint32_t page_count)
{
	if (load(c) != 0)
		return false;
	for (uint32_t i = c->committed; i > 0; i--)
		if (c->frames[i - 1].page_count != 0 && c->frames[i - 1].page_count <= page_count)
			return true;
	return false;
}
