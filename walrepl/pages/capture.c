/* Judges each write to a -wal: does it complete a transaction?
 *
 * The good case: SQLite appends frames, each as a 24-byte header and a page. The chain (wal_chain.h) knows
 * where the next frame belongs, the scan position, and the running checksum there. A write that makes the
 * frame at the scan position whole and valid moves the scan on; a frame that names a database size makes it
 * a transaction, and that write is held back.
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
 * that starts a new generation at offset 0. A refused write changes nothing: the scan goes back to the
 * first byte that the write would have changed, the hole included. And where a write was let through, but
 * only a part of it got into the file (a full disk), that part was never judged: what follows the committed
 * end is judged then, and made invalid if it completes something (wrep_capture_write_failed()).
 *
 * Memory: the chain, the held-back write, and the image list of the undecided transaction.
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
#include "pages/capture_state.h"
#include "pages/wal_chain.h"
#include "sqlite/file_format.h"

#define RESERVE_BYTES (256u << 10) /* of room in the backing file, ahead */

/* ---- what is appended ------------------------------------------------------------------------- */

/* How often the chain has changed by itself: then nothing of what it holds now has been seen appended. */
static uint64_t chain_changes(const struct wrep_capture *c)
{
	return c->chain.drops + c->chain.loads;
}

static uint64_t append_start(const struct wrep_capture *c)
{
	return c->chain.header_valid ? wrep_wal_chain_offset(&c->chain, c->chain.committed) : 0;
}

/* Nothing is seen appended to the chain as it is now. */
static void follow_chain(struct wrep_capture *c)
{
	if (c->append_changes == chain_changes(c))
		return;
	c->append_changes = chain_changes(c);
	c->append_end = append_start(c);
}

/* The frames appended from here on are another transaction's. */
static void begin_appends(struct wrep_capture *c)
{
	c->append_changes = chain_changes(c);
	c->append_end = append_start(c);
	c->attempt++;
}

/* ---- opening, and what went wrong -------------------------------------------------------------- */

int wrep_capture_open(struct wrep_capture **out, int fd)
{
	struct wrep_capture *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return -ENOMEM;
	c->chain.fd = fd;
	c->overwritten = UINT32_MAX;
	*out = c;
	return 0;
}

void wrep_capture_close(struct wrep_capture *c)
{
	if (c == NULL)
		return;
	wrep_wal_chain_close(&c->chain);
	free(c->held);
	free(c->txn.images);
	free(c->content.slots);
	free(c);
}

void wrep_capture_forget(struct wrep_capture *c)
{
	assert(!c->undecided);
	c->chain.loaded = false;
}

int wrep_capture_write_failed(struct wrep_capture *c, uint64_t off)
{
	uint64_t at = off;
	uint32_t expected = 0;
	uint8_t byte;
	int rc;

	assert(!c->undecided);
	wrep_wal_chain_reset(&c->chain);
	rc = wrep_wal_chain_load(&c->chain);
	if (rc != 0 || !c->chain.header_valid)
		return rc;
	if (c->before_valid && memcmp(c->before, c->chain.header_bytes, sizeof(c->before)) == 0)
		expected = c->before_committed;
	if (c->chain.committed <= expected)
		return 0;
	/* A byte of the write itself: that of the header, or of the first frame that nobody has agreed on. */
	if (expected > 0 || at >= WREP_WAL_HEADER_BYTES)
		at = at > wrep_wal_chain_offset(&c->chain, expected)
			     ? at
			     : wrep_wal_chain_offset(&c->chain, expected);
	rc = wrep_read_exact(c->chain.fd, &byte, 1, at);
	byte ^= 0xff;
	if (rc == 0)
		rc = wrep_write_all(c->chain.fd, &byte, 1, at);
	wrep_wal_chain_reset(&c->chain);
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
	const struct wrep_wal_chain_frame *last;

	if (c->chain.committed == 0)
		return false;
	last = &c->chain.frames[c->chain.committed - 1];
	for (uint32_t i = c->chain.committed; i < commits; i++) {
		const struct wrep_wal_chain_frame *frame = &c->chain.frames[i];

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
	uint32_t lock_page = wrep_lock_page(c->chain.header.page_size);
	bool ascending = true;
	uint32_t count = 0, kept = 0;
	int rc = wrep_array_reserve(&txn->images, &c->image_capacity, commits - c->chain.committed,
				    sizeof(*txn->images));

	if (rc != 0)
		return rc;
	txn->page_size = c->chain.header.page_size;
	txn->page_count = c->chain.frames[commits - 1].page_count;
	txn->end = wrep_wal_chain_offset(&c->chain, commits);
	for (uint32_t i = c->chain.committed; i < commits; i++) {
		const struct wrep_wal_chain_frame *frame = &c->chain.frames[i];
		struct wrep_wal_image *image = &txn->images[count];

		if (frame->pgno > txn->page_count || frame->pgno == lock_page)
			continue;
		image->pgno = frame->pgno;
		image->hash = frame->hash;
		image->offset = wrep_wal_chain_offset(&c->chain, i) + WREP_FRAME_HEADER_BYTES;
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

static int hold_back(struct wrep_capture *c, const struct wrep_wal_write *w, uint32_t commits)
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
static int check_committed(const struct wrep_capture *c, const struct wrep_wal_write *w)
{
	uint64_t end = wrep_wal_chain_committed_end(&c->chain) < wrep_wal_write_end(w)
			       ? wrep_wal_chain_committed_end(&c->chain)
			       : wrep_wal_write_end(w);
	uint8_t bytes[4096];

	for (uint64_t off = w->off; off < end;) {
		size_t part = end - off < sizeof(bytes) ? (size_t)(end - off) : sizeof(bytes);

		if (wrep_read_exact(c->chain.fd, bytes, part, off) != 0)
			return -EIO;
		if (memcmp(bytes, w->data + (off - w->off), part) != 0)
			return -EPERM;
		off += part;
	}
	return 0;
}

/* A write into the header. 0: go on with the frames, or -EPERM, -EIO. `*restart`: a generation
 * starts. */
static int write_header(struct wrep_capture *c, const struct wrep_wal_write *w, bool *restart)
{
	uint8_t bytes[WREP_WAL_HEADER_BYTES] = {0};
	struct wrep_wal_header header;
	bool valid;

	if ((w->off > 0 || w->len < sizeof(bytes)) &&
	    wrep_read_some(c->chain.fd, bytes, sizeof(bytes), 0) < 0)
		return -EIO;
	wrep_wal_write_overlay(w, bytes, 0, sizeof(bytes));
	valid = (wrep_wal_write_end(w) >= sizeof(bytes) || c->chain.size >= sizeof(bytes)) &&
		wrep_wal_header_parse(bytes, &header);
	if (c->chain.committed > 0) {
		if (memcmp(bytes, c->chain.header_bytes, sizeof(bytes)) == 0)
			return check_committed(c, w);
		/* Only a whole header ends the generation: a torn one would leave what is
		 * committed without the header that makes it readable. */
		if (!valid || w->off > 0 || w->len < sizeof(bytes))
			return -EPERM;
	}
	if (!valid) {
		wrep_wal_chain_drop_frames(&c->chain);
		return 0;
	}
	wrep_wal_chain_start_generation(&c->chain, bytes, &header);
	*restart = true;
	return 0;
}

/* Does the write change whether the frame at the scan position is valid? */
static bool concerns_scan(const struct wrep_capture *c, const struct wrep_wal_write *w,
			  uint64_t old_size)
{
	uint64_t start = wrep_wal_chain_offset(&c->chain, c->chain.scanned);
	uint64_t end = wrep_wal_chain_offset(&c->chain, (uint64_t)c->chain.scanned + 1);

	if (c->chain.recheck)
		return true;
	if (w->off < end && wrep_wal_write_end(w) > start)
		return true;
	/* A hole that the write leaves behind it makes the frame whole, too. */
	return old_size < end && c->chain.size >= end;
}

static bool without_checksum(const uint8_t header[WREP_FRAME_HEADER_BYTES])
{
	static const uint8_t zeros[16];
	static const uint8_t no_page[4];

	return memcmp(header + 8, zeros, sizeof(zeros)) == 0 &&
	       memcmp(header, no_page, sizeof(no_page)) != 0;
}

static bool covers(const struct wrep_wal_write *w, uint64_t off)
{
	return w->off <= off && off < wrep_wal_write_end(w);
}

/* The page of a frame comes behind its header: it is appended. If it was there before, SQLite went back
 * (ROLLBACK TO), and if it is the first, the transaction begins anew or is another one. */
static void follow_append(struct wrep_capture *c, uint64_t frame)
{
	uint64_t page = wrep_wal_chain_offset(&c->chain, frame) + WREP_FRAME_HEADER_BYTES;

	if (c->append_end <= page)
		return;
	if (frame <= c->chain.committed)
		begin_appends(c);
	c->append_end = page;
}

/* Tell appended frames, a header and then its page, from pages overwritten in place. */
static void follow_overwrites(struct wrep_capture *c, const struct wrep_wal_write *w,
			      uint64_t first)
{
	follow_chain(c);
	for (uint64_t frame = first;
	     wrep_wal_chain_offset(&c->chain, frame) < wrep_wal_write_end(w); frame++) {
		uint64_t start = wrep_wal_chain_offset(&c->chain, frame);
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
		if (frame != c->chain.scanned)
			continue;
		if (covers(w, start))
			header = w->data + (start - w->off);
		else if (c->chain.cached >= WREP_FRAME_HEADER_BYTES)
			header = c->chain.cache;
		if (header != NULL && !without_checksum(header))
			c->overwritten = UINT32_MAX;
	}
	if (w->off <= c->append_end && wrep_wal_write_end(w) > c->append_end)
		c->append_end = wrep_wal_write_end(w);
}

/* After a cache spill that overwrote a frame, SQLite appends frames without checksums and computes all
 * of them before it is done, from the lowest overwritten frame on. Older versions (3.40 is one)
 * forget, on ROLLBACK TO a savepoint before that frame, that there is nothing left to compute: they go
 * on appending without checksums below the overwritten frame, begin to compute only at it, and leave a
 * transaction that no recovery would ever find.
 *
 * -EBADMSG: this write completes the commit frame of such a transaction. */
static int check_checksums_will_come(struct wrep_capture *c, const struct wrep_wal_write *w)
{
	uint64_t bytes = wrep_wal_frame_bytes(c->chain.header.page_size);
	uint8_t header[WREP_FRAME_HEADER_BYTES];
	uint64_t frame = c->chain.scanned;

	if (c->chain.cached < sizeof(header) || !without_checksum(c->chain.cache) ||
	    c->overwritten <= c->chain.scanned)
		return 0;
	if (w->off > wrep_wal_chain_offset(&c->chain, frame))
		frame = (w->off - WREP_WAL_HEADER_BYTES) / bytes;
	for (; wrep_wal_chain_offset(&c->chain, frame + 1) <= wrep_wal_write_end(w); frame++) {
		static const uint8_t no_commit[4];

		memset(header, 0, sizeof(header));
		if (frame == c->chain.scanned)
			memcpy(header, c->chain.cache, sizeof(header));
		else if (wrep_read_some(c->chain.fd, header, sizeof(header),
					wrep_wal_chain_offset(&c->chain, frame)) < 0)
			return -EIO;
		wrep_wal_write_overlay(w, header, wrep_wal_chain_offset(&c->chain, frame),
				       sizeof(header));
		if (without_checksum(header) && memcmp(header + 4, no_commit, 4) != 0)
			return -EBADMSG;
	}
	return 0;
}

/* The frames in the write, from `from` on. Sets `*commits` when a transaction is complete. */
static int write_frames(struct wrep_capture *c, const struct wrep_wal_write *w, uint64_t old_size,
			uint32_t *commits)
{
	uint64_t from = w->off > wrep_wal_chain_committed_end(&c->chain)
				? w->off
				: wrep_wal_chain_committed_end(&c->chain);
	uint64_t first = 0;
	int rc = 0;

	if (from > WREP_WAL_HEADER_BYTES)
		first = (from - WREP_WAL_HEADER_BYTES) /
			wrep_wal_frame_bytes(c->chain.header.page_size);
	if (first < c->chain.scanned)
		wrep_wal_chain_set_scan(&c->chain, (uint32_t)first);
	follow_overwrites(c, w, first);
	if (concerns_scan(c, w, old_size))
		rc = wrep_wal_chain_advance(&c->chain, w, commits);
	if (rc == 0)
		rc = wrep_wal_chain_absorb(&c->chain, w);
	return rc != 0 || *commits > c->chain.committed ? rc : check_checksums_will_come(c, w);
}

/* All of wrep_capture_write() but its cleanup: on an error the state is no longer to be trusted,
 * except where it is -EPERM. */
static int judge(struct wrep_capture *c, const struct wrep_wal_write *w,
		 const struct wrep_wal_txn **txn)
{
	uint64_t old_size = c->chain.size;
	bool restart = false;
	uint32_t commits;
	int rc = 0;

	if (w->off < WREP_WAL_HEADER_BYTES)
		rc = write_header(c, w, &restart);
	else if (w->off < wrep_wal_chain_committed_end(&c->chain))
		rc = check_committed(c, w);
	if (rc != 0)
		return rc;
	if (c->chain.size < wrep_wal_write_end(w))
		c->chain.size = wrep_wal_write_end(w);
	if (!c->chain.header_valid ||
	    wrep_wal_write_end(w) <= wrep_wal_chain_committed_end(&c->chain))
		return 0;
	commits = c->chain.committed;
	rc = write_frames(c, w, old_size, &commits);
	if (rc != 0)
		return rc;
	if (commits == c->chain.committed)
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
	struct wrep_wal_write w = {.data = buf, .len = len, .off = off};
	int rc;

	if (c->undecided)
		return -EBUSY;
	if (len == 0)
		return 0;
	if (off > INT64_MAX || len > INT64_MAX - off)
		return -EFBIG;
	rc = wrep_wal_chain_load(&c->chain);
	if (rc != 0)
		return rc;
	c->before_valid = c->chain.header_valid;
	memcpy(c->before, c->chain.header_bytes, sizeof(c->before));
	c->before_committed = c->chain.committed;
	rc = judge(c, &w, txn);
	if (rc < 0 && rc != -EPERM)
		wrep_wal_chain_reset(&c->chain);
	return rc;
}

uint64_t wrep_capture_uncommitted(struct wrep_capture *c, size_t len, uint64_t off)
{
	if (wrep_wal_chain_load(&c->chain) != 0 ||
	    off + len <= wrep_wal_chain_committed_end(&c->chain))
		return 0;
	return off + len - wrep_wal_chain_committed_end(&c->chain);
}

uint64_t wrep_capture_appended(const struct wrep_capture *c, uint32_t *first, uint32_t *count,
			       uint32_t *page_size)
{
	uint64_t bytes = 0;

	*first = c->chain.committed;
	*page_size = c->chain.header.page_size;
	if (c->append_changes == chain_changes(c) && c->chain.loaded && c->chain.header_valid &&
	    c->append_end > wrep_wal_chain_offset(&c->chain, c->chain.committed))
		bytes = c->append_end - wrep_wal_chain_offset(&c->chain, c->chain.committed);
	*count = bytes ? (uint32_t)(bytes / wrep_wal_frame_bytes(c->chain.header.page_size)) : 0;
	return c->attempt + chain_changes(c);
}

int wrep_capture_read_frames(const struct wrep_capture *c, uint32_t first, uint32_t count,
			     void *bytes)
{
	return wrep_read_exact(c->chain.fd, bytes,
			       count * (size_t)wrep_wal_frame_bytes(c->chain.header.page_size),
			       wrep_wal_chain_offset(&c->chain, first));
}

uint32_t wrep_capture_frame_pgno(const struct wrep_capture *c, const uint8_t *header)
{
	uint32_t pgno = wrep_get_be32(header);

	return without_checksum(header) || memcmp(header + 8, c->chain.header.salt, 8) == 0 ? pgno
											    : 0;
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
	struct wrep_wal_write held = {.data = c->held, .len = c->held_len, .off = c->held_off};
	uint64_t start = image->offset;
	uint64_t end = start + c->chain.header.page_size;
	uint64_t from = held.off > start ? held.off : start;
	uint64_t to = wrep_wal_write_end(&held) < end ? wrep_wal_write_end(&held) : end;
	uint8_t *bytes = page;
	int rc = 0;

	assert(c->undecided);
	if (from >= to)
		return read_or_zeros(c->chain.fd, page, c->chain.header.page_size, start);
	if (start < from)
		rc = read_or_zeros(c->chain.fd, bytes, (size_t)(from - start), start);
	if (rc == 0 && to < end)
		rc = read_or_zeros(c->chain.fd, bytes + (to - start), (size_t)(end - to), to);
	wrep_wal_write_overlay(&held, bytes, start, c->chain.header.page_size);
	return rc;
}

int wrep_capture_reserve(struct wrep_capture *c)
{
	const uint64_t end = c->held_off + c->held_len;

	assert(c->undecided);
	if (c->reserved_resets != c->chain.resets) {
		c->reserved_resets = c->chain.resets;
		c->reserved = 0;
	}
	if (end <= c->reserved || end <= c->size_before)
		return 0;
	/* Some more, so that the next ones find it done. A file system that cannot do this is asked
	 * again each time. */
	if (fallocate(c->chain.fd, FALLOC_FL_KEEP_SIZE, (off_t)c->held_off,
		      (off_t)(c->held_len + RESERVE_BYTES)) == 0) {
		c->reserved = end + RESERVE_BYTES;
		return 0;
	}
	if (fallocate(c->chain.fd, FALLOC_FL_KEEP_SIZE, (off_t)c->held_off, (off_t)c->held_len) ==
	    0)
		return 0;
	return errno == ENOSPC || errno == EDQUOT ? -ENOSPC : 0;
}

int wrep_capture_committed(struct wrep_capture *c)
{
	int rc;

	assert(c->undecided);
	rc = wrep_write_all(c->chain.fd, c->held, c->held_len, c->held_off);
	if (rc == -ENOSPC || rc == -EDQUOT)
		return -ENOSPC;
	c->undecided = false;
	if (rc != 0) {
		wrep_wal_chain_reset(&c->chain);
		return rc;
	}
	c->chain.committed = c->held_committed;
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
		wrep_wal_chain_reset(
			&c->chain); /* the former generation is still in the backing file */
		return;
	}
	c->chain.size = c->size_before;
	c->chain.cached = 0;
	if (from > WREP_WAL_HEADER_BYTES)
		first = (from - WREP_WAL_HEADER_BYTES) /
			wrep_wal_frame_bytes(c->chain.header.page_size);
	if (first < c->chain.committed)
		first = c->chain.committed;
	if (first < c->chain.scanned)
		wrep_wal_chain_set_scan(&c->chain, (uint32_t)first);
	/* The frame that the write would have overwritten may have been valid before. */
	c->chain.recheck = true;
	begin_appends(c);
}

int wrep_capture_truncate(struct wrep_capture *c, uint64_t size)
{
	uint64_t old_size;
	uint32_t commits;
	int rc;

	if (c->undecided)
		return -EBUSY;
	rc = wrep_wal_chain_load(&c->chain);
	if (rc != 0)
		return rc;
	if (size != 0 && size < wrep_wal_chain_committed_end(&c->chain))
		return -EPERM;
	if (size < c->reserved)
		c->reserved = size;
	old_size = c->chain.size;
	c->chain.size = size;
	follow_chain(c);
	if (size < c->append_end)
		begin_appends(c);
	if (size < WREP_WAL_HEADER_BYTES) {
		wrep_wal_chain_drop_frames(&c->chain);
		return 0;
	}
	if (!c->chain.header_valid)
		return 0;
	if (wrep_wal_chain_offset(&c->chain, c->chain.scanned) > size)
		wrep_wal_chain_set_scan(&c->chain, (uint32_t)((size - WREP_WAL_HEADER_BYTES) /
							      wrep_wal_frame_bytes(
								      c->chain.header.page_size)));
	if (size < old_size) {
		c->chain.cached = 0;
		return 0;
	}
	/* Longer: zeros. They may not be what a frame was waiting for, since this call cannot wait. */
	commits = c->chain.committed;
	rc = wrep_wal_chain_advance(&c->chain, &wrep_wal_write_nothing, &commits);
	if (rc == 0 && commits > c->chain.committed)
		rc = -EPERM;
	if (rc != 0)
		wrep_wal_chain_reset(&c->chain);
	return rc;
}
