/* Entries of the Raft log, encoded, and how much fits into one: see the diagram in entry_format.h. */
#include "record/entry.h"

#include <assert.h>
#include <string.h>
#include "base/bytes.h"
#include "record/entry_format.h"

uint32_t wrep_entry_images_max(uint32_t page_size)
{
	uint32_t count = (WREP_ENTRY_BYTES - COMMIT_BYTES) / (page_size + 4);

	return count > 0 ? count : 1;
}

/* Bytes behind the head of each COMMIT in a group. */
static uint32_t member_room(uint32_t count)
{
	uint32_t each = (WREP_ENTRY_BYTES - GROUP_BYTES) / count / 8 * 8;

	if (each < MEMBER_BYTES + COMMIT_BYTES + 8)
		return 0;
	return each - MEMBER_BYTES - COMMIT_BYTES - 8;
}

uint32_t wrep_entry_group_images_max(uint32_t page_size, uint32_t count)
{
	return member_room(count) / (page_size + 4);
}

uint32_t wrep_entry_group_dropped_max(uint32_t count)
{
	return member_room(count) / 4;
}

/* Zeros up to `zeroed` bytes, with the common part filled in. */
static void put_common(uint8_t *p, const struct wrep_entry *e, size_t zeroed)
{
	memset(p, 0, zeroed);
	p[0] = (uint8_t)e->type;
	p[1] = ENTRY_VERSION;
	wrep_put64(p + 8,
		   e->type == WREP_ENTRY_CREATE || e->type == WREP_ENTRY_MKDIR ? 0 : e->db_id);
}

/* A zeroed buffer up to `zeroed` bytes, with the common part filled in. */
static struct rlog_buf *new_entry(const struct wrep_entry *e, size_t len, size_t zeroed)
{
	struct rlog_buf *buf = rlog_buf_new(len);

	if (buf == NULL)
		return NULL;
	put_common(buf->data, e, zeroed);
	return buf;
}

static struct rlog_buf *encode_create(const struct wrep_entry *e)
{
	size_t name_len = strnlen(e->name, sizeof(e->name));
	struct rlog_buf *buf = new_entry(e, CREATE_BYTES + name_len, CREATE_BYTES);

	assert(name_len > 0 && name_len <= WREP_NAME_MAX);
	if (buf == NULL)
		return NULL;
	wrep_put16(buf->data + 2, (uint16_t)name_len);
	wrep_put32(buf->data + 4, e->mode);
	wrep_put32(buf->data + 16, e->uid);
	wrep_put32(buf->data + 20, e->gid);
	memcpy(buf->data + CREATE_BYTES, e->name, name_len);
	return buf;
}

static struct rlog_buf *encode_rename(const struct wrep_entry *e)
{
	size_t name_len = strnlen(e->name, sizeof(e->name));
	struct rlog_buf *buf = new_entry(e, RENAME_BYTES + name_len, RENAME_BYTES);

	assert(name_len > 0 && name_len <= WREP_NAME_MAX);
	if (buf == NULL)
		return NULL;
	wrep_put16(buf->data + 2, (uint16_t)name_len);
	wrep_put32(buf->data + 4, e->keep ? RENAME_KEEP : 0);
	memcpy(buf->data + RENAME_BYTES, e->name, name_len);
	return buf;
}

static struct rlog_buf *encode_setattr(const struct wrep_entry *e)
{
	struct rlog_buf *buf = new_entry(e, SETATTR_BYTES, SETATTR_BYTES);

	if (buf == NULL)
		return NULL;
	wrep_put32(buf->data + 4, e->mode);
	wrep_put32(buf->data + 16, e->uid);
	wrep_put32(buf->data + 20, e->gid);
	wrep_put32(buf->data + 24, e->attr_valid);
	wrep_put32(buf->data + 28,
		   (e->atime_omit ? OMIT_ATIME : 0) | (e->mtime_omit ? OMIT_MTIME : 0));
	wrep_put64(buf->data + 32, (uint64_t)e->atime_ns);
	wrep_put64(buf->data + 40, (uint64_t)e->mtime_ns);
	return buf;
}

static struct rlog_buf *encode_discard(const struct wrep_entry *e)
{
	struct rlog_buf *buf = new_entry(e, DISCARD_BYTES, DISCARD_BYTES);

	if (buf == NULL)
		return NULL;
	wrep_put64(buf->data + 16, e->origin);
	wrep_put64(buf->data + 24, e->sequence);
	return buf;
}

struct rlog_buf *wrep_entry_encode(const struct wrep_entry *e)
{
	struct wrep_entry copy;

	switch (e->type) {
	case WREP_ENTRY_CREATE:
	case WREP_ENTRY_MKDIR:
		return encode_create(e);
	case WREP_ENTRY_RENAME:
		return encode_rename(e);
	case WREP_ENTRY_UNLINK:
	case WREP_ENTRY_RMDIR:
		return new_entry(e, COMMON_BYTES, COMMON_BYTES);
	case WREP_ENTRY_SETATTR:
		return encode_setattr(e);
	case WREP_ENTRY_DISCARD:
		return encode_discard(e);
	case WREP_ENTRY_PAGES:
	case WREP_ENTRY_COMMIT:
	case WREP_ENTRY_GROUP:
		break;
	}
	assert(e->type == WREP_ENTRY_COMMIT && e->image_count == 0);
	copy = *e;
	return wrep_entry_alloc(&copy);
}

/* Bytes of a PAGES or COMMIT entry. */
static size_t images_entry_bytes(const struct wrep_entry *e)
{
	return header_bytes(e->type) + (size_t)e->image_count * e->page_size +
	       ((size_t)e->image_count + e->dropped_count) * 4;
}

/* All of it at `p` but the images and page numbers, to whose places the pointers in `e` are set. */
static void put_images_entry(uint8_t *p, struct wrep_entry *e)
{
	size_t head = header_bytes(e->type);

	assert(!e->dropped_count || (e->type == WREP_ENTRY_COMMIT && !e->image_count));
	put_common(p, e, head);
	wrep_put32(p + 4, e->part);
	wrep_put64(p + 16, e->origin);
	wrep_put64(p + 24, e->sequence);
	wrep_put32(p + 32, e->page_size);
	wrep_put32(p + 36, e->image_count);
	if (e->type == WREP_ENTRY_COMMIT) {
		wrep_put64(p + 40, e->base_version);
		wrep_put64(p + 48, e->checksum);
		wrep_put32(p + 56, e->page_count);
		wrep_put32(p + 60, e->total_pages);
		wrep_put32(p + 64, e->commit_mode);
		wrep_put32(p + 68, e->dropped_count);
	}
	e->images = p + head;
	e->pgnos = e->images + (size_t)e->image_count * e->page_size;
	e->dropped = e->pgnos + (size_t)e->image_count * 4;
}

struct rlog_buf *wrep_entry_alloc(struct wrep_entry *e)
{
	struct rlog_buf *buf = rlog_buf_new(images_entry_bytes(e));

	assert(e->type == WREP_ENTRY_PAGES || e->type == WREP_ENTRY_COMMIT);
	if (buf != NULL)
		put_images_entry(buf->data, e);
	return buf;
}

struct rlog_buf *wrep_entry_alloc_group(struct wrep_entry *members, uint32_t count)
{
	const struct wrep_entry group = {.type = WREP_ENTRY_GROUP};
	size_t len = GROUP_BYTES;
	struct rlog_buf *buf;
	uint8_t *p;

	assert(count >= 2 && count <= UINT16_MAX);
	for (uint32_t i = 0; i < count; i++) {
		assert(members[i].type == WREP_ENTRY_COMMIT);
		len += MEMBER_BYTES + padded(images_entry_bytes(&members[i]));
	}
	buf = rlog_buf_new(len);
	if (buf == NULL)
		return NULL;
	put_common(buf->data, &group, GROUP_BYTES);
	wrep_put16(buf->data + 2, (uint16_t)count);
	p = buf->data + GROUP_BYTES;
	for (uint32_t i = 0; i < count; i++) {
		size_t bytes = images_entry_bytes(&members[i]);

		wrep_put32(p, (uint32_t)bytes);
		wrep_put32(p + 4, 0);
		p += MEMBER_BYTES;
		put_images_entry(p, &members[i]);
		memset(p + bytes, 0, padded(bytes) - bytes);
		p += padded(bytes);
	}
	return buf;
}

void wrep_entry_set_pgno(struct wrep_entry *e, uint32_t i, uint32_t pgno)
{
	assert(i < e->image_count);
	wrep_put32((uint8_t *)e->pgnos + (size_t)i * 4, pgno);
}

void wrep_entry_set_dropped(struct wrep_entry *e, uint32_t i, uint32_t pgno)
{
	assert(i < e->dropped_count);
	wrep_put32((uint8_t *)e->dropped + (size_t)i * 4, pgno);
}
