/* The checksum over all pages of a database. Private to walrepl.
 *
 * Every page that was ever written has a hash of its number and content; the database's checksum is
 * their sum modulo 2^64, so a commit costs its own pages only. A page that lies within the database
 * but was never written (SQLite does not write pages that it only put on the freelist) counts 0, and
 * so does the lock page (file_format.h), which SQLite never writes. Derived from
 * committed entries alone, hence equal on all nodes.
 */
#ifndef WALREPL_PAGES_PAGESUM_H
#define WALREPL_PAGES_PAGESUM_H

#include <stddef.h>
#include <stdint.h>

struct wrep_pagesum {
	uint32_t page_size;  /* 0: empty database */
	uint32_t page_count; /* pages 1..page_count; hash[pgno - 1] */
	size_t capacity;     /* of `hash` */
	uint64_t *hash;
	uint64_t sum;
	/* Which hashes have changed since somebody stored them: a bit per WREP_SUM_BLOCK of them; blocks
	 * behind the bitmap are clean. The owner reads and clears it. */
	uint8_t *dirty;
	uint32_t dirty_bytes;
};

#define WREP_SUM_BLOCK 512u /* hashes: 4 KiB of the file that keeps them */

/* XXH3-64 of the content, seeded with the page number; never 0. */
uint64_t wrep_page_hash(uint32_t pgno, const void *page, size_t page_size);

/* 12 bytes: a transaction may have millions of them. */
struct wrep_page_change {
	uint32_t pgno;
	uint64_t hash;
} __attribute__((packed, aligned(4)));

/* The sum after `changes` (distinct pgnos, all <= page_count) in a database then of `page_count`
 * pages of `page_size` bytes. A changed page size forgets all former pages. */
uint64_t wrep_pagesum_preview(const struct wrep_pagesum *s, uint32_t page_size, uint32_t page_count,
			      const struct wrep_page_change *changes, size_t count);
/* Make it so. 0 or -ENOMEM (then nothing changed). */
int wrep_pagesum_apply(struct wrep_pagesum *s, uint32_t page_size, uint32_t page_count,
		       const struct wrep_page_change *changes, size_t count);
/* Take `hash` (of `page_count` pages, malloc'd, the pagesum's from now on; NULL for none) for what is
 * stored, and their sum for the checksum. 0 or -ENOMEM (then `hash` stays the caller's). */
int wrep_pagesum_load(struct wrep_pagesum *s, uint32_t page_size, uint32_t page_count,
		      uint64_t *hash);
/* The sum over the hashes, added up anew. */
uint64_t wrep_pagesum_total(const struct wrep_pagesum *s);
/* Mark the block of `pgno` as to be stored again. */
void wrep_pagesum_mark(struct wrep_pagesum *s, uint32_t pgno);
void wrep_pagesum_close(struct wrep_pagesum *s);

#endif
