/* The content that is committed in a -wal, as a capture follows it. Private to walrepl. As with the capture,
 * the caller serialises all calls (the database's lock).
 */
#ifndef WALREPL_PAGES_WAL_CONTENT_H
#define WALREPL_PAGES_WAL_CONTENT_H

#include "pages/capture.h"

/* Frames committed in this generation of the -wal, and the salts of its header (0 frames: no valid
 * header, or none yet). */
struct wrep_wal_position {
	uint32_t frame_count;
	uint32_t page_size;
	uint32_t salt[2]; /* as in the wal-index header: the 8 bytes copied from the WAL header */
};
int wrep_wal_content_position(struct wrep_capture *c, struct wrep_wal_position *out);

/* Is the newest committed image of every page in this generation of the -wal also in the database
 * file `db_fd`, so that the -wal may go? (Reads each of those pages.) */
bool wrep_wal_content_copied(struct wrep_capture *c, int db_fd, const struct wrep_pagesum *sum);

/* Is `hash` the content of page `pgno` in some committed frame of this generation? (A checkpoint may
 * copy an older one than the newest.) */
bool wrep_wal_content_holds(struct wrep_capture *c, uint32_t pgno, uint64_t hash);

/* Where the newest committed images of some pages are: offset[i] of that of pgno[i], behind its frame
 * header, or 0 when this generation has none of this page size. 0 or -errno. */
int wrep_wal_content_find(struct wrep_capture *c, uint32_t page_size, const uint32_t *pgno,
			  uint32_t count, uint64_t *offset);

/* Does a committed transaction of this generation leave the database at most `page_count` pages long? */
bool wrep_wal_content_fits(struct wrep_capture *c, uint32_t page_count);

#endif
