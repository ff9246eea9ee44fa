/* See memdisk.h. Files are byte arrays that are always durable; what is not durable is kept apart:
 * the directory's changes since the last sync_dir, and the one write that was started. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "memdisk.h"

#define NAME_BYTES 64

struct file {
	uint8_t *bytes;
	uint64_t size;
};

struct entry {
	char name[NAME_BYTES];
	size_t file;
};

struct directory {
	struct entry *at;
	size_t count;
};

struct change {
	enum { CHANGE_ADD, CHANGE_RENAME, CHANGE_REMOVE } kind;
	char name[NAME_BYTES], to[NAME_BYTES];
	size_t file;
};

struct memdisk {
	struct rlog_disk base; /* first */
	uint64_t random;
	struct file *files;
	size_t file_count;
	struct directory now, durable;
	struct change *changes; /* from durable to now */
	size_t change_count;
	struct {
		size_t file;
		bool open;
	} * handles;
	int handle_count;
	uint64_t capacity;
	unsigned calls, fail_at, off_at;
	int fail_err;
	bool off;
	struct {
		bool pending;
		size_t file;
		uint64_t offset;
		uint8_t *bytes;
		size_t len;
	} write;
};

static struct memdisk *of(struct rlog_disk *d)
{
	return (struct memdisk *)d;
}

static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

static uint64_t draw(struct memdisk *m)
{
	uint64_t z = (m->random += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* ---- the directory ------------------------------------------------------------------------ */

static struct entry *find(const struct directory *dir, const char *name)
{
	for (size_t i = 0; i < dir->count; i++)
		if (strcmp(dir->at[i].name, name) == 0)
			return &dir->at[i];
	return NULL;
}

static void directory_copy(struct directory *to, const struct directory *from)
{
	to->at = must(realloc(to->at, (from->count + 1) * sizeof(*to->at)));
	if (from->count > 0)
		memcpy(to->at, from->at, from->count * sizeof(*to->at));
	to->count = from->count;
}

static void directory_remove(struct directory *dir, const char *name)
{
	struct entry *e = find(dir, name);

	if (e)
		*e = dir->at[--dir->count];
}

static void directory_change(struct directory *dir, const struct change *c)
{
	struct entry *e;

	switch (c->kind) {
	case CHANGE_ADD:
		dir->at = must(realloc(dir->at, (dir->count + 1) * sizeof(*dir->at)));
		e = &dir->at[dir->count++];
		strcpy(e->name, c->name);
		e->file = c->file;
		break;
	case CHANGE_RENAME:
		directory_remove(dir, c->to);
		e = find(dir, c->name);
		strcpy(e->name, c->to);
		break;
	case CHANGE_REMOVE:
		directory_remove(dir, c->name);
		break;
	}
}

static void change(struct memdisk *m, const struct change *c)
{
	m->changes = must(realloc(m->changes, (m->change_count + 1) * sizeof(*m->changes)));
	m->changes[m->change_count++] = *c;
	directory_change(&m->now, c);
}

static bool named(const struct directory *dir, size_t file)
{
	for (size_t i = 0; i < dir->count; i++)
		if (dir->at[i].file == file)
			return true;
	return false;
}

/* Make the first `count` changes durable, forget the others, free what has no name any more. */
static void settle(struct memdisk *m, size_t count)
{
	for (size_t i = 0; i < count; i++)
		directory_change(&m->durable, &m->changes[i]);
	m->change_count = 0;
	directory_copy(&m->now, &m->durable);
	for (size_t i = 0; i < m->file_count; i++) {
		if (!m->files[i].bytes || named(&m->now, i))
			continue;
		free(m->files[i].bytes);
		m->files[i] = (struct file){0};
	}
}

/* ---- content ------------------------------------------------------------------------------ */

static void resize(struct file *f, uint64_t size)
{
	f->bytes = must(realloc(f->bytes, size + 1));
	if (size > f->size)
		memset(f->bytes + f->size, 0, size - f->size);
	f->size = size;
}

static void put(struct file *f, uint64_t offset, const uint8_t *bytes, size_t len)
{
	if (offset + len > f->size)
		resize(f, offset + len);
	memcpy(f->bytes + offset, bytes, len);
}

static bool keep_random(void *arg, size_t sector)
{
	(void)sector;
	return draw(arg) & 1;
}

static void put_torn(struct file *f, uint64_t offset, const uint8_t *bytes, size_t len,
		     bool (*keep)(void *arg, size_t sector), void *arg)
{
	for (size_t at = 0; at < len; at += MEMDISK_SECTOR)
		if (keep(arg, at / MEMDISK_SECTOR))
			put(f, offset + at, bytes + at, MEMDISK_SECTOR);
}

/* Mostly anything, but all and nothing more often than chance would have them. */
static void put_torn_randomly(struct memdisk *m, struct file *f, uint64_t offset,
			      const uint8_t *bytes, size_t len)
{
	uint64_t how = draw(m) % 8;
	size_t prefix;

	if (how == 0)
		return;
	if (how == 1) {
		put(f, offset, bytes, len);
	} else if (how == 2) {
		prefix = draw(m) % (len / MEMDISK_SECTOR + 1) * MEMDISK_SECTOR;
		if (prefix > 0)
			put(f, offset, bytes, prefix);
	} else if (how == 3) {
		prefix = draw(m) % (len / MEMDISK_SECTOR) * MEMDISK_SECTOR;
		put(f, offset + prefix, bytes + prefix, len - prefix);
	} else {
		put_torn(f, offset, bytes, len, keep_random, m);
	}
}

static uint64_t used(const struct memdisk *m)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < m->now.count; i++)
		sum += m->files[m->now.at[i].file].size;
	return sum;
}

/* ---- faults ------------------------------------------------------------------------------- */

/* Ahead of each changing call: 0, -errno to fail with, or 1: power fails within this call. */
static int fault(struct memdisk *m)
{
	if (m->off)
		return -EIO;
	m->calls++;
	if (m->calls == m->off_at) {
		m->off = true;
		return 1;
	}
	return m->calls == m->fail_at ? m->fail_err : 0;
}

static struct file *file_of(struct memdisk *m, int handle, int *err)
{
	*err = m->off ? -EIO : -EBADF;
	if (m->off || handle < 0 || handle >= m->handle_count || !m->handles[handle].open)
		return NULL;
	return &m->files[m->handles[handle].file];
}

/* ---- struct rlog_disk --------------------------------------------------------------------- */

static int mem_open(struct rlog_disk *d, const char *name, bool create)
{
	struct memdisk *m = of(d);
	struct entry *e = find(&m->now, name);
	struct change c = {.kind = CHANGE_ADD};
	int err;

	assert(strlen(name) < NAME_BYTES);
	if (m->off)
		return -EIO;
	if (create && e)
		return -EEXIST;
	if (!create && !e)
		return -ENOENT;
	if (create) {
		err = fault(m);
		if (err < 0)
			return err;
		m->files = must(realloc(m->files, (m->file_count + 1) * sizeof(*m->files)));
		m->files[m->file_count] = (struct file){.bytes = must(malloc(1))};
		strcpy(c.name, name);
		c.file = m->file_count++;
		change(m, &c);
		if (err == 1)
			return -EIO;
		e = find(&m->now, name);
	}
	m->handles = must(realloc(m->handles, ((size_t)m->handle_count + 1) * sizeof(*m->handles)));
	m->handles[m->handle_count].file = e->file;
	m->handles[m->handle_count].open = true;
	return m->handle_count++;
}

static int mem_close(struct rlog_disk *d, int handle)
{
	struct memdisk *m = of(d);
	int err;

	if (!file_of(m, handle, &err))
		return err;
	m->handles[handle].open = false;
	return 0;
}

static int64_t mem_size(struct rlog_disk *d, int handle)
{
	int err;
	struct file *f = file_of(of(d), handle, &err);

	return f ? (int64_t)f->size : err;
}

static void check_direct(const void *buf, size_t len, uint64_t off)
{
	assert((uintptr_t)buf % RLOG_BLOCK == 0 && len % RLOG_BLOCK == 0 && off % RLOG_BLOCK == 0);
}

static int64_t mem_pread(struct rlog_disk *d, int handle, void *buf, size_t len, uint64_t off)
{
	int err;
	struct file *f = file_of(of(d), handle, &err);

	check_direct(buf, len, off);
	if (!f)
		return err;
	if (off >= f->size)
		return 0;
	if (len > f->size - off)
		len = f->size - off;
	memcpy(buf, f->bytes + off, len);
	return (int64_t)len;
}

static uint8_t *gather(const struct iovec *iov, int iov_count, size_t *len)
{
	uint8_t *bytes;

	*len = 0;
	for (int i = 0; i < iov_count; i++)
		*len += iov[i].iov_len;
	bytes = must(malloc(*len));
	*len = 0;
	for (int i = 0; i < iov_count; i++) {
		check_direct(iov[i].iov_base, iov[i].iov_len, 0);
		memcpy(bytes + *len, iov[i].iov_base, iov[i].iov_len);
		*len += iov[i].iov_len;
	}
	return bytes;
}

static int64_t mem_pwritev(struct rlog_disk *d, int handle, const struct iovec *iov, int iov_count,
			   uint64_t off)
{
	struct memdisk *m = of(d);
	int err;
	struct file *f = file_of(m, handle, &err);
	uint8_t *bytes;
	size_t len;

	assert(off % RLOG_BLOCK == 0);
	if (!f)
		return err;
	err = fault(m);
	if (err < 0)
		return err;
	bytes = gather(iov, iov_count, &len);
	if (m->capacity && off + len > f->size && used(m) + off + len - f->size > m->capacity) {
		free(bytes);
		return -ENOSPC;
	}
	if (err == 1)
		put_torn_randomly(m, f, off, bytes, len);
	else
		put(f, off, bytes, len);
	free(bytes);
	return err == 1 ? -EIO : (int64_t)len;
}

static int rename_file(struct rlog_disk *d, const char *from, const char *to, bool replace)
{
	struct memdisk *m = of(d);
	struct change c = {.kind = CHANGE_RENAME};
	int err = fault(m);

	if (err < 0)
		return err;
	if (!find(&m->now, from))
		return -ENOENT;
	if (!replace && find(&m->now, to))
		return -EEXIST;
	strcpy(c.name, from);
	strcpy(c.to, to);
	change(m, &c);
	return err == 1 ? -EIO : 0;
}

static int mem_rename(struct rlog_disk *d, const char *from, const char *to)
{
	return rename_file(d, from, to, false);
}

static int mem_replace(struct rlog_disk *d, const char *from, const char *to)
{
	return rename_file(d, from, to, true);
}

static int mem_unlink(struct rlog_disk *d, const char *name)
{
	struct memdisk *m = of(d);
	struct change c = {.kind = CHANGE_REMOVE};
	int err = fault(m);

	if (err < 0)
		return err;
	if (!find(&m->now, name))
		return -ENOENT;
	strcpy(c.name, name);
	change(m, &c);
	return err == 1 ? -EIO : 0;
}

static int mem_sync_dir(struct rlog_disk *d)
{
	struct memdisk *m = of(d);
	int err = fault(m);

	if (err < 0)
		return err;
	if (err == 1)
		return -EIO; /* memdisk_crash() draws how far it got */
	settle(m, m->change_count);
	return 0;
}

static int mem_list(struct rlog_disk *d, void (*each)(void *arg, const char *name), void *arg)
{
	struct memdisk *m = of(d);

	if (m->off)
		return -EIO;
	for (size_t i = 0; i < m->now.count; i++)
		each(arg, m->now.at[i].name);
	return 0;
}

/* ---- life --------------------------------------------------------------------------------- */

struct memdisk *memdisk_new(uint64_t seed)
{
	struct memdisk *m = must(calloc(1, sizeof(*m)));

	m->random = seed;
	m->base = (struct rlog_disk){
		.open = mem_open,
		.close = mem_close,
		.size = mem_size,
		.pread = mem_pread,
		.pwritev = mem_pwritev,
		.rename = mem_rename,
		.replace = mem_replace,
		.unlink = mem_unlink,
		.sync_dir = mem_sync_dir,
		.list = mem_list,
	};
	return m;
}

struct memdisk *memdisk_clone(const struct memdisk *m, uint64_t seed)
{
	struct memdisk *c = memdisk_new(seed);

	directory_copy(&c->now, &m->durable);
	directory_copy(&c->durable, &m->durable);
	c->file_count = m->file_count;
	c->files = must(calloc(m->file_count + 1, sizeof(*c->files)));
	for (size_t i = 0; i < m->file_count; i++)
		if (named(&c->now, i)) {
			c->files[i].bytes = must(malloc(1));
			put(&c->files[i], 0, m->files[i].bytes, m->files[i].size);
		}
	return c;
}

void memdisk_free(struct memdisk *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->file_count; i++)
		free(m->files[i].bytes);
	free(m->files);
	free(m->now.at);
	free(m->durable.at);
	free(m->changes);
	free(m->handles);
	free(m->write.bytes);
	free(m);
}

struct rlog_disk *memdisk_disk(struct memdisk *m)
{
	return &m->base;
}

static void restart(struct memdisk *m)
{
	free(m->write.bytes);
	memset(&m->write, 0, sizeof(m->write));
	settle(m, draw(m) % (m->change_count + 1));
	for (int i = 0; i < m->handle_count; i++)
		m->handles[i].open = false;
	m->off = false;
	m->fail_at = m->off_at = 0;
}

void memdisk_crash(struct memdisk *m)
{
	if (m->write.pending)
		put_torn_randomly(m, &m->files[m->write.file], m->write.offset, m->write.bytes,
				  m->write.len);
	restart(m);
}

void memdisk_crash_keeping(struct memdisk *m, bool (*keep)(void *arg, size_t sector), void *arg)
{
	if (m->write.pending)
		put_torn(&m->files[m->write.file], m->write.offset, m->write.bytes, m->write.len,
			 keep, arg);
	restart(m);
}

void memdisk_fail_at(struct memdisk *m, unsigned call, int err)
{
	m->fail_at = m->calls + call;
	m->fail_err = err;
}

void memdisk_power_fail_at(struct memdisk *m, unsigned call)
{
	m->off_at = m->calls + call;
}

bool memdisk_is_off(const struct memdisk *m)
{
	return m->off;
}

unsigned memdisk_changes(const struct memdisk *m)
{
	return m->calls;
}

void memdisk_set_capacity(struct memdisk *m, uint64_t bytes)
{
	m->capacity = bytes;
}

/* ---- deferred writes ---------------------------------------------------------------------- */

void memdisk_write_start(struct memdisk *m, const struct rlog_log_write *w)
{
	assert(!m->write.pending && w->handle >= 0 && w->handle < m->handle_count &&
	       m->handles[w->handle].open && w->offset % RLOG_BLOCK == 0);
	m->write.pending = true;
	m->write.file = m->handles[w->handle].file;
	m->write.offset = w->offset;
	m->write.bytes = gather(w->iov, w->iov_count, &m->write.len);
	assert(m->write.len == w->bytes);
}

bool memdisk_write_pending(const struct memdisk *m)
{
	return m->write.pending;
}

int64_t memdisk_write_finish(struct memdisk *m)
{
	struct file *f = &m->files[m->write.file];
	int64_t rv = (int64_t)m->write.len;
	int err;

	assert(m->write.pending);
	err = fault(m);
	if (err == 1)
		put_torn_randomly(m, f, m->write.offset, m->write.bytes, m->write.len);
	else if (err == 0)
		put(f, m->write.offset, m->write.bytes, m->write.len);
	free(m->write.bytes);
	memset(&m->write, 0, sizeof(m->write));
	return err == 1 ? -EIO : err < 0 ? err : rv;
}

size_t memdisk_write_sectors(const struct memdisk *m)
{
	return m->write.len / MEMDISK_SECTOR;
}

/* ---- from outside ------------------------------------------------------------------------- */

static struct file *file_named(const struct memdisk *m, const char *name)
{
	struct entry *e = find(&m->now, name);

	return e ? &m->files[e->file] : NULL;
}

int64_t memdisk_file_size(const struct memdisk *m, const char *name)
{
	struct file *f = file_named(m, name);

	return f ? (int64_t)f->size : -1;
}

int memdisk_file_byte(const struct memdisk *m, const char *name, uint64_t offset)
{
	struct file *f = file_named(m, name);

	return f && offset < f->size ? f->bytes[offset] : -1;
}

void memdisk_file_flip(struct memdisk *m, const char *name, uint64_t offset, unsigned bit)
{
	struct file *f = file_named(m, name);

	assert(f && offset < f->size);
	f->bytes[offset] ^= (uint8_t)(1u << bit);
}

void memdisk_file_cut(struct memdisk *m, const char *name, uint64_t size)
{
	struct file *f = file_named(m, name);

	assert(f && size <= f->size);
	resize(f, size);
}

void memdisk_file_remove(struct memdisk *m, const char *name)
{
	struct change c = {.kind = CHANGE_REMOVE};

	strcpy(c.name, name);
	change(m, &c);
	settle(m, m->change_count);
}

void memdisk_file_copy(struct memdisk *m, const char *from, const char *to)
{
	struct change c = {.kind = CHANGE_ADD};
	struct file *f = file_named(m, from);

	assert(f);
	if (find(&m->now, to))
		memdisk_file_remove(m, to);
	m->files = must(realloc(m->files, (m->file_count + 1) * sizeof(*m->files)));
	f = file_named(m, from);
	m->files[m->file_count] = (struct file){.bytes = must(malloc(1))};
	put(&m->files[m->file_count], 0, f->bytes, f->size);
	strcpy(c.name, to);
	c.file = m->file_count++;
	change(m, &c);
	settle(m, m->change_count);
}
