/* Encoding of the manifest. Numbers are little-endian; raftlog's snapshot checks the bytes.
 *
 *    0: "dqlM" | 4: u32 version | 8: u64 redo_until | 16: u32 count | 20: u32 group_count
 *   then for each database
 *    0: u64 id | 8: u64 version | 16: u64 index | 24: u64 checksum
 *   32: u32 page_size | 36: u32 page_count | 40: u32 flags (1: WAL mode) | 44: u32 wal_frames
 *   48: the salts, 8 bytes as they are in the -wal | 56: u16 name_len | 58: u16 0, u32 0
 *   64: name, without a NUL
 *   and at the end
 *    0: u64 judged_until | 8: group_count * u64 index
 *
 * Version history: 1, the first.
 *   2: groups. In version 1 group_count is 0, and nothing stands behind the databases.
 */
#include "manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "bytes.h"

#define MANIFEST_VERSION 2
#define HEAD_BYTES 24u
#define DB_BYTES 64u
#define FLAG_WAL_MODE 1u

static const uint8_t magic[4] = {'d', 'q', 'l', 'M'};

void wrep_manifest_clear(struct wrep_manifest *m)
{
	free(m->dbs);
	free(m->groups);
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

bool wrep_manifest_has_group(const struct wrep_manifest *m, uint64_t index)
{
	for (size_t from = 0, to = m->group_count; from < to;) {
		size_t middle = from + (to - from) / 2;

		if (m->groups[middle] == index)
			return true;
		if (m->groups[middle] < index)
			from = middle + 1;
		else
			to = middle;
	}
	return false;
}

struct wrep_manifest_db *wrep_manifest_add(struct wrep_manifest *m)
{
	if (m->count == m->capacity) {
		size_t capacity = m->capacity ? m->capacity * 2 : 16;
		struct wrep_manifest_db *dbs = reallocarray(m->dbs, capacity, sizeof *dbs);

		if (!dbs)
			return NULL;
		m->dbs = dbs;
		m->capacity = capacity;
	}
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
		wrep_put32(p + 40, d->wal_mode ? FLAG_WAL_MODE : 0);
		wrep_put32(p + 44, d->wal_frames);
		memcpy(p + 48, d->wal_salt, 8);
		wrep_put16(p + 56, (uint16_t)name_len);
		memcpy(p + DB_BYTES, d->name, name_len);
		p += DB_BYTES + name_len;
	}
	wrep_put64(p, m->judged_until);
	for (size_t i = 0; i < m->group_count; i++)
		wrep_put64(p + 8 + i * 8, m->groups[i]);
	return buf;
}

/* What stands behind the databases of version 2. 0, -EBADMSG, -ENOMEM. */
static int decode_groups(const uint8_t *p, size_t len, uint32_t count, struct wrep_manifest *out)
{
	if (len < 8 || (len - 8) % 8 || (len - 8) / 8 != count)
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
	return 0;
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
		d->wal_frames = wrep_get32(p + 44);
		memcpy(d->wal_salt, p + 48, 8);
		memcpy(d->name, p + DB_BYTES, name_len);
		if (strlen(d->name) != name_len || strchr(d->name, '/') || d->id == 0 ||
		    !strcmp(d->name, ".") || !strcmp(d->name, "..") ||
		    (d->page_count && (d->page_size < 512 || d->page_size > 65536 ||
				       (d->page_size & (d->page_size - 1)))))
			goto bad;
		p += DB_BYTES + name_len;
	}
	rc = version < 2 ? (p == end ? 0 : -EBADMSG)
			 : decode_groups(p, (size_t)(end - p), groups, out);
	if (rc)
		wrep_manifest_clear(out);
	return rc;
bad:
	wrep_manifest_clear(out);
	return -EBADMSG;
}
