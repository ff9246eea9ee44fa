/* The bytes of a -wal file. Private to walrepl.
 *
 * From SQLite's "Database File Format", section 4 ("The Write-Ahead Log"). All numbers are
 * big-endian. A 32-byte header (4.1), then frames, each a 24-byte header and a page:
 *
 *   WAL header                                   frame header
 *    0  magic 0x377f0682, or ..83 for             0  page number
 *       big-endian checksums                      4  pages of the database after the commit;
 *    4  version 3007000                              0 when not a commit frame
 *    8  page size                                 8  salt-1, salt-2, as in the WAL header
 *   12  checkpoint sequence                      16  checksum-1, checksum-2: running, over the first
 *   16  salt-1, salt-2                               24 bytes of the WAL header, then the first 8
 *   24  checksum-1, checksum-2 of the first 24       bytes and the page of every frame up to this
 *
 * A frame is valid when its salts and its checksum match; what follows an invalid frame is not part
 * of the log, however valid it looks. All functions here are pure; any thread.
 */
#ifndef WALREPL_SQLITE_WAL_FORMAT_H
#define WALREPL_SQLITE_WAL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WREP_WAL_HEADER_BYTES 32u
#define WREP_FRAME_HEADER_BYTES 24u

struct wrep_wal_header {
	uint32_t page_size;
	bool big_endian; /* checksums read words as big-endian */
	uint32_t checkpoint_seq;
	uint8_t salt[8];
	uint32_t sum[2]; /* checksum of the header, where that of the first frame starts from */
};

struct wrep_wal_frame {
	uint32_t pgno;
	uint32_t page_count; /* not 0: a commit frame */
	uint32_t sum[2];     /* the running checksum behind this frame */
};

/* The checksum of section 4.2 over `len` bytes, a multiple of 8, going on from `sum`. */
void wrep_wal_checksum(bool big_endian, const void *data, size_t len, uint32_t sum[2]);

/* False: not the header of a log that SQLite would read. */
bool wrep_wal_header_parse(const uint8_t bytes[WREP_WAL_HEADER_BYTES], struct wrep_wal_header *out);

/* Is it the next frame of the log, after a frame (or header) whose checksum was `before`? The
 * checksum costs some microseconds; it is computed only when all else fits. */
bool wrep_wal_frame_parse(const struct wrep_wal_header *h, const uint32_t before[2],
			  const uint8_t bytes[WREP_FRAME_HEADER_BYTES], const uint8_t *page,
			  struct wrep_wal_frame *out);

/* The header of a frame whose running checksum is known. */
void wrep_wal_frame_header(const struct wrep_wal_header *h, uint32_t pgno, uint32_t page_count,
			   const uint32_t sum[2], uint8_t bytes[WREP_FRAME_HEADER_BYTES]);

/* The counterparts of parsing, for tests. They fill in `sum`. */
void wrep_wal_header_encode(struct wrep_wal_header *h, uint8_t bytes[WREP_WAL_HEADER_BYTES]);
void wrep_wal_frame_encode(const struct wrep_wal_header *h, const uint32_t before[2],
			   struct wrep_wal_frame *frame, const uint8_t *page,
			   uint8_t bytes[WREP_FRAME_HEADER_BYTES]);

static inline uint64_t wrep_wal_frame_bytes(uint32_t page_size)
{
	return (uint64_t)WREP_FRAME_HEADER_BYTES + page_size;
}

/* Where frame `index` (from 0) starts. */
static inline uint64_t wrep_wal_frame_offset(uint32_t page_size, uint64_t index)
{
	return WREP_WAL_HEADER_BYTES + index * wrep_wal_frame_bytes(page_size);
}

#endif
