/* The valid frames of a -wal. For capture.c and wal_content.c alone; the caller serialises all calls. */
#ifndef WALREPL_PAGES_WAL_CHAIN_H
#define WALREPL_PAGES_WAL_CHAIN_H

#include "pages/capture_state.h"

/* A write, as the application issued it. */
struct write {
	const uint8_t *data;
	size_t len;
	uint64_t off;
};

static inline uint64_t write_end(const struct write *w)
{
	return w->off + w->len;
}

static inline uint64_t frame_offset(const struct wrep_capture *c, uint64_t frame)
{
	return wrep_wal_frame_offset(c->header.page_size, frame);
}

static inline uint64_t committed_end(const struct wrep_capture *c)
{
	return c->committed > 0 ? frame_offset(c, c->committed) : 0;
}

/* No write: to look at what is in the file. */
extern const struct write wrep_wal_chain_nothing;

/* Copy what `w` holds of [off, off + len) over `bytes`. */
void wrep_wal_chain_overlay(uint8_t *bytes, uint64_t off, size_t len, const struct write *w);

/* What is appended from here on is another transaction's. */
void wrep_wal_chain_begin_appends(struct wrep_capture *c);

void wrep_wal_chain_set_scan(struct wrep_capture *c, uint32_t frame);
/* Keep what `w` brings of the frame at the scan position, as long as the kept bytes have no gap. */
int wrep_wal_chain_absorb(struct wrep_capture *c, const struct write *w);
/* Move the scan over all valid frames. `*commits` becomes the number of frames up to and with the
 * last commit frame found, or stays. */
int wrep_wal_chain_advance(struct wrep_capture *c, const struct write *w, uint32_t *commits);

void wrep_wal_chain_drop_frames(struct wrep_capture *c);
/* Distrust everything: something failed half way. */
void wrep_wal_chain_reset(struct wrep_capture *c);
void wrep_wal_chain_start_generation(struct wrep_capture *c,
				     const uint8_t bytes[WREP_WAL_HEADER_BYTES],
				     const struct wrep_wal_header *header);
/* Make the state agree with the backing file. */
int wrep_wal_chain_load(struct wrep_capture *c);

#endif
