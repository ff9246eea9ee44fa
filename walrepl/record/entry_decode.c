/* Entries of the Raft log, decoded and checked: see the diagram in entry_format.h. */
#include "base/attr.h"
#include "record/entry.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include "base/bytes.h"
#include "record/entry_format.h"
#include "sqlite/file_format.h"
#include "sqlite/names.h"
#include "walrepl.h"

#define ATTR_ALL (WREP_ATTR_MODE | WREP_ATTR_UID | WREP_ATTR_GID | WREP_ATTR_TIMES)
#define MODE_ALL 0177777u

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

struct wrep_attr wrep_entry_attr(const struct wrep_entry *e)
{
	return (struct wrep_attr){
		.valid = e->attr_valid,
		.mode = e->mode,
		.uid = e->uid,
		.gid = e->gid,
		.atime = wrep_attr_time(e->atime_ns, e->atime_omit),
		.mtime = wrep_attr_time(e->mtime_ns, e->mtime_omit),
	};
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
