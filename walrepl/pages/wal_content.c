/* The committed frames of a -wal: by position, page and content. */
#include "pages/wal_content.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/io.h"
#include "pages/pagesum.h"
#include "pages/wal_chain.h"

int wrep_capture_position(struct wrep_capture *c, struct wrep_wal_position *out)
{
	int rc = wrep_wal_chain_load(c);

	memset(out, 0, sizeof(*out));
	if (rc != 0)
		return rc;
	if (c->header_valid) {
		out->frame_count = c->committed;
		out->page_size = c->header.page_size;
		memcpy(out->salt, c->header.salt, sizeof(out->salt));
	}
	return 0;
}

static size_t index_slot(const struct wrep_capture *c, uint32_t pgno, uint64_t hash)
{
	/* The hash is well mixed; the page number is its seed. */
	return (size_t)((hash ^ (uint64_t)pgno * UINT64_C(0x9e3779b97f4a7c15)) &
			(c->index_slots - 1));
}

static void index_frame(struct wrep_capture *c, uint32_t frame)
{
	const struct frame *f = &c->frames[frame];
	size_t slot = index_slot(c, f->pgno, f->hash);

	while (c->index[slot] != 0) {
		const struct frame *g = &c->frames[c->index[slot] - 1];

		if (g->pgno == f->pgno && g->hash == f->hash)
			return;
		slot = (slot + 1) & (c->index_slots - 1);
	}
	c->index[slot] = frame + 1;
}

/* Index the frames committed since the last time. */
static int index_frames(struct wrep_capture *c)
{
	if ((size_t)c->committed * 2 >= c->index_slots) {
		size_t slots = 1024;
		uint32_t *index;

		while (slots < (size_t)c->committed * 4)
			slots *= 2;
		index = calloc(slots, sizeof(*index));
		if (index == NULL)
			return -ENOMEM;
		free(c->index);
		c->index = index;
		c->index_slots = slots;
		c->indexed = 0;
	}
	for (; c->indexed < c->committed; c->indexed++)
		index_frame(c, c->indexed);
	return 0;
}

/* Which image of a page is the newest is for the -wal to say, not for the replicated state: where the
 * files lag, that is ahead, and may be back at the content of an older frame. */
bool wrep_capture_copied(struct wrep_capture *c, int db_fd, const struct wrep_pagesum *sum)
{
	bool copied = true;
	uint32_t page_size, page_count;
	uint8_t *page, *seen;

	if (wrep_wal_chain_load(c) != 0)
		return false;
	if (c->committed == 0 || sum->page_size != c->header.page_size)
		return true; /* an emptied database, or one of another page size: nothing of it counts */
	page_size = c->header.page_size;
	page_count = c->frames[c->committed - 1].page_count;
	page = malloc(page_size);
	seen = calloc(page_count / 8 + 1, 1);
	if (page == NULL || seen == NULL)
		copied = false;
	for (uint32_t i = c->committed; i > 0 && copied; i--) {
		const struct frame *f = &c->frames[i - 1];
		uint8_t bit = (uint8_t)(1u << f->pgno % 8);

		if (f->pgno > page_count || (seen[f->pgno / 8] & bit))
			continue; /* cut off, or not the newest */
		seen[f->pgno / 8] |= bit;
		copied = wrep_read_exact(db_fd, page, page_size,
					 (uint64_t)(f->pgno - 1) * page_size) == 0 &&
			 wrep_page_hash(f->pgno, page, page_size) == f->hash;
	}
	free(page);
	free(seen);
	return copied;
}

int wrep_capture_find(struct wrep_capture *c, uint32_t page_size, const uint32_t *pgno,
		      uint32_t count, uint64_t *offset)
{
	int rc = wrep_wal_chain_load(c);

	memset(offset, 0, count * sizeof(*offset));
	if (rc != 0 || c->committed == 0 || c->header.page_size != page_size)
		return rc;
	for (uint32_t i = 0; i < c->committed; i++)
		for (uint32_t k = 0; k < count; k++)
			if (c->frames[i].pgno == pgno[k])
				offset[k] = wrep_wal_frame_offset(page_size, i) +
					    WREP_FRAME_HEADER_BYTES;
	return 0;
}

bool wrep_capture_holds(struct wrep_capture *c, uint32_t pgno, uint64_t hash)
{
	size_t slot;

	if (wrep_wal_chain_load(c) != 0 || c->committed == 0)
		return false;
	if (index_frames(c) != 0) {
		for (uint32_t i = 0; i < c->committed; i++)
			if (c->frames[i].pgno == pgno && c->frames[i].hash == hash)
				return true;
		return false;
	}
	for (slot = index_slot(c, pgno, hash); c->index[slot] != 0;
	     slot = (slot + 1) & (c->index_slots - 1)) {
		const struct frame *f = &c->frames[c->index[slot] - 1];

		if (f->pgno == pgno && f->hash == hash)
			return true;
	}
	return false;
}

bool wrep_capture_fits(struct wrep_capture *c, uint32_t page_count)
{
	if (wrep_wal_chain_load(c) != 0)
		return false;
	for (uint32_t i = c->committed; i > 0; i--)
		if (c->frames[i - 1].page_count != 0 && c->frames[i - 1].page_count <= page_count)
			return true;
	return false;
}
