/* A capture from inside: for capture.c, wal_chain.c and wal_content.c alone. */
#ifndef WALREPL_PAGES_CAPTURE_STATE_H
#define WALREPL_PAGES_CAPTURE_STATE_H

#include "pages/capture.h"
#include "sqlite/wal_format.h"

struct frame {
	uint32_t pgno;
	uint32_t page_count; /* not 0: a commit frame */
	uint32_t sum[2];
	uint64_t hash; /* of the page, as in pagesum.h */
};

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

#endif
