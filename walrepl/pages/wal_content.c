/* The committed frames of a -wal: by position, page and content. */
#include "pages/wal_content.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/io.h"
#include "pages/capture_state.h"
#include "pages/pagesum.h"
#include "pages/wal_chain.h"

int wrep_wal_content_position(struct wrep_capture *c, struct wrep_wal_position *out)
{
	int rc = wrep_wal_chain_load(&c->chain);

	memset(out, 0, sizeof(*out));
	if (rc != 0)
		return rc;
	if (c->chain.header_valid) {
		out->frame_count = c->chain.committed;
		out->page_size = c->chain.header.page_size;
		memcpy(out->salt, c->chain.header.salt, sizeof(out->salt));
	}
	return 0;
}

static size_t index_slot(const struct wrep_capture *c, uint32_t pgno, uint64_t hash)
{
	/* The hash is well mixed; the page number is its seed. */
	return (size_t)((hash ^ (uint64_t)pgno * UINT64_C(0x9e3779b97f4a7c15)) &
			(c->content.slot_count - 1));
}

static void index_frame(struct wrep_capture *c, uint32_t frame)
{
	const struct wrep_wal_chain_frame *f = &c->chain.frames[frame];
	size_t slot = index_slot(c, f->pgno, f->hash);

	while (c->content.slots[slot] != 0) {
		const struct wrep_wal_chain_frame *g = &c->chain.frames[c->content.slots[slot] - 1];

		if (g->pgno == f->pgno && g->hash == f->hash)
			return;
		slot = (slot + 1) & (c->content.slot_count - 1);
	}
	c->content.slots[slot] = frame + 1;
}

/* Index the frames committed since the last time. */
static int index_frames(struct wrep_capture *c)
{
	if (c->content.drops != c->chain.drops) {
		c->content.drops = c->chain.drops;
		c->content.indexed = 0;
		if (c->content.slots != NULL)
			memset(c->content.slots, 0,
			       c->content.slot_count * sizeof(*c->content.slots));
	}
	if ((size_t)c->chain.committed * 2 >= c->content.slot_count) {
		size_t count = 1024;
		uint32_t *slots;

		while (count < (size_t)c->chain.committed * 4)
			count *= 2;
		slots = calloc(count, sizeof(*slots));
		if (slots == NULL)
			return -ENOMEM;
		free(c->content.slots);
		c->content.slots = slots;
		c->content.slot_count = count;
		c->content.indexed = 0;
	}
	for (; c->content.indexed < c->chain.committed; c->content.indexed++)
		index_frame(c, c->content.indexed);
	return 0;
}

/* Which image of a page is the newest is for the -wal to say, not for the replicated state: where the
 * files lag, that is ahead, and may be back at the content of an older frame. */
bool wrep_wal_content_copied(struct wrep_capture *c, int db_fd, const struct wrep_pagesum *sum)
{
	bool copied = true;
	uint32_t page_size, page_count;
	uint8_t *page, *seen;

	if (wrep_wal_chain_load(&c->chain) != 0)
		return false;
	if (c->chain.committed == 0 || sum->page_size != c->chain.header.page_size)
		return true; /* an emptied database, or one of another page size: nothing of it counts */
	page_size = c->chain.header.page_size;
	page_count = c->chain.frames[c->chain.committed - 1].page_count;
	page = malloc(page_size);
	seen = calloc(page_count / 8 + 1, 1);
	if (page == NULL || seen == NULL)
		copied = false;
	for (uint32_t i = c->chain.committed; i > 0 && copied; i--) {
		const struct wrep_wal_chain_frame *f = &c->chain.frames[i - 1];
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

int wrep_wal_content_find(struct wrep_capture *c, uint32_t page_size, const uint32_t *pgno,
			  uint32_t count, uint64_t *offset)
{
	int rc = wrep_wal_chain_load(&c->chain);

	memset(offset, 0, count * sizeof(*offset));
	if (rc != 0 || c->chain.committed == 0 || c->chain.header.page_size != page_size)
		return rc;
	for (uint32_t i = 0; i < c->chain.committed; i++)
		for (uint32_t k = 0; k < count; k++)
			if (c->chain.frames[i].pgno == pgno[k])
				offset[k] = wrep_wal_frame_offset(page_size, i) +
					    WREP_FRAME_HEADER_BYTES;
	return 0;
}

bool wrep_wal_content_holds(struct wrep_capture *c, uint32_t pgno, uint64_t hash)
{
	size_t slot;

	if (wrep_wal_chain_load(&c->chain) != 0 || c->chain.committed == 0)
		return false;
	if (index_frames(c) != 0) {
		for (uint32_t i = 0; i < c->chain.committed; i++)
			if (c->chain.frames[i].pgno == pgno && c->chain.frames[i].hash == hash)
				return true;
		return false;
	}
	for (slot = index_slot(c, pgno, hash); c->content.slots[slot] != 0;
	     slot = (slot + 1) & (c->content.slot_count - 1)) {
		const struct wrep_wal_chain_frame *f = &c->chain.frames[c->content.slots[slot] - 1];

		if (f->pgno == pgno && f->hash == hash)
			return true;
	}
	return false;
}

bool wrep_wal_content_fits(struct wrep_capture *c, uint32_t page_count)
{
	if (wrep_wal_chain_load(&c->chain) != 0)
		return false;
	for (uint32_t i = c->chain.committed; i > 0; i--)
		if (c->chain.frames[i - 1].page_count != 0 &&
		    c->chain.frames[i - 1].page_count <= page_count)
			return true;
	return false;
}
