/* See playback.h. The -wal as SQLite recovers it (file format, section 4): the frames whose chain is valid, up to
 * the last one that commits; the newest image of a page counts, and that frame says how long the database is.
 */
#include "pages/playback.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/bytes.h"
#include "base/io.h"
#include "pages/overlay.h"
#include "sqlite/file_format.h"
#include "sqlite/journal_format.h"
#include "sqlite/wal_format.h"

/* The page size of the database that the overlay shows; 0: an empty one, or none. */
static uint32_t page_size_of(struct wrep_overlay *o, int base_fd)
{
	uint8_t head[18];

	if (wrep_overlay_read(o, base_fd, head, sizeof head, 0) != sizeof head)
		return 0;
	return wrep_page1_page_size(head);
}

/* ---- a -wal ------------------------------------------------------------------------------------- */

struct wal {
	int fd;
	struct wrep_wal_header header;
	uint32_t count;	     /* of the frames that count: up to the last one that commits, */
	uint32_t page_count; /* which says this */
};

/* False: it begins with no valid header. */
static bool open_wal(struct wal *w, int fd)
{
	uint8_t bytes[WREP_WAL_HEADER_BYTES];

	*w = (struct wal){.fd = fd};
	return wrep_read_exact(fd, bytes, sizeof bytes, 0) == 0 &&
	       wrep_wal_header_parse(bytes, &w->header);
}

/* Go through the valid frames, at most `max` of them: count them, and write them into `o`, unless it is NULL. */
static int go_through(struct wal *w, uint32_t max, struct wrep_overlay *o, int base_fd)
{
	const struct wrep_wal_header *h = &w->header;
	const size_t frame_bytes = wrep_wal_frame_bytes(h->page_size);
	uint8_t *bytes = malloc(frame_bytes);
	uint32_t sum[2] = {h->sum[0], h->sum[1]};
	int rc = bytes ? 0 : -ENOMEM;

	w->count = w->page_count = 0;
	for (uint32_t i = 0; i < max && !rc; i++) {
		const uint8_t *page = bytes + WREP_FRAME_HEADER_BYTES;
		struct wrep_wal_frame f;

		rc = wrep_read_exact(w->fd, bytes, frame_bytes,
				     wrep_wal_frame_offset(h->page_size, i));
		if (rc == -EIO || (!rc && !wrep_wal_frame_parse(h, sum, bytes, page, &f))) {
			rc = 0; /* its end, or that of what is valid */
			break;
		}
		if (rc)
			break;
		memcpy(sum, f.sum, sizeof sum);
		if (f.page_count) {
			w->count = i + 1;
			w->page_count = f.page_count;
		}
		if (o)
			rc = wrep_overlay_write(o, base_fd, page, h->page_size,
						(uint64_t)(f.pgno - 1) * h->page_size);
	}
	free(bytes);
	return rc;
}

int wrep_playback_wal_holds(int wal_fd)
{
	struct wal w;
	int rc = open_wal(&w, wal_fd) ? go_through(&w, UINT32_MAX, NULL, -1) : 0;

	return rc ? rc : w.count > 0;
}

int wrep_playback_wal(int wal_fd, struct wrep_overlay *o, int base_fd)
{
	uint32_t count, page_size = page_size_of(o, base_fd);
	struct wal w;
	int rc;

	if (!open_wal(&w, wal_fd))
		return 0;
	rc = go_through(&w, UINT32_MAX, NULL, -1);
	count = w.count;
	if (rc || !count)
		return rc;
	if (w.header.page_size != page_size)
		return -EBADMSG;
	rc = go_through(&w, count, o, base_fd);
	if (!rc && w.count != count)
		rc = -EIO; /* somebody writes to it */
	return rc ? rc : wrep_overlay_truncate(o, (uint64_t)w.page_count * page_size);
}

/* ---- a -journal ---------------------------------------------------------------------------------- */

int wrep_playback_journal_holds(int journal_fd)
{
	struct wrep_journal_header h;

	return wrep_journal_read_header(journal_fd, 0, &h);
}

struct journal {
	int fd, base_fd;
	uint64_t size;
	struct wrep_journal_header first;
	struct wrep_overlay *overlay;
	uint8_t *record; /* room for one */
	uint8_t *done;	 /* a bit for each page of the database as it was */
};

/* 1; 0: here it ends; -errno. */
static int play_record(struct journal *j, uint64_t off, uint32_t nonce)
{
	const uint32_t page_size = j->first.page_size;
	const uint8_t *page = j->record + 4;
	uint32_t pgno;

	if (off + page_size + 8 > j->size)
		return 0;
	if (wrep_read_exact(j->fd, j->record, page_size + 8, off))
		return -EIO;
	pgno = wrep_get_be32(j->record);
	if (!pgno || pgno == wrep_lock_page(page_size) ||
	    wrep_journal_checksum(page, page_size, nonce) != wrep_get_be32(page + page_size))
		return 0;
	if (pgno > j->first.page_count || (j->done[pgno / 8] & 1u << pgno % 8))
		return 1;
	j->done[pgno / 8] |= (uint8_t)(1u << pgno % 8);
	return wrep_overlay_write(j->overlay, j->base_fd, page, page_size,
				  (uint64_t)(pgno - 1) * page_size) < 0
		       ? -EIO
		       : 1;
}

static int play(struct journal *j)
{
	struct wrep_journal_header h = j->first;
	uint64_t off = 0;
	int rc = wrep_overlay_truncate(j->overlay, (uint64_t)h.page_count * h.page_size);

	while (!rc) {
		uint64_t end = off + h.sector;
		uint64_t room = end < j->size ? (j->size - end) / (h.page_size + 8) : 0;
		uint64_t records = h.records == UINT32_MAX ? room : h.records;
		int more = 1;

		for (uint64_t i = 0; i < records && more == 1; i++) {
			more = play_record(j, end, h.nonce);
			end += h.page_size + 8;
		}
		if (more < 1)
			return more;
		off = (end + h.sector - 1) / h.sector * h.sector;
		if (off + h.sector > j->size || !wrep_journal_read_header(j->fd, off, &h) ||
		    h.page_size != j->first.page_size)
			break;
	}
	return rc;
}

int wrep_playback_journal(int journal_fd, struct wrep_overlay *o, int base_fd)
{
	struct journal j = {.fd = journal_fd, .base_fd = base_fd, .overlay = o};
	char super[WREP_SUPER_PATH_MAX];
	struct stat st;
	uint32_t size;
	int rc;

	if (!wrep_journal_read_header(journal_fd, 0, &j.first))
		return 0;
	if (wrep_journal_super(journal_fd, super))
		return -EXDEV;
	size = page_size_of(o, base_fd);
	if (wrep_page_size_valid(size) && size != j.first.page_size)
		return -EBADMSG;
	if (fstat(journal_fd, &st) < 0)
		return -errno;
	j.size = (uint64_t)st.st_size;
	j.record = malloc(j.first.page_size + 8);
	j.done = calloc(1, j.first.page_count / 8 + 1);
	rc = j.record && j.done ? play(&j) : -ENOMEM;
	free(j.record);
	free(j.done);
	return rc;
}
