/* The checksum over all pages of a database: one hash per page, and their sum.
 *
 * A sum modulo 2^64 rather than a hash of hashes: a commit subtracts what its pages counted before
 * and adds what they count now, and a shrunk database subtracts its tail. Adding beats XOR because
 * two equal errors do not cancel.
 */
#include "pages/pagesum.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "base/array.h"
#include "sqlite/file_format.h"

uint64_t wrep_page_hash(uint32_t pgno, const void *page, size_t page_size)
{
	uint64_t hash = XXH3_64bits_withSeed(page, page_size, pgno);

	/* 0 means "never written". */
	return hash != 0 ? hash : 1;
}

uint64_t wrep_pagesum_preview(const struct wrep_pagesum *s, uint32_t page_size, uint32_t page_count,
			      const struct wrep_page_change *changes, size_t count)
{
	uint32_t old_count = page_size == s->page_size ? s->page_count : 0;
	uint64_t sum = page_size == s->page_size ? s->sum : 0;

	for (uint32_t i = page_count; i < old_count; i++)
		sum -= s->hash[i];
	for (size_t i = 0; i < count; i++) {
		uint32_t pgno = changes[i].pgno;

		if (page_size != 0 && pgno == wrep_lock_page(page_size))
			continue;
		if (pgno <= old_count)
			sum -= s->hash[pgno - 1];
		sum += changes[i].hash;
	}
	return sum;
}

/* Room for a bit per block of `capacity` hashes. */
static int dirty_reserve(struct wrep_pagesum *s, uint64_t capacity)
{
	uint32_t bytes = (uint32_t)((capacity / WREP_SUM_BLOCK + 1 + 7) / 8);
	uint8_t *dirty;

	if (bytes <= s->dirty_bytes)
		return 0;
	dirty = realloc(s->dirty, bytes);
	if (dirty == NULL)
		return -ENOMEM;
	memset(dirty + s->dirty_bytes, 0, bytes - s->dirty_bytes);
	s->dirty = dirty;
	s->dirty_bytes = bytes;
	return 0;
}

void wrep_pagesum_mark(struct wrep_pagesum *s, uint32_t pgno)
{
	uint32_t block = (pgno - 1) / WREP_SUM_BLOCK;

	s->dirty[block / 8] |= (uint8_t)(1u << block % 8);
}

int wrep_pagesum_apply(struct wrep_pagesum *s, uint32_t page_size, uint32_t page_count,
		       const struct wrep_page_change *changes, size_t count)
{
	uint32_t kept = page_size == s->page_size ? s->page_count : 0;

	if (wrep_array_reserve(&s->hash, &s->capacity, page_count, sizeof(*s->hash)) < 0 ||
	    dirty_reserve(s, s->capacity) < 0)
		return -ENOMEM;
	s->sum = wrep_pagesum_preview(s, page_size, page_count, changes, count);
	if (page_count > kept) {
		memset(s->hash + kept, 0, (size_t)(page_count - kept) * sizeof(*s->hash));
		for (uint32_t b = kept / WREP_SUM_BLOCK; b <= (page_count - 1) / WREP_SUM_BLOCK;
		     b++)
			wrep_pagesum_mark(s, b * WREP_SUM_BLOCK + 1);
	}
	s->page_size = page_size;
	s->page_count = page_count;
	for (size_t i = 0; i < count; i++)
		if (page_size == 0 || changes[i].pgno != wrep_lock_page(page_size)) {
			s->hash[changes[i].pgno - 1] = changes[i].hash;
			wrep_pagesum_mark(s, changes[i].pgno);
		}
	return 0;
}

uint64_t wrep_pagesum_total(const struct wrep_pagesum *s)
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < s->page_count; i++)
		total += s->hash[i];
	return total;
}

int wrep_pagesum_load(struct wrep_pagesum *s, uint32_t page_size, uint32_t page_count,
		      uint64_t *hash)
{
	if (dirty_reserve(s, page_count) < 0)
		return -ENOMEM;
	free(s->hash);
	s->hash = hash;
	s->page_size = page_size;
	s->page_count = s->capacity = page_count;
	memset(s->dirty, 0, s->dirty_bytes);
	s->sum = wrep_pagesum_total(s);
	return 0;
}

void wrep_pagesum_close(struct wrep_pagesum *s)
{
	free(s->hash);
	free(s->dirty);
	memset(s, 0, sizeof(*s));
}
