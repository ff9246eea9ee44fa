/* Uncommitted pages over a database file.
 *
 * A write goes into a sparse temporary file at the same offsets, and a bit per 512-byte unit
 * says that the unit is there. A read takes each unit from the temporary file, from the database
 * file, or, where neither has it, as zeros:
 *
 *   0                    visible            base_size               size
 *   |--- database file ------|--- cut off -----|--- never existed -----|
 *   |        units written in the temporary file, anywhere             |
 *
 * `visible` is the smallest size the file has had since the overlay began: what a shrink cut off
 * reads as zeros when the file grows again, although the database file still holds it. Bytes of the
 * temporary file at or behind `size` are always zeros, so a unit written in part needs no care there.
 */
#include "base/io.h"
#include "pages/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNIT_BYTES 512u
#define WORD_BITS 64u
#define COPY_BYTES (256u << 10)

struct wrep_overlay {
	int fd;		    /* the temporary file */
	uint64_t base_size; /* of the database file */
	uint64_t visible;   /* of the database file, how much still shows; <= base_size, <= size */
	uint64_t size;	    /* as the writer sees it */
	bool dirty;
	uint64_t *written; /* a bit per unit */
	size_t word_count;
	uint64_t unit_count; /* of those that are written */
};

/* ---- the bitmap -------------------------------------------------------------------------------- */

static bool unit_written(const struct wrep_overlay *o, uint64_t unit)
{
	uint64_t word = unit / WORD_BITS;

	return word < o->word_count && (o->written[word] >> unit % WORD_BITS & 1) != 0;
}

/* The first unit at or after `unit` that is written (or is not, for `value` false), at most `end`. */
static uint64_t next_unit(const struct wrep_overlay *o, uint64_t unit, uint64_t end, bool value)
{
	while (unit < end) {
		uint64_t word = unit / WORD_BITS;
		uint64_t bits;

		if (word >= o->word_count)
			return value ? end : unit;
		bits = value ? o->written[word] : ~o->written[word];
		bits &= UINT64_MAX << unit % WORD_BITS;
		if (bits != 0) {
			unit = word * WORD_BITS + (uint64_t)__builtin_ctzll(bits);
			return unit < end ? unit : end;
		}
		unit = (word + 1) * WORD_BITS;
	}
	return end;
}

/* Room for the bits of units below `units`. */
static int reserve_units(struct wrep_overlay *o, uint64_t units)
{
	uint64_t words = (units + WORD_BITS - 1) / WORD_BITS;
	uint64_t *written;

	if (words <= o->word_count)
		return 0;
	words += words / 2;
	written = reallocarray(o->written, words, sizeof(*written));
	if (written == NULL)
		return -ENOMEM;
	memset(written + o->word_count, 0, (words - o->word_count) * sizeof(*written));
	o->written = written;
	o->word_count = words;
	return 0;
}

static void mark_units(struct wrep_overlay *o, uint64_t first, uint64_t end)
{
	for (uint64_t unit = first; unit < end;) {
		uint64_t bit = unit % WORD_BITS;
		uint64_t count = WORD_BITS - bit < end - unit ? WORD_BITS - bit : end - unit;
		uint64_t mask = count == WORD_BITS ? UINT64_MAX : (UINT64_C(1) << count) - 1;

		mask = mask << bit & ~o->written[unit / WORD_BITS];
		o->unit_count += (uint64_t)__builtin_popcountll(mask);
		o->written[unit / WORD_BITS] |= mask;
		unit += count;
	}
}

static void clear_units_from(struct wrep_overlay *o, uint64_t first)
{
	uint64_t mask = ~((UINT64_C(1) << first % WORD_BITS) - 1);

	for (uint64_t word = first / WORD_BITS; word < o->word_count; word++) {
		o->unit_count -= (uint64_t)__builtin_popcountll(o->written[word] & mask);
		o->written[word] &= ~mask;
		mask = UINT64_MAX;
	}
}

/* Behind the end of the file there are zeros. */
static int read_all(int fd, void *buf, size_t len, uint64_t off)
{
	ssize_t n = wrep_read_some(fd, buf, len, off);

	if (n < 0)
		return (int)n;
	memset((uint8_t *)buf + n, 0, len - (size_t)n);
	return 0;
}

/* Read [off, off + len) as the writer sees it; it may reach behind the end: zeros there. */
static int read_range(const struct wrep_overlay *o, int base_fd, uint8_t *p, size_t len,
		      uint64_t off)
{
	uint64_t end = off + len;

	while (off < end) {
		uint64_t unit = off / UNIT_BYTES;
		uint64_t unit_end = (end + UNIT_BYTES - 1) / UNIT_BYTES;
		bool written = unit_written(o, unit);
		uint64_t stop = next_unit(o, unit, unit_end, !written) * UNIT_BYTES;
		size_t part;
		int rc = 0;

		if (stop > end)
			stop = end;
		if (!written && off < o->visible && stop > o->visible)
			stop = o->visible;
		part = (size_t)(stop - off);
		if (written)
			rc = read_all(o->fd, p, part, off);
		else if (off < o->visible)
			rc = read_all(base_fd, p, part, off);
		else
			memset(p, 0, part);
		if (rc != 0)
			return rc;
		p += part;
		off = stop;
	}
	return 0;
}

/* ---- public -------------------------------------------------------------------------------------- */

int wrep_overlay_open(struct wrep_overlay **out, int dir_fd, uint64_t base_size)
{
	struct wrep_overlay *o = calloc(1, sizeof(*o));

	if (o == NULL)
		return -ENOMEM;
	o->fd = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (o->fd < 0) {
		int rc = -errno;

		free(o);
		return rc;
	}
	o->base_size = o->visible = o->size = base_size;
	*out = o;
	return 0;
}

void wrep_overlay_close(struct wrep_overlay *o)
{
	if (o == NULL)
		return;
	close(o->fd);
	free(o->written);
	free(o);
}

uint64_t wrep_overlay_size(const struct wrep_overlay *o)
{
	return o->size;
}

bool wrep_overlay_dirty(const struct wrep_overlay *o)
{
	return o->dirty;
}

bool wrep_overlay_holds(const struct wrep_overlay *o, uint64_t off)
{
	return unit_written(o, off / UNIT_BYTES);
}

uint64_t wrep_overlay_bytes_with(const struct wrep_overlay *o, size_t len, uint64_t off)
{
	uint64_t unit = off / UNIT_BYTES, end = len ? (off + len - 1) / UNIT_BYTES + 1 : unit;
	uint64_t units = o->unit_count;

	while (unit < end) {
		uint64_t free_from = next_unit(o, unit, end, false);

		unit = next_unit(o, free_from, end, true);
		units += unit - free_from;
	}
	return units * UNIT_BYTES;
}

/* A unit that is about to be written in part is first made whole in the temporary file. */
static int fill_unit(struct wrep_overlay *o, int base_fd, uint64_t unit)
{
	uint8_t bytes[UNIT_BYTES];
	int rc;

	if (unit_written(o, unit))
		return 0;
	rc = read_range(o, base_fd, bytes, sizeof(bytes), unit * UNIT_BYTES);
	return rc != 0 ? rc : wrep_write_all(o->fd, bytes, sizeof(bytes), unit * UNIT_BYTES);
}

/* Does a read give these bytes anyway? */
static bool shows(struct wrep_overlay *o, int base_fd, const void *buf, size_t len, uint64_t off)
{
	void *seen = off + len <= o->size ? malloc(len) : NULL;
	bool same = seen && wrep_overlay_read(o, base_fd, seen, len, off) == (ssize_t)len &&
		    memcmp(seen, buf, len) == 0;

	free(seen);
	return same;
}

int wrep_overlay_write(struct wrep_overlay *o, int base_fd, const void *buf, size_t len,
		       uint64_t off)
{
	uint64_t end = off + len;
	uint64_t first = off / UNIT_BYTES;
	uint64_t last;
	int rc;

	if (len == 0)
		return 0;
	if (end < off || end > INT64_MAX - UNIT_BYTES)
		return -EFBIG;
	last = (end - 1) / UNIT_BYTES;
	rc = reserve_units(o, last + 1);
	if (rc == 0 && off % UNIT_BYTES != 0)
		rc = fill_unit(o, base_fd, first);
	if (rc == 0 && end % UNIT_BYTES != 0 && (last != first || off % UNIT_BYTES == 0))
		rc = fill_unit(o, base_fd, last);
	if (rc == 0)
		rc = wrep_write_all(o->fd, buf, len, off);
	if (rc != 0) {
		/* The bytes that came through behind the end must not show when the file grows. */
		if (end > o->size && ftruncate(o->fd, (off_t)o->size) != 0)
			return -errno;
		/* On a full disk a rollback, which writes what is in the database file, gets through. */
		if ((rc == -ENOSPC || rc == -EDQUOT) && shows(o, base_fd, buf, len, off))
			return 0;
		return rc;
	}
	mark_units(o, first, last + 1);
	o->dirty = true;
	if (end > o->size)
		o->size = end;
	return 0;
}

int wrep_overlay_truncate(struct wrep_overlay *o, uint64_t size)
{
	if (size > INT64_MAX - UNIT_BYTES)
		return -EFBIG;
	if (size == o->size)
		return 0;
	if (size < o->size) {
		/* Cutting the temporary file keeps its bytes behind `size` zeros; no read may bring
		 * them back when the file grows again. */
		if (ftruncate(o->fd, (off_t)size) != 0)
			return -errno;
		clear_units_from(o, (size + UNIT_BYTES - 1) / UNIT_BYTES);
		if (o->visible > size)
			o->visible = size;
	}
	o->size = size;
	o->dirty = true;
	return 0;
}

ssize_t wrep_overlay_read(struct wrep_overlay *o, int base_fd, void *buf, size_t len, uint64_t off)
{
	int rc;

	if (off >= o->size)
		return 0;
	if (len > o->size - off)
		len = (size_t)(o->size - off);
	if (len > SSIZE_MAX)
		len = SSIZE_MAX;
	rc = read_range(o, base_fd, buf, len, off);
	return rc != 0 ? rc : (ssize_t)len;
}

uint32_t wrep_overlay_next(const struct wrep_overlay *o, uint32_t page_size, uint32_t pgno)
{
	uint64_t start = (uint64_t)(pgno > 0 ? pgno - 1 : 0) * page_size;
	uint64_t end_unit = (o->size + UNIT_BYTES - 1) / UNIT_BYTES;
	uint64_t cut_end = o->base_size < o->size ? o->base_size : o->size;
	uint64_t unit, found;

	if (start >= o->size)
		return 0;
	unit = next_unit(o, start / UNIT_BYTES, end_unit, true);
	found = unit < end_unit ? unit * UNIT_BYTES : UINT64_MAX;
	/* Cut off by a shrink and back by a growth: zeros where the database file has content. */
	if (start < cut_end && o->visible < cut_end) {
		uint64_t cut = start > o->visible ? start : o->visible;

		if (cut < found)
			found = cut;
	}
	if (found == UINT64_MAX || found / page_size >= UINT32_MAX)
		return 0;
	return (uint32_t)(found / page_size) + 1;
}

static int resize_base(const struct wrep_overlay *o, int base_fd)
{
	if (o->visible < o->base_size && ftruncate(base_fd, (off_t)o->visible) != 0)
		return -errno;
	if (ftruncate(base_fd, (off_t)o->size) != 0)
		return -errno;
	return 0;
}

static int copy_written(const struct wrep_overlay *o, int base_fd, uint8_t *bytes)
{
	uint64_t end_unit = (o->size + UNIT_BYTES - 1) / UNIT_BYTES;
	uint64_t unit = next_unit(o, 0, end_unit, true);

	while (unit < end_unit) {
		uint64_t run = next_unit(o, unit, end_unit, false);
		uint64_t off = unit * UNIT_BYTES;
		uint64_t stop = run * UNIT_BYTES < o->size ? run * UNIT_BYTES : o->size;

		while (off < stop) {
			size_t part = stop - off < COPY_BYTES ? (size_t)(stop - off) : COPY_BYTES;
			int rc = read_all(o->fd, bytes, part, off);

			if (rc == 0)
				rc = wrep_write_all(base_fd, bytes, part, off);
			if (rc != 0)
				return rc;
			off += part;
		}
		unit = next_unit(o, run, end_unit, true);
	}
	return 0;
}

int wrep_overlay_commit(struct wrep_overlay *o, int base_fd)
{
	uint8_t *bytes;
	int rc;

	if (!o->dirty)
		return 0;
	bytes = malloc(COPY_BYTES);
	if (bytes == NULL)
		return -ENOMEM;
	rc = resize_base(o, base_fd);
	if (rc == 0)
		rc = copy_written(o, base_fd, bytes);
	free(bytes);
	if (rc == 0 && ftruncate(o->fd, 0) != 0)
		rc = -errno;
	if (rc != 0)
		return rc;
	clear_units_from(o, 0);
	o->base_size = o->visible = o->size;
	o->dirty = false;
	return 0;
}
