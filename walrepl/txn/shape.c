/* What the overlay of a transaction leaves behind: how large the database is, and which pages differ. */
#include "txn/shape.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/array.h"
#include "base/io.h"
#include "db/db.h"
#include "pages/overlay.h"
#include "pages/pagesum.h"
#include "sqlite/file_format.h"

/* With SQLITE_FCNTL_CHUNK_SIZE there may be a piece of a page behind the last one. db->lock held. */
static bool ends_with_zeros(struct wrep_db *db, uint64_t file_size, uint32_t page_size)
{
	size_t len = (size_t)(file_size % page_size);
	uint8_t *piece = malloc(len);
	bool zeros = piece &&
		     wrep_overlay_read(db->overlay, db->files[WREP_DB]->fd, piece, len,
				       file_size - len) == (ssize_t)len &&
		     piece[0] == 0 && memcmp(piece, piece + 1, len - 1) == 0;

	free(piece);
	return zeros;
}

/* See SQLite's file format, 1.3. A file that shrinks is cut only after the commit, so the header's size
 * counts where it is valid, else that of the file. */
bool wrep_overlay_shape(struct wrep_db *db, uint32_t *page_size, uint32_t *page_count, bool *whole)
{
	uint64_t file_size = wrep_overlay_size(db->overlay);
	uint8_t head[WREP_DB_HEADER_BYTES];
	uint32_t size, pages;

	*page_size = *page_count = 0;
	*whole = true;
	if (!file_size)
		return true;
	if (wrep_overlay_read(db->overlay, db->files[WREP_DB]->fd, head, sizeof head, 0) !=
		    sizeof head ||
	    !wrep_db_header_parse(head, &size, &pages) || file_size / size > UINT32_MAX)
		return false;
	*page_size = size;
	*page_count = (uint32_t)(file_size / size);
	*whole = pages <= *page_count &&
		 (file_size % size == 0 || (pages && ends_with_zeros(db, file_size, size)));
	if (pages && pages < *page_count)
		*page_count = pages;
	return true;
}

/* The pages of the overlay that differ from the committed ones. */
int wrep_overlay_changes(struct wrep_db *db, uint32_t page_size, uint32_t page_count,
			 struct wrep_page_change **out, uint32_t *count)
{
	struct wrep_page_change *changes = NULL;
	uint32_t n = 0, pgno = 1;
	size_t capacity = 0;
	uint8_t *page = malloc(page_size);
	int rc = page ? 0 : -ENOMEM;

	while (!rc && (pgno = wrep_overlay_next(db->overlay, page_size, pgno)) != 0 &&
	       pgno <= page_count) {
		ssize_t got = wrep_overlay_read(db->overlay, db->files[WREP_DB]->fd, page,
						page_size, (uint64_t)(pgno - 1) * page_size);
		uint64_t hash;

		if (got < 0) {
			rc = (int)got;
			break;
		}
		memset(page + got, 0, page_size - (size_t)got);
		hash = wrep_page_hash(pgno, page, page_size);
		if (pgno != wrep_lock_page(page_size) &&
		    (db->state.sum.page_size != page_size || pgno > db->state.sum.page_count ||
		     db->state.sum.hash[pgno - 1] != hash)) {
			rc = wrep_array_reserve(&changes, &capacity, (size_t)n + 1,
						sizeof *changes);
			if (rc)
				break;
			changes[n++] = (struct wrep_page_change){pgno, hash};
		}
		if (pgno == UINT32_MAX)
			break;
		pgno++;
	}
	free(page);
	if (rc) {
		free(changes);
		return rc;
	}
	*out = changes;
	*count = n;
	return 0;
}

#define COMPARED_BYTES 4096u

bool wrep_overlay_restores(struct wrep_db *db)
{
	uint8_t shown[COMPARED_BYTES], held[COMPARED_BYTES];
	int fd = db->files[WREP_DB]->fd;
	uint32_t at = 1;
	struct stat st;

	if (db->half_applied || fstat(fd, &st) < 0 ||
	    (uint64_t)st.st_size != wrep_overlay_size(db->overlay))
		return false;
	for (; (at = wrep_overlay_next(db->overlay, COMPARED_BYTES, at)) != 0; at++) {
		uint64_t off = (uint64_t)(at - 1) * COMPARED_BYTES;
		ssize_t len = wrep_overlay_read(db->overlay, fd, shown, COMPARED_BYTES, off);

		if (len < 0 || wrep_read_some(fd, held, COMPARED_BYTES, off) != len ||
		    memcmp(shown, held, (size_t)len) != 0 || at == UINT32_MAX)
			return false;
	}
	return true;
}
