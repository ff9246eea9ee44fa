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
#include "base/io.h"
#include "db/db.h"
#include "record/entry.h"
#include "sqlite/conn.h"
#include "state/parts.h"

#define COPY_BYTES (256u << 10)

uint64_t wrep_parts_first_index(const struct wrep_db *db)
{
	/* Those that are committed came before the one that is open. */
	const struct wrep_parts *first = db->unapplied ? db->unapplied : db->state.parts;

	return first ? first->first_index : 0;
}

void wrep_parts_queued(struct wrep_db *db, struct wrep_parts *parts)
{
	struct wrep_parts **last = &db->unapplied;

	if (!parts)
		return;
	while (*last)
		last = &(*last)->next;
	*last = wrep_parts_ref(parts);
}

void wrep_parts_applied(struct wrep_db *db, struct wrep_parts *parts)
{
	if (!parts)
		return;
	assert(db->unapplied == parts);
	db->unapplied = parts->next;
	wrep_parts_unref(parts); /* the work has another reference: nothing is closed here */
}

int wrep_parts_store(struct wrep_parts *p, int dir_fd, const struct wrep_entry *e)
{
	int rc;

	if (p->fd < 0) {
		p->fd = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		if (p->fd < 0)
			return -errno;
	}
	rc = wrep_write_all(p->fd, e->images, (size_t)e->image_count * e->page_size,
			    (uint64_t)p->stored * e->page_size);
	if (rc == 0)
		p->stored += e->image_count;
	return rc;
}

static uint32_t slot_of(const struct wrep_parts *p, uint32_t i)
{
	uint32_t slot = p->slots ? p->slots[i] : i;

	assert(slot < p->stored);
	return slot;
}

/* How many images from `first` on, at most `count`, lie one behind the other in the file. */
static uint32_t slot_run(const struct wrep_parts *p, uint32_t first, uint32_t count)
{
	uint32_t run = 1;

	while (run < count && slot_of(p, first + run) == slot_of(p, first) + run)
		run++;
	return run;
}

int wrep_parts_fetch(void *ctx, uint32_t first, uint32_t count, uint32_t *pgnos,
		     const void **images)
{
	struct wrep_parts *p = ctx;
	int rc = 0;

	assert(count <= WREP_CONN_FETCH_MAX && first + count <= p->image_count);
	if (!p->lot)
		p->lot = malloc((size_t)WREP_CONN_FETCH_MAX * p->page_size);
	if (!p->lot)
		return -ENOMEM;
	for (uint32_t i = 0, run; i < count && rc == 0; i += run) {
		run = slot_run(p, first + i, count - i);
		rc = wrep_read_exact(p->fd, p->lot + (size_t)i * p->page_size,
				     (size_t)run * p->page_size,
				     (uint64_t)slot_of(p, first + i) * p->page_size);
	}
	for (uint32_t i = 0; i < count; i++) {
		pgnos[i] = p->changes[first + i].pgno;
		images[i] = p->lot + (size_t)i * p->page_size;
	}
	return rc;
}

/* What is in one piece here and there. */
static int copy_run(struct wrep_parts *p, uint32_t first, uint32_t count, int db_fd, uint8_t *bytes)
{
	uint64_t from = (uint64_t)slot_of(p, first) * p->page_size;
	uint64_t to = (uint64_t)(p->changes[first].pgno - 1) * p->page_size;
	uint64_t left = (uint64_t)count * p->page_size;
	int rc = 0;

	while (rc == 0 && left > 0) {
		size_t part = left < COPY_BYTES ? (size_t)left : COPY_BYTES;

		rc = wrep_read_exact(p->fd, bytes, part, from);
		if (rc == 0)
			rc = wrep_write_all(db_fd, bytes, part, to);
		from += part;
		to += part;
		left -= part;
	}
	return rc;
}

int wrep_parts_copy(struct wrep_parts *p, int db_fd)
{
	uint8_t *bytes = malloc(COPY_BYTES);
	int rc = bytes ? 0 : -ENOMEM;

	for (uint32_t first = 0, count; first < p->image_count && rc == 0; first += count) {
		uint32_t run = slot_run(p, first, p->image_count - first);

		count = 1;
		while (count < run &&
		       p->changes[first + count].pgno == p->changes[first].pgno + count)
			count++;
		rc = copy_run(p, first, count, db_fd, bytes);
	}
	free(bytes);
	return rc;
}
