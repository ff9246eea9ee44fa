/* The images of a large transaction, in a temporary file: what the applier keeps of its PAGES entries until
 * the COMMIT comes.
 *
 * The images are read back from the file, a lot at a time, while they are applied: image i is at i * page_size.
 * Which of them count, struct wrep_parts says.
 *
 * The file needs no format and no checksum: it has no name, so it does not outlive the process, and
 * after a crash everything in it is read from the Raft log again.
 */
#include "db/spool.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/io.h"
#include "db/db.h"
#include "record/entry.h"
#include "sqlite/conn.h"
#include "state/parts.h"

#define COPY_BYTES (256u << 10)

struct wrep_spool *wrep_spool_new(struct wrep_parts *parts)
{
	struct wrep_spool *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	atomic_init(&s->refs, 1);
	s->origin = parts->origin;
	s->sequence = parts->sequence;
	s->first_index = parts->first_index;
	s->fd = -1;
	parts->data = s;
	return s;
}

struct wrep_spool *wrep_spool_of(const struct wrep_parts *parts)
{
	return parts ? parts->data : NULL;
}

struct wrep_spool *wrep_spool_take(struct wrep_parts *parts)
{
	struct wrep_spool *s = wrep_spool_of(parts);

	if (s)
		s->parts = parts;
	else
		wrep_parts_free(parts); /* there was no memory for it, and the node stops */
	return s;
}

struct wrep_spool *wrep_spool_ref(struct wrep_spool *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void wrep_spool_unref(struct wrep_spool *s)
{
	if (!s || atomic_fetch_sub(&s->refs, 1) != 1)
		return;
	if (s->fd >= 0)
		close(s->fd);
	wrep_parts_free(s->parts);
	free(s->buffer);
	free(s);
}

bool wrep_spool_is_of(const struct wrep_spool *s, uint64_t origin, uint64_t sequence)
{
	return s && s->origin == origin && s->sequence == sequence;
}

uint64_t wrep_parts_first_index(const struct wrep_db *db)
{
	/* Those that are committed came before the one that is open. */
	if (db->unapplied)
		return db->unapplied->first_index;
	return db->state.parts ? db->state.parts->first_index : 0;
}

void wrep_spool_queued(struct wrep_db *db, struct wrep_spool *s)
{
	struct wrep_spool **last = &db->unapplied;

	if (!s)
		return;
	while (*last)
		last = &(*last)->next;
	*last = wrep_spool_ref(s);
}

void wrep_spool_applied(struct wrep_db *db, struct wrep_spool *s)
{
	if (!s)
		return;
	assert(db->unapplied == s);
	db->unapplied = s->next;
	wrep_spool_unref(s); /* the work has another reference: nothing is closed here */
}

int wrep_spool_store(struct wrep_spool *s, int dir_fd, const struct wrep_entry *e)
{
	int rc;

	if (s->fd < 0) {
		s->fd = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		if (s->fd < 0)
			return -errno;
	}
	rc = wrep_write_all(s->fd, e->images, (size_t)e->image_count * e->page_size,
			    (uint64_t)s->stored * e->page_size);
	if (rc == 0)
		s->stored += e->image_count;
	return rc;
}

static uint32_t slot_of(const struct wrep_spool *s, uint32_t i)
{
	uint32_t slot = s->parts->slots ? s->parts->slots[i] : i;

	assert(slot < s->stored);
	return slot;
}

/* How many images from `first` on, at most `count`, lie one behind the other in the file. */
static uint32_t slot_run(const struct wrep_spool *s, uint32_t first, uint32_t count)
{
	uint32_t run = 1;

	while (run < count && slot_of(s, first + run) == slot_of(s, first) + run)
		run++;
	return run;
}

int wrep_spool_fetch(void *ctx, uint32_t first, uint32_t count, uint32_t *pgnos,
		     const void **images)
{
	struct wrep_spool *s = ctx;
	int rc = 0;

	assert(count <= WREP_CONN_FETCH_MAX && first + count <= s->parts->image_count);
	if (!s->buffer)
		s->buffer = malloc((size_t)WREP_CONN_FETCH_MAX * s->parts->page_size);
	if (!s->buffer)
		return -ENOMEM;
	for (uint32_t i = 0, run; i < count && rc == 0; i += run) {
		run = slot_run(s, first + i, count - i);
		rc = wrep_read_exact(s->fd, s->buffer + (size_t)i * s->parts->page_size,
				     (size_t)run * s->parts->page_size,
				     (uint64_t)slot_of(s, first + i) * s->parts->page_size);
	}
	for (uint32_t i = 0; i < count; i++) {
		pgnos[i] = s->parts->changes[first + i].pgno;
		images[i] = s->buffer + (size_t)i * s->parts->page_size;
	}
	return rc;
}

/* What is in one piece here and there. */
static int copy_run(struct wrep_spool *s, uint32_t first, uint32_t count, int db_fd, uint8_t *bytes)
{
	uint64_t from = (uint64_t)slot_of(s, first) * s->parts->page_size;
	uint64_t to = (uint64_t)(s->parts->changes[first].pgno - 1) * s->parts->page_size;
	uint64_t left = (uint64_t)count * s->parts->page_size;
	int rc = 0;

	while (rc == 0 && left > 0) {
		size_t part = left < COPY_BYTES ? (size_t)left : COPY_BYTES;

		rc = wrep_read_exact(s->fd, bytes, part, from);
		if (rc == 0)
			rc = wrep_write_all(db_fd, bytes, part, to);
		from += part;
		to += part;
		left -= part;
	}
	return rc;
}

int wrep_spool_copy(struct wrep_spool *s, int db_fd)
{
	uint8_t *bytes = malloc(COPY_BYTES);
	int rc = bytes ? 0 : -ENOMEM;

	for (uint32_t first = 0, count; first < s->parts->image_count && rc == 0; first += count) {
		uint32_t run = slot_run(s, first, s->parts->image_count - first);

		count = 1;
		while (count < run && s->parts->changes[first + count].pgno ==
					      s->parts->changes[first].pgno + count)
			count++;
		rc = copy_run(s, first, count, db_fd, bytes);
	}
	free(bytes);
	return rc;
}
