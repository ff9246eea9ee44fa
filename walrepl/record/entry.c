/* Encoding of the entries in the Raft log.
 *
 * Every entry begins with the same 16 bytes; each type goes on as drawn. Numbers are little-endian.
 * What is drawn as 0 must be 0, so that a later version can give it a meaning.
 *
 *   all          0: u8 type | 1: u8 version | 2: u16 0 | 4: u32 0   | 8: u64 db_id
 *   CREATE       db_id is 0, 2: u16 name_len, 4: u32 mode
 *               16: u32 uid | 20: u32 gid | 24: name, without a NUL, to the end
 *   UNLINK      nothing more
 *   SETATTR      4: u32 mode
 *               16: u32 uid | 20: u32 gid | 24: u32 attr_valid | 28: u32 omit (1 atime, 2 mtime)
 *               32: i64 atime_ns | 40: i64 mtime_ns
 *   PAGES        4: u32 part
 *               16: u64 origin | 24: u64 sequence | 32: u32 page_size | 36: u32 image_count
 *               40: images, image_count * page_size bytes
 *                 : page numbers, image_count * u32
 *   COMMIT      as PAGES up to 40, then
 *               40: u64 base_version | 48: u64 checksum | 56: u32 page_count | 60: u32 total_pages
 *               64: u32 commit_mode | 68: u32 dropped_count
 *               72: images, then page numbers, as in PAGES
 *                 : page numbers that are dropped, dropped_count * u32; then there are no images
 *   DISCARD     16: u64 origin | 24: u64 sequence
 *   GROUP       db_id is 0, 2: u16 member_count, at least 2
 *               16: for each member, in ascending order of db_id:
 *                     u32 len | u32 0 | a COMMIT entry of len bytes | zeros up to a multiple of 8
 *   MKDIR       as CREATE
 *   RMDIR       nothing more
 *   RENAME       2: u16 name_len | 4: u32 flags (1: keep what has the name)
 *               16: name, without a NUL, to the end
 *
 * The images come before the page numbers so that they stay aligned.
 *
 * The version says how an entry reads. A later one is written only where rlog_format_level() allows its level
 * (format.h), which rlog_submit() is told; versions 1 and 2 are of level 1.
 *
 * Version history: 1, the first. (DISCARD and GROUP joined it before any release.)
 *   2: PAGES may repeat pages of those before them, in any order from one to the next, and a COMMIT may
 *      drop pages; commit_mode 3; MKDIR, RMDIR and RENAME; names with a '/'. What version 1 holds reads the same.
 */
#include "record/entry.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include "base/bytes.h"
#include "sqlite/file_format.h"
#include "sqlite/names.h"
#include "walrepl.h"

#define ENTRY_VERSION 2

#define COMMON_BYTES 16u
#define CREATE_BYTES 24u
#define SETATTR_BYTES 48u
#define PAGES_BYTES 40u
#define COMMIT_BYTES 72u
#define DISCARD_BYTES 32u
#define GROUP_BYTES 16u
#define MEMBER_BYTES 8u
#define RENAME_BYTES 16u

_Static_assert(COMMIT_BYTES + 4 * WREP_ENTRY_DROPPED_MAX <= WREP_ENTRY_BYTES,
	       "a COMMIT that drops as many as it may");

#define RENAME_KEEP 1u
#define OMIT_ATIME 1u
#define OMIT_MTIME 2u
#define ATTR_ALL (WREP_ATTR_MODE | WREP_ATTR_UID | WREP_ATTR_GID | WREP_ATTR_TIMES)
#define MODE_ALL 0177777u

static size_t header_bytes(enum wrep_entry_type type)
{
	return type == WREP_ENTRY_COMMIT ? COMMIT_BYTES : PAGES_BYTES;
}

uint32_t wrep_entry_images_max(uint32_t page_size)
{
	uint32_t count = (WREP_ENTRY_BYTES - COMMIT_BYTES) / (page_size + 4);

	return count > 0 ? count : 1;
}

static size_t padded(size_t len)
{
	return (len + 7) / 8 * 8;
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

/* ---- decoding ---------------------------------------------------------------------------------- */

/* A path from `from` to the end. */
static int decode_name(const uint8_t *p, size_t from, size_t len, struct wrep_entry *e)
{
	size_t name_len = wrep_get16(p + 2);

	if (name_len > WREP_NAME_MAX || len != from + name_len ||
	    !wrep_names_path_valid((const char *)p + from, name_len))
		return -EBADMSG;
	memcpy(e->name, p + from, name_len);
	e->name[name_len] = '\0';
	return 0;
}

static int decode_create(const uint8_t *p, size_t len, struct wrep_entry *e)
{
	if (len < CREATE_BYTES || e->db_id != 0)
		return -EBADMSG;
	e->mode = wrep_get32(p + 4);
	e->uid = wrep_get32(p + 16);
	e->gid = wrep_get32(p + 20);
	if (e->mode & ~MODE_ALL)
		return -EBADMSG;
	return decode_name(p, CREATE_BYTES, len, e);
}

static int decode_rename(const uint8_t *p, size_t len, struct wrep_entry *e)
{
	if (wrep_get32(p + 4) & ~RENAME_KEEP)
		return -EBADMSG;
	e->keep = (wrep_get32(p + 4) & RENAME_KEEP) != 0;
	return decode_name(p, RENAME_BYTES, len, e);
}

static int decode_setattr(const uint8_t *p, size_t len, struct wrep_entry *e)
{
	uint32_t omit;

	if (len != SETATTR_BYTES || wrep_get16(p + 2) != 0)
		return -EBADMSG;
	e->mode = wrep_get32(p + 4);
	e->uid = wrep_get32(p + 16);
	e->gid = wrep_get32(p + 20);
	e->attr_valid = wrep_get32(p + 24);
	omit = wrep_get32(p + 28);
	e->atime_ns = (int64_t)wrep_get64(p + 32);
	e->mtime_ns = (int64_t)wrep_get64(p + 40);
	e->atime_omit = (omit & OMIT_ATIME) != 0;
	e->mtime_omit = (omit & OMIT_MTIME) != 0;
	if (e->mode & ~MODE_ALL || e->attr_valid & ~ATTR_ALL || omit & ~(OMIT_ATIME | OMIT_MTIME))
		return -EBADMSG;
	return 0;
}

static int decode_discard(const uint8_t *p, size_t len, struct wrep_entry *e)
{
	if (len != DISCARD_BYTES || wrep_get16(p + 2) != 0 || wrep_get32(p + 4) != 0)
		return -EBADMSG;
	e->origin = wrep_get64(p + 16);
	e->sequence = wrep_get64(p + 24);
	return 0;
}

/* Page numbers: ascending, and within what the entry says of the database. */
static int check_pgnos(const struct wrep_entry *e, const uint8_t *pgnos, uint32_t count)
{
	uint32_t last = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t pgno = wrep_entry_number(pgnos, i);

		if (pgno <= last || pgno == wrep_lock_page(e->page_size))
			return -EBADMSG;
		last = pgno;
	}
	if (e->type == WREP_ENTRY_COMMIT && last > e->page_count)
		return -EBADMSG;
	return 0;
}

static int check_commit(const struct wrep_entry *e)
{
	if (e->commit_mode != WREP_COMMIT_WAL && e->commit_mode != WREP_COMMIT_ROLLBACK &&
	    e->commit_mode != WREP_COMMIT_REPLACE)
		return -EBADMSG;
	if (e->image_count > e->total_pages)
		return -EBADMSG;
	if (e->part == 0 && e->image_count != e->total_pages)
		return -EBADMSG;
	if (e->dropped_count && (e->part == 0 || e->image_count || !e->page_size))
		return -EBADMSG;
	return 0;
}

static int decode_images(const uint8_t *p, size_t len, struct wrep_entry *e)
{
	size_t head = header_bytes(e->type);
	uint64_t images;
	int rc;

	if (len < head || wrep_get16(p + 2) != 0)
		return -EBADMSG;
	e->part = wrep_get32(p + 4);
	e->origin = wrep_get64(p + 16);
	e->sequence = wrep_get64(p + 24);
	e->page_size = wrep_get32(p + 32);
	e->image_count = wrep_get32(p + 36);
	if (e->type == WREP_ENTRY_COMMIT) {
		e->base_version = wrep_get64(p + 40);
		e->checksum = wrep_get64(p + 48);
		e->page_count = wrep_get32(p + 56);
		e->total_pages = wrep_get32(p + 60);
		e->commit_mode = wrep_get32(p + 64);
		e->dropped_count = wrep_get32(p + 68);
		if (e->dropped_count && p[1] < 2)
			return -EBADMSG;
		rc = check_commit(e);
		if (rc != 0)
			return rc;
	} else if (e->image_count == 0) {
		return -EBADMSG;
	}
	/* A database that became empty has no page size. */
	if (!wrep_page_size_valid(e->page_size) &&
	    !(e->type == WREP_ENTRY_COMMIT && e->page_size == 0 && e->page_count == 0 &&
	      e->total_pages == 0))
		return -EBADMSG;
	images = (uint64_t)e->image_count * e->page_size;
	if (len != head + images + ((uint64_t)e->image_count + e->dropped_count) * 4)
		return -EBADMSG;
	if (len > WREP_ENTRY_BYTES && e->image_count != 1)
		return -EBADMSG;
	e->images = p + head;
	e->pgnos = e->images + images;
	e->dropped = e->pgnos + (size_t)e->image_count * 4;
	rc = check_pgnos(e, e->pgnos, e->image_count);
	return rc ? rc : check_pgnos(e, e->dropped, e->dropped_count);
}

static int decode_group(const uint8_t *p, size_t len, struct wrep_entry *e);

static int decode(const uint8_t *p, size_t len, struct wrep_entry *out)
{
	memset(out, 0, sizeof(*out));
	if (len < COMMON_BYTES || p[1] < 1 || p[1] > ENTRY_VERSION)
		return -EBADMSG;
	out->type = p[0];
	out->db_id = wrep_get64(p + 8);
	if (out->type != WREP_ENTRY_CREATE && out->type != WREP_ENTRY_MKDIR &&
	    out->type != WREP_ENTRY_GROUP && out->db_id == 0)
		return -EBADMSG;
	switch (out->type) {
	case WREP_ENTRY_CREATE:
	case WREP_ENTRY_MKDIR:
		return decode_create(p, len, out);
	case WREP_ENTRY_RENAME:
		return decode_rename(p, len, out);
	case WREP_ENTRY_UNLINK:
	case WREP_ENTRY_RMDIR:
		return len == COMMON_BYTES && wrep_get16(p + 2) == 0 && wrep_get32(p + 4) == 0
			       ? 0
			       : -EBADMSG;
	case WREP_ENTRY_SETATTR:
		return decode_setattr(p, len, out);
	case WREP_ENTRY_PAGES:
	case WREP_ENTRY_COMMIT:
		return decode_images(p, len, out);
	case WREP_ENTRY_DISCARD:
		return decode_discard(p, len, out);
	case WREP_ENTRY_GROUP:
		return decode_group(p, len, out);
	}
	return -EBADMSG;
}

/* The member at `*at`, which moves on behind it. */
static int decode_member(const uint8_t *p, size_t len, size_t *at, struct wrep_entry *out)
{
	size_t start = *at + MEMBER_BYTES, bytes;

	if (len < start || wrep_get32(p + *at + 4) != 0)
		return -EBADMSG;
	bytes = wrep_get32(p + *at);
	if (bytes < COMMIT_BYTES || bytes > len - start || padded(bytes) > len - start ||
	    p[start] != WREP_ENTRY_COMMIT)
		return -EBADMSG;
	for (size_t i = bytes; i < padded(bytes); i++)
		if (p[start + i] != 0)
			return -EBADMSG;
	*at = start + padded(bytes);
	return decode(p + start, bytes, out);
}

static int decode_group(const uint8_t *p, size_t len, struct wrep_entry *e)
{
	uint64_t last = 0;
	size_t at = GROUP_BYTES;

	if (len > WREP_ENTRY_BYTES || e->db_id != 0 || wrep_get32(p + 4) != 0)
		return -EBADMSG;
	e->member_count = wrep_get16(p + 2);
	for (uint32_t i = 0; i < e->member_count; i++) {
		struct wrep_entry member;

		if (decode_member(p, len, &at, &member) != 0 || member.db_id <= last)
			return -EBADMSG;
		last = member.db_id;
	}
	return e->member_count >= 2 && at == len ? 0 : -EBADMSG;
}

int wrep_entry_decode(const struct rlog_buf *buf, struct wrep_entry *out)
{
	return decode(buf->data, buf->len, out);
}

bool wrep_entry_member(const struct rlog_buf *buf, size_t *at, struct wrep_entry *out)
{
	if (*at == 0)
		*at = GROUP_BYTES;
	if (*at == buf->len)
		return false;
	if (decode_member(buf->data, buf->len, at, out) != 0)
		assert(!"a member of a group that was decoded");
	return true;
}

/* ---- encoding ---------------------------------------------------------------------------------- */

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
