/* A capture from inside: for capture.c and wal_content.c alone. */
#ifndef WALREPL_PAGES_CAPTURE_STATE_H
#define WALREPL_PAGES_CAPTURE_STATE_H

#include "pages/capture.h"
#include "pages/wal_chain.h"

struct wrep_capture {
	struct wrep_wal_chain chain;

	/* wal_content.c's: committed frames by content. */
	struct {
		uint64_t drops;	 /* the chain's */
		uint32_t *slots; /* open addressing: frame number + 1, 0 is free */
		size_t slot_count;
		uint32_t indexed;
	} content;

	/* ---- capture.c's ---- */

	/* SQLite was seen doing this: the frame (+ 1) whose header it wrote and whose page is next, and
	 * the lowest frame whose page it overwrote since it last appended a frame with a checksum. */
	uint64_t appending;
	uint32_t overwritten;

	/* The open transaction has appended this: without a gap from the committed end up to here. */
	uint64_t append_end;
	uint64_t attempt;	 /* how many have begun to, but for changes of the chain */
	uint64_t append_changes; /* of the chain: as of which `append_end` is */

	/* The last write was judged on this: the header, and how much was committed. */
	bool before_valid;
	uint8_t before[WREP_WAL_HEADER_BYTES];
	uint32_t before_committed;

	/* The write that completed the transaction, and what to go back to when it is refused. */
	bool undecided, held_restart;
	uint8_t *held;
	size_t held_len, held_capacity;
	uint64_t reserved;	  /* the backing file has room up to here, */
	uint64_t reserved_resets; /* as of so many resets of the chain */
	uint64_t held_off, size_before;
	uint32_t held_committed; /* committed frames when it is agreed */
	struct wrep_wal_txn txn;
	size_t image_capacity;
};

#endif
