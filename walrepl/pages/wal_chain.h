/* The valid frames of a -wal, found and followed. For capture.c and wal_content.c alone; the caller serialises
 * all calls.
 *
 *   header | committed frames | valid frames, no commit yet | frame being written | ...
 *          0                  committed                     scanned               size of the file
 *
 * The chain knows what is in the backing file, and is told of a write before it gets there. The capture judges
 * the write, and moves `committed`.
 */
#ifndef WALREPL_PAGES_WAL_CHAIN_H
#define WALREPL_PAGES_WAL_CHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "sqlite/wal_format.h"

struct wrep_wal_chain_frame {
	uint32_t pgno;
	uint32_t page_count; /* not 0: a commit frame */
	uint32_t sum[2];
	uint64_t hash; /* of the page, as in pagesum.h */
};

struct wrep_wal_chain {
	int fd;	     /* not owned */
	bool loaded; /* the rest agrees with the backing file */
	/* How often the frames were dropped, the file was read, and all was given up. Whoever keeps something
	 * about the chain compares what it was when that was true. */
	uint64_t drops, loads, resets;

	/* The generation. Without a valid header there are no frames. */
	bool header_valid;
	uint8_t header_bytes[WREP_WAL_HEADER_BYTES];
	struct wrep_wal_header header;

	struct wrep_wal_chain_frame *frames; /* the valid ones: `scanned` of them */
	uint32_t scanned, committed;
	size_t capacity;
	uint64_t size; /* of the backing file, with the write at hand */
	/* The frame at the scan position may be valid although no write has touched it since. */
	bool recheck;

	uint8_t *cache; /* the first `cached` bytes of the frame at the scan position */
	size_t cached, cache_capacity;
};

/* A write, as the application issued it. */
struct wrep_wal_write {
	const uint8_t *data;
	size_t len;
	uint64_t off;
};

/* No write: to look at what is in the file. */
extern const struct wrep_wal_write wrep_wal_write_nothing;

static inline uint64_t wrep_wal_write_end(const struct wrep_wal_write *w)
{
	return w->off + w->len;
}

/* Copy what `w` holds of [off, off + len) over `bytes`. */
void wrep_wal_write_overlay(const struct wrep_wal_write *w, uint8_t *bytes, uint64_t off,
			    size_t len);

/* Where frame `frame`, from 0, starts. */
static inline uint64_t wrep_wal_chain_offset(const struct wrep_wal_chain *c, uint64_t frame)
{
	return wrep_wal_frame_offset(c->header.page_size, frame);
}

static inline uint64_t wrep_wal_chain_committed_end(const struct wrep_wal_chain *c)
{
	return c->committed > 0 ? wrep_wal_chain_offset(c, c->committed) : 0;
}

/* All zeros but for the descriptor is a chain of which nothing is read yet. */
void wrep_wal_chain_close(struct wrep_wal_chain *c);

/* Make the state agree with the backing file, unless it does. Frames that are valid through a commit
 * frame are committed. 0, -EIO, -ENOMEM. */
int wrep_wal_chain_load(struct wrep_wal_chain *c);
/* Distrust everything: something failed half way. */
void wrep_wal_chain_reset(struct wrep_wal_chain *c);
/* There is no valid header any more. */
void wrep_wal_chain_drop_frames(struct wrep_wal_chain *c);
/* This header is about to be written. */
void wrep_wal_chain_start_generation(struct wrep_wal_chain *c,
				     const uint8_t bytes[WREP_WAL_HEADER_BYTES],
				     const struct wrep_wal_header *header);

/* Go on from this frame, whose bytes are about to change. */
void wrep_wal_chain_set_scan(struct wrep_wal_chain *c, uint32_t frame);
/* Move the scan over all frames that are valid once `w` is written. `*commits` becomes the number of frames
 * up to and with the last commit frame found, or stays. 0, -EIO, -ENOMEM. */
int wrep_wal_chain_advance(struct wrep_wal_chain *c, const struct wrep_wal_write *w,
			   uint32_t *commits);
/* Keep what `w` brings of the frame at the scan position, as long as the kept bytes have no gap. 0, -ENOMEM. */
int wrep_wal_chain_absorb(struct wrep_wal_chain *c, const struct wrep_wal_write *w);

#endif
