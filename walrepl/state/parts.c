/* The parts of a large transaction: what is known of them.
 *
 * In the good case each PAGES entry is added (its pages hashed) when it is delivered, stored when the
 * applier comes to it, and so is the COMMIT at last. Then the checksum of the database follows from
 * `changes`:
 *
 *   changes   | pgno, hash | pgno, hash | ...          in memory
 *   file      | image      | image      | ...          image i at i * page_size
 *
 * A page may have come several times, or not be of the transaction after all (entry.h). The COMMIT
 * says: then the two are sorted out, and `slots` tells which images of the file are left.
 */
#include "state/parts.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/array.h"
#include "pages/pagesum.h"
#include "record/entry.h"
#include "sqlite/file_format.h"

struct wrep_parts *wrep_parts_new(const struct wrep_entry *e, uint64_t index, uint64_t term)
{
	struct wrep_parts *p = calloc(1, sizeof *p);

	if (!p)
		return NULL;
	p->origin = e->origin;
	p->sequence = e->sequence;
	p->term = term;
	p->first_index = index;
	p->page_size = e->page_size;
	p->ordered = true;
	return p;
}

void wrep_parts_free(struct wrep_parts *p)
{
	if (!p)
		return;
	free(p->changes);
	free(p->slots);
	free(p);
}

bool wrep_parts_same(const struct wrep_parts *p, uint64_t origin, uint64_t sequence)
{
	return p && p->origin == origin && p->sequence == sequence;
}

static int reserve(struct wrep_parts *p, uint32_t count)
{
	uint64_t wanted = (uint64_t)p->image_count + count;

	if (wanted > UINT32_MAX)
		return -ENOMEM;
	return wrep_array_reserve(&p->changes, &p->capacity, wanted, sizeof *p->changes);
}

int wrep_parts_add(struct wrep_parts *p, const struct wrep_entry *e)
{
	uint32_t last = p->image_count ? p->changes[p->image_count - 1].pgno : 0;
	int rc;

	assert(e->part == p->count);
	if (e->page_size != p->page_size)
		p->malformed = true;
	if (e->type == WREP_ENTRY_PAGES)
		p->count++;
	if (p->malformed)
		return 0;
	rc = reserve(p, e->image_count);
	if (rc < 0)
		return rc;
	for (uint32_t i = 0; i < e->image_count; i++) {
		const uint8_t *page = e->images + (size_t)i * e->page_size;
		uint32_t pgno = wrep_entry_pgno(e, i);

		if (pgno <= last)
			p->ordered = false;
		if (pgno == 1) {
			p->sets_wal_mode = true;
			p->wal_mode = wrep_page1_is_wal(page);
		}
		p->changes[p->image_count++] =
			(struct wrep_page_change){.pgno = pgno,
						  .hash = wrep_page_hash(pgno, page, e->page_size)};
		last = pgno;
	}
	return 0;
}

/* Where an image is, and of which page. */
struct place {
	uint32_t pgno, slot;
};

/* Sort by page number, by 11 bits of it at a time; those of one page stay in their order. */
static void sort_places(struct place *places, struct place *other, uint32_t count)
{
	struct place *from = places, *to = other;

	for (unsigned shift = 0; shift < 32; shift += 11) {
		uint32_t next[1u << 11] = {0}, at = 0;
		struct place *swap = from;

		for (uint32_t i = 0; i < count; i++)
			next[from[i].pgno >> shift & 0x7ff]++;
		for (size_t k = 0; k < sizeof next / sizeof *next; k++) {
			uint32_t here = next[k];

			next[k] = at;
			at += here;
		}
		for (uint32_t i = 0; i < count; i++)
			to[next[from[i].pgno >> shift & 0x7ff]++] = from[i];
		from = to;
		to = swap;
	}
	memcpy(places, from, count * sizeof *places);
}

/* Of `count` sorted places keep the last of each page that counts. How many are left. */
static uint32_t keep_last(struct place *places, uint32_t count, const struct wrep_entry *e)
{
	uint32_t kept = 0, dropped = 0;

	for (uint32_t i = 0; i < count && places[i].pgno <= e->page_count; i++) {
		uint32_t pgno = places[i].pgno;

		if (i + 1 < count && places[i + 1].pgno == pgno)
			continue;
		while (dropped < e->dropped_count && wrep_entry_dropped(e, dropped) < pgno)
			dropped++;
		if (dropped < e->dropped_count && wrep_entry_dropped(e, dropped) == pgno)
			continue;
		places[kept++] = places[i];
	}
	return kept;
}

static int sort_out(struct wrep_parts *p, const struct wrep_entry *e)
{
	struct place *places = calloc(2 * (size_t)p->image_count + 1, sizeof *places);
	struct wrep_page_change *changes = NULL;
	uint32_t *slots = NULL, kept = 0;

	if (places) {
		for (uint32_t i = 0; i < p->image_count; i++)
			places[i] = (struct place){.pgno = p->changes[i].pgno, .slot = i};
		sort_places(places, places + p->image_count, p->image_count);
		kept = keep_last(places, p->image_count, e);
		changes = calloc((size_t)kept + 1, sizeof *changes);
		slots = calloc((size_t)kept + 1, sizeof *slots);
	}
	if (!changes || !slots) {
		free(changes);
		free(slots);
		free(places);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < kept; i++) {
		changes[i] = p->changes[places[i].slot];
		slots[i] = places[i].slot;
	}
	free(places);
	free(p->changes);
	p->changes = changes;
	p->slots = slots;
	p->image_count = p->capacity = kept;
	return 0;
}

int wrep_parts_settle(struct wrep_parts *p, const struct wrep_entry *e)
{
	bool all;
	int rc = wrep_parts_add(p, e);

	all = p->ordered && !e->dropped_count &&
	      (!p->image_count || p->changes[p->image_count - 1].pgno <= e->page_count);
	if (rc == 0 && !p->malformed && !all)
		rc = sort_out(p, e);
	if (rc < 0)
		return rc;
	if (!p->image_count || p->changes[0].pgno != 1)
		p->sets_wal_mode = false;
	return p->malformed || p->image_count != e->total_pages ? -EBADMSG : 0;
}

/* The parts and the COMMIT of one transaction are submitted by one leader in one go, so they have
 * one term unless it lost its office in between; then the COMMIT counts as incomplete, everywhere.
 * So parts whose term has passed can be thrown away at once: terms never fall along the log, and a
 * COMMIT that needs them cannot come any more. */
bool wrep_parts_complete(const struct wrep_parts *p, const struct wrep_entry *e, uint64_t term)
{
	return e->part == 0 || (wrep_parts_same(p, e->origin, e->sequence) && p->term == term &&
				p->count == e->part);
}
