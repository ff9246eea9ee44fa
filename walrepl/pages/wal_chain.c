/* Follows the chain of frame checksums in a -wal while it is being written.
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
 * Memory: 24 bytes per frame, and one frame.
 */
#include "pages/wal_chain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/array.h"
#include "base/io.h"
#include "pages/pagesum.h"

const struct wrep_wal_write wrep_wal_write_nothing = {.data = (const uint8_t *)"",
						      .len = 0,
						      .off = 0};

void wrep_wal_write_overlay(const struct wrep_wal_write *w, uint8_t *bytes, uint64_t off,
			    size_t len)
{
	uint64_t from = w->off > off ? w->off : off;
	uint64_t to = wrep_wal_write_end(w) < off + len ? wrep_wal_write_end(w) : off + len;

	if (from < to)
		memcpy(bytes + (from - off), w->data + (from - w->off), (size_t)(to - from));
}

void wrep_wal_chain_close(struct wrep_wal_chain *c)
{
	free(c->frames);
	free(c->cache);
}

/* ---- the scan ---------------------------------------------------------------------------------- */

void wrep_wal_chain_set_scan(struct wrep_wal_chain *c, uint32_t frame)
{
	if (c->scanned != frame)
		c->cached = 0;
	c->scanned = frame;
}

int wrep_wal_chain_absorb(struct wrep_wal_chain *c, const struct wrep_wal_write *w)
{
	uint64_t start = wrep_wal_chain_offset(c, c->scanned);
	size_t bytes = (size_t)wrep_wal_frame_bytes(c->header.page_size);
	uint64_t end =
		wrep_wal_write_end(w) - start < bytes ? wrep_wal_write_end(w) - start : bytes;
	int rc;

	if (wrep_wal_write_end(w) <= start || w->off > start + c->cached || w->off >= start + bytes)
		return 0;
	rc = wrep_array_reserve(&c->cache, &c->cache_capacity, bytes, 1);
	if (rc != 0)
		return rc;
	wrep_wal_write_overlay(w, c->cache, start, bytes);
	if (end > c->cached)
		c->cached = (size_t)end;
	return 0;
}

/* The bytes of the frame at the scan position, as they are once `w` is written. */
static int view_frame(struct wrep_wal_chain *c, const struct wrep_wal_write *w,
		      const uint8_t **header, const uint8_t **page)
{
	uint64_t start = wrep_wal_chain_offset(c, c->scanned);
	size_t bytes = (size_t)wrep_wal_frame_bytes(c->header.page_size);
	uint64_t page_start = start + WREP_FRAME_HEADER_BYTES;
	bool page_in_write = w->off <= page_start && wrep_wal_write_end(w) >= start + bytes;
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
		rc = wrep_wal_chain_absorb(c, w);
	if (rc != 0)
		return rc;
	if (c->cached < bytes) {
		size_t rest = bytes - c->cached;
		ssize_t n = wrep_read_some(c->fd, c->cache + c->cached, rest, start + c->cached);

		if (n < 0)
			return -EIO;
		/* Behind the end of the file: what the write brings, and zeros in a hole before it. */
		memset(c->cache + c->cached + n, 0, rest - (size_t)n);
		wrep_wal_write_overlay(w, c->cache, start, bytes);
		c->cached = bytes;
	}
	*header = c->cache;
	*page = c->cache + WREP_FRAME_HEADER_BYTES;
	return 0;
}

int wrep_wal_chain_advance(struct wrep_wal_chain *c, const struct wrep_wal_write *w,
			   uint32_t *commits)
{
	c->recheck = false;
	while (c->scanned < UINT32_MAX &&
	       wrep_wal_chain_offset(c, (uint64_t)c->scanned + 1) <= c->size) {
		const uint32_t *before =
			c->scanned > 0 ? c->frames[c->scanned - 1].sum : c->header.sum;
		const uint8_t *header, *page;
		struct wrep_wal_frame parsed;
		struct wrep_wal_chain_frame *frame;
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
		wrep_wal_chain_set_scan(c, c->scanned + 1);
		if (parsed.page_count != 0)
			*commits = c->scanned;
	}
	return 0;
}

/* ---- generations and loading ------------------------------------------------------------------- */

void wrep_wal_chain_drop_frames(struct wrep_wal_chain *c)
{
	c->header_valid = false;
	c->scanned = c->committed = 0;
	c->cached = 0;
	c->recheck = false;
	c->drops++;
}

void wrep_wal_chain_reset(struct wrep_wal_chain *c)
{
	wrep_wal_chain_drop_frames(c);
	c->loaded = false;
	c->resets++;
}

void wrep_wal_chain_start_generation(struct wrep_wal_chain *c,
				     const uint8_t bytes[WREP_WAL_HEADER_BYTES],
				     const struct wrep_wal_header *header)
{
	wrep_wal_chain_drop_frames(c);
	c->header_valid = true;
	c->header = *header;
	memcpy(c->header_bytes, bytes, WREP_WAL_HEADER_BYTES);
	c->recheck = true; /* there may be frames in the file that it makes valid */
}

/* Is the last committed frame still where it was? Its checksum vouches for all before it. */
static bool committed_frames_remain(struct wrep_wal_chain *c, const uint8_t *header_bytes)
{
	uint8_t bytes[WREP_FRAME_HEADER_BYTES], expected[WREP_FRAME_HEADER_BYTES];
	const struct wrep_wal_chain_frame *last;

	if (!c->header_valid || c->committed == 0 || c->size < wrep_wal_chain_committed_end(c) ||
	    memcmp(header_bytes, c->header_bytes, sizeof(c->header_bytes)) != 0)
		return false;
	last = &c->frames[c->committed - 1];
	if (wrep_read_exact(c->fd, bytes, sizeof(bytes),
			    wrep_wal_chain_offset(c, c->committed - 1)) != 0)
		return false;
	wrep_wal_frame_header(&c->header, last->pgno, last->page_count, last->sum, expected);
	return memcmp(bytes, expected, sizeof(bytes)) == 0;
}

int wrep_wal_chain_load(struct wrep_wal_chain *c)
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
		wrep_wal_chain_drop_frames(c);
		c->loaded = true;
		return 0;
	}
	if (committed_frames_remain(c, bytes)) {
		c->scanned = c->committed;
		c->cached = 0;
	} else {
		wrep_wal_chain_start_generation(c, bytes, &header);
	}
	commits = c->committed;
	rc = wrep_wal_chain_advance(c, &wrep_wal_write_nothing, &commits);
	if (rc != 0) {
		wrep_wal_chain_reset(c);
		return rc;
	}
	c->committed = commits;
	c->loaded = true;
	c->loads++;
	return 0;
}
