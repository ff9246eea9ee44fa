/* Encoding of the manifest. Numbers are little-endian; raftlog's snapshot checks the bytes.
 *
 *    0: "dqlM" | 4: u32 version | 8: u64 redo_until | 16: u32 count | 20: u32 group_count
 *   then for each database
 *    0: u64 id | 8: u64 version | 16: u64 index | 24: u64 checksum
 *   32: u32 page_size | 36: u32 page_count | 40: u32 flags (1: WAL mode, 2: gone) | 44: u32 wal_frames
 *   48: the salts, 8 bytes as they are in the -wal | 56: u16 name_len | 58: u16 0, u32 0
 *   64: name, without a NUL
 *   then
 *    0: u64 judged_until | 8: group_count * u64 index
 *   then
 *    0: u64 names_index | 8: u32 dir_count | 12: u32 0
 *   and for each directory
 *    0: u64 id | 8: i64 mtime_ns | 16: u32 mode | 20: u32 uid | 24: u32 gid | 28: u16 path_len, u16 0
 *   32: path, without a NUL
 *
 * A later version is written only where rlog_format_needed() allows its level (format.h): other nodes read
 * manifests, and the version before may have to. Versions 1 to 3 are of level 1.
 *
 * Version history: 1, the first.
 *   2: groups. In version 1 group_count is 0, and nothing stands behind the databases.
 *   3: directories. In version 2 nothing stands behind the groups.
 */
#include "record/manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/array.h"
#include "base/bytes.h"
#include "sqlite/file_format.h"
#include "sqlite/names.h"

#define MANIFEST_VERSION 3
#define HEAD_BYTES 24u
#define DB_BYTES 64u
#define FLAG_WAL_MODE 1u
#define FLAG_GONE 2u
#define DIRS_HEAD_BYTES 16u
#define DIR_BYTES 32u

static const uint8_t magic[4] = {'d', 'q', 'l', 'M'};

void wrep_manifest_clear(struct wrep_manifest *m)
{
	free(m->dbs);
	free(m->groups);
	free(m->dirs);
	memset(m, 0, sizeof *m);
}

int wrep_manifest_set_groups(struct wrep_manifest *m, uint64_t judged_until,
			     const uint64_t *indices, size_t count)
{
	uint64_t *copy = malloc((count + 1) * sizeof *copy);

	if (!copy)
		return -ENOMEM;
	if (count)
		memcpy(copy, indices, count * sizeof *copy);
	free(m->groups);
	m->groups = copy;
	m->group_count = count;
	m->judged_until = judged_until;
	return 0;
}

struct wrep_manifest_db *wrep_manifest_add(struct wrep_manifest *m)
{
	if (wrep_array_reserve(&m->dbs, &m->capacity, m->count + 1, sizeof *m->dbs))
		return NULL;
	memset(&m->dbs[m->count], 0, sizeof m->dbs[0]);
	return &m->dbs[m->count++];
}

static int compare_ids(const void *left, const void *right)
{
	const struct wrep_manifest_db *a = left, *b = right;

	return (a->id > b->id) - (a->id < b->id);
}

void wrep_manifest_sort(struct wrep_manifest *m)
{
	if (m->count)
		qsort(m->dbs, m->count, sizeof *m->dbs, compare_ids);
}

struct wrep_manifest_dir *wrep_manifest_add_dir(struct wrep_manifest *m)
{
	if (wrep_array_reserve(&m->dirs, &m->dir_capacity, m->dir_count + 1, sizeof *m->dirs))
		return NULL;
	memset(&m->dirs[m->dir_count], 0, sizeof m->dirs[0]);
	return &m->dirs[m->dir_count++];
}

static int compare_dirs(const void *a, const void *b)
{
	uint64_t x = ((const struct wrep_manifest_dir *)a)->id;
	uint64_t y = ((const struct wrep_manifest_dir *)b)->id;

	return x < y ? -1 : x > y;
}

void wrep_manifest_sort_dirs(struct wrep_manifest *m)
{
	if (m->dir_count)
		qsort(m->dirs, m->dir_count, sizeof *m->dirs, compare_dirs);
}

int wrep_manifest_copy(const struct wrep_manifest *from, struct wrep_manifest *to)
{
	to->redo_until = from->redo_until;
	to->names_index = from->names_index;
	if (wrep_manifest_set_groups(to, from->judged_until, from->groups, from->group_count))
		return -ENOMEM;
	for (size_t i = 0; i < from->count; i++) {
		struct wrep_manifest_db *d = wrep_manifest_add(to);

		if (!d)
			return -ENOMEM;
		*d = from->dbs[i];
	}
	for (size_t i = 0; i < from->dir_count; i++) {
		struct wrep_manifest_dir *d = wrep_manifest_add_dir(to);

		if (!d)
			return -ENOMEM;
		*d = from->dirs[i];
	}
	return 0;
}

struct wrep_manifest_db *wrep_manifest_find(const struct wrep_manifest *m, uint64_t id)
{
	struct wrep_manifest_db key = {.id = id};

	return m->count ? bsearch(&key, m->dbs, m->count, sizeof key, compare_ids) : NULL;
}

struct rlog_buf *wrep_manifest_encode(const struct wrep_manifest *m)
{
	size_t len = HEAD_BYTES + 8 + m->group_count * 8;
	struct rlog_buf *buf;
	uint8_t *p;

	for (size_t i = 0; i < m->count; i++)
		len += DB_BYTES + strlen(m->dbs[i].name);
	len += DIRS_HEAD_BYTES;
	for (size_t i = 0; i < m->dir_count; i++)
		len += DIR_BYTES + strlen(m->dirs[i].path);
	buf = rlog_buf_new(len);
	if (!buf)
		return NULL;
	memset(buf->data, 0, len);
	p = buf->data;
	memcpy(p, magic, sizeof magic);
	wrep_put32(p + 4, MANIFEST_VERSION);
	wrep_put64(p + 8, m->redo_until);
	wrep_put32(p + 16, (uint32_t)m->count);
	wrep_put32(p + 20, (uint32_t)m->group_count);
	p += HEAD_BYTES;
	for (size_t i = 0; i < m->count; i++) {
		const struct wrep_manifest_db *d = &m->dbs[i];
		size_t name_len = strlen(d->name);

		wrep_put64(p, d->id);
		wrep_put64(p + 8, d->version);
		wrep_put64(p + 16, d->index);
		wrep_put64(p + 24, d->checksum);
		wrep_put32(p + 32, d->page_size);
		wrep_put32(p + 36, d->page_count);
		wrep_put32(p + 40, (d->wal_mode ? FLAG_WAL_MODE : 0) | (d->gone ? FLAG_GONE : 0));
		wrep_put32(p + 44, d->wal_frames);
		memcpy(p + 48, d->wal_salt, 8);
		wrep_put16(p + 56, (uint16_t)name_len);
		memcpy(p + DB_BYTES, d->name, name_len);
		p += DB_BYTES + name_len;
	}
	wrep_put64(p, m->judged_until);
	for (size_t i = 0; i < m->group_count; i++)
		wrep_put64(p + 8 + i * 8, m->groups[i]);
	p += 8 + m->group_count * 8;
	wrep_put64(p, m->names_index);
	wrep_put32(p + 8, (uint32_t)m->dir_count);
	p += DIRS_HEAD_BYTES;
	for (size_t i = 0; i < m->dir_count; i++) {
		const struct wrep_manifest_dir *d = &m->dirs[i];
		size_t path_len = strlen(d->path);

		wrep_put64(p, d->id);
		wrep_put64(p + 8, (uint64_t)d->mtime_ns);
		wrep_put32(p + 16, d->mode);
		wrep_put32(p + 20, d->uid);
		wrep_put32(p + 24, d->gid);
		wrep_put16(p + 28, (uint16_t)path_len);
		memcpy(p + DIR_BYTES, d->path, path_len);
		p += DIR_BYTES + path_len;
	}
	return buf;
}

/* The groups of version 2 at `p`, which ends at `end`. How many bytes they are, -EBADMSG, -ENOMEM. */
static ssize_t decode_groups(const uint8_t *p, const uint8_t *end, uint32_t count,
			     struct wrep_manifest *out)
{
	if ((size_t)(end - p) < 8 || (size_t)(end - p - 8) / 8 < count)
		return -EBADMSG;
	out->judged_until = wrep_get64(p);
	out->groups = malloc(((size_t)count + 1) * sizeof *out->groups);
	if (!out->groups)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		out->groups[i] = wrep_get64(p + 8 + (size_t)i * 8);
		if (out->groups[i] > out->judged_until ||
		    (i && out->groups[i] <= out->groups[i - 1]))
			return -EBADMSG;
	}
	out->group_count = count;
	return 8 + (ssize_t)count * 8;
}

/* The directories, which stand behind the groups, up to `end`. 0, -EBADMSG, -ENOMEM. */
static int decode_dirs(const uint8_t *p, const uint8_t *end, struct wrep_manifest *out)
{
	uint32_t count;

	if ((size_t)(end - p) < DIRS_HEAD_BYTES)
		return -EBADMSG;
	out->names_index = wrep_get64(p);
	count = wrep_get32(p + 8);
	p += DIRS_HEAD_BYTES;
	for (uint32_t i = 0; i < count; i++) {
		struct wrep_manifest_dir *d;
		size_t path_len;

		if ((size_t)(end - p) < DIR_BYTES)
			return -EBADMSG;
		path_len = wrep_get16(p + 28);
		if ((size_t)(end - p) < DIR_BYTES + path_len || !wrep_get64(p) ||
		    wrep_get32(p + 16) & ~07777u ||
		    !wrep_names_path_valid((const char *)p + DIR_BYTES, path_len))
			return -EBADMSG;
		d = wrep_manifest_add_dir(out);
		if (!d)
			return -ENOMEM;
		d->id = wrep_get64(p);
		d->mtime_ns = (int64_t)wrep_get64(p + 8);
		d->mode = wrep_get32(p + 16);
		d->uid = wrep_get32(p + 20);
		d->gid = wrep_get32(p + 24);
		memcpy(d->path, p + DIR_BYTES, path_len);
		if (i && d->id <= out->dirs[i - 1].id)
			return -EBADMSG;
		p += DIR_BYTES + path_len;
	}
	return p == end ? 0 : -EBADMSG;
}

int wrep_manifest_decode(const struct rlog_buf *buf, struct wrep_manifest *out)
{
	const uint8_t *p = buf->data, *end = p + buf->len;
	uint32_t version, count, groups;
	int rc;

	memset(out, 0, sizeof *out);
	if (buf->len < HEAD_BYTES || memcmp(p, magic, sizeof magic) != 0)
		return -EBADMSG;
	version = wrep_get32(p + 4);
	groups = wrep_get32(p + 20);
	if (version < 1 || version > MANIFEST_VERSION || (version < 2 && groups))
		return -EBADMSG;
	out->redo_until = wrep_get64(p + 8);
	count = wrep_get32(p + 16);
	p += HEAD_BYTES;
	for (uint32_t i = 0; i < count; i++) {
		struct wrep_manifest_db *d;
		size_t name_len;

		if ((size_t)(end - p) < DB_BYTES)
			goto bad;
		name_len = wrep_get16(p + 56);
		if (name_len == 0 || name_len > WREP_NAME_MAX ||
		    (size_t)(end - p) < DB_BYTES + name_len)
			goto bad;
		d = wrep_manifest_add(out);
		if (!d) {
			wrep_manifest_clear(out);
			return -ENOMEM;
		}
		d->id = wrep_get64(p);
		d->version = wrep_get64(p + 8);
		d->index = wrep_get64(p + 16);
		d->checksum = wrep_get64(p + 24);
		d->page_size = wrep_get32(p + 32);
		d->page_count = wrep_get32(p + 36);
		d->wal_mode = wrep_get32(p + 40) & FLAG_WAL_MODE;
		d->gone = version > 2 && wrep_get32(p + 40) & FLAG_GONE;
		d->wal_frames = wrep_get32(p + 44);
		memcpy(d->wal_salt, p + 48, 8);
		memcpy(d->name, p + DB_BYTES, name_len);
		if (!wrep_names_path_valid(d->name, name_len) || d->id == 0 ||
		    (d->page_count && !wrep_page_size_valid(d->page_size)))
			goto bad;
		p += DB_BYTES + name_len;
	}
	if (version > 1) {
		ssize_t n = decode_groups(p, end, groups, out);

		rc = n < 0	    ? (int)n
		     : version > 2  ? decode_dirs(p + n, end, out)
		     : p + n == end ? 0
				    : -EBADMSG;
	} else {
		rc = p == end ? 0 : -EBADMSG;
	}
	if (rc)
		wrep_manifest_clear(out);
	return rc;
bad:
	wrep_manifest_clear(out);
	return -EBADMSG;
}
