/* The table of databases as a log leaves it, without any file: what replica.c decides when an entry
 * is delivered, decided from the entries alone. A change of the rules there is a change here.
 *
 * The table is in the order of creation, which is that of the ids. A COMMIT moves the version of its
 * database by one if it was built on the present one and all of its parts came before it, in its own
 * term. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "walrepl.h"

struct entry_db {
	struct wrep_history_db db;
	/* of the transaction that is coming in, and how many parts of it there are */
	uint64_t origin, sequence, term;
	uint32_t parts;
};

struct wrep_history {
	struct entry_db *dbs;
	size_t count, room;
};

struct wrep_history *wrep_history_new(void)
{
	return calloc(1, sizeof(struct wrep_history));
}

void wrep_history_free(struct wrep_history *h)
{
	if (!h)
		return;
	for (size_t i = 0; i < h->count; i++)
		free((char *)h->dbs[i].db.name);
	free(h->dbs);
	free(h);
}

static struct entry_db *find(struct wrep_history *h, uint64_t id)
{
	size_t from = 0, to = h->count;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (h->dbs[middle].db.id < id)
			from = middle + 1;
		else
			to = middle;
	}
	return from < h->count && h->dbs[from].db.id == id ? &h->dbs[from] : NULL;
}

static int add_create(struct wrep_history *h, uint64_t index, struct wrep_description *d)
{
	char *name;

	for (size_t i = 0; i < h->count; i++) {
		if (strcmp(h->dbs[i].db.name, d->name) == 0) {
			d->db_id = h->dbs[i].db.id;
			return 0;
		}
	}
	if (h->count == h->room) {
		size_t room = h->room ? 2 * h->room : 16;
		struct entry_db *more = realloc(h->dbs, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		h->dbs = more;
		h->room = room;
	}
	name = strdup(d->name);
	if (!name)
		return -ENOMEM;
	d->db_id = index;
	h->dbs[h->count++] = (struct entry_db){.db = {.id = index, .name = name}};
	return 1;
}

static void remove_db(struct wrep_history *h, struct entry_db *e)
{
	free((char *)e->db.name);
	memmove(e, e + 1, (size_t)(h->dbs + --h->count - e) * sizeof(*e));
}

/* Are the parts that have come those of this transaction? */
static bool is_open(const struct entry_db *e, uint64_t term, const struct wrep_description *d)
{
	return e->parts > 0 && d->origin == e->origin && d->sequence == e->sequence &&
	       term == e->term;
}

static int add_pages(struct entry_db *e, uint64_t term, const struct wrep_description *d)
{
	if (d->part == 0 || !is_open(e, term, d))
		e->parts = 0;
	e->origin = d->origin;
	e->sequence = d->sequence;
	e->term = term;
	if (d->part != e->parts)
		return 0;
	e->parts++;
	return 1;
}

static int add_discard(struct entry_db *e, uint64_t term, const struct wrep_description *d)
{
	if (!is_open(e, term, d))
		return 0;
	e->parts = 0;
	return 1;
}

static int add_commit(struct entry_db *e, uint64_t term, const struct wrep_description *d)
{
	bool complete = d->part == 0 || (is_open(e, term, d) && d->part == e->parts);

	e->parts = 0;
	if (!complete || d->base_version != e->db.version)
		return 0;
	e->db.version++;
	e->db.checksum = d->checksum;
	e->db.page_size = d->page_size;
	e->db.page_count = d->page_count;
	return 1;
}

int wrep_history_add(struct wrep_history *h, uint64_t index, uint64_t term,
		     struct wrep_description *d)
{
	struct entry_db *e;

	if (d->kind == WREP_DESCRIBES_CREATE)
		return add_create(h, index, d);
	e = find(h, d->db_id);
	if (!e)
		return 0;
	strcpy(d->name, e->db.name);
	switch (d->kind) {
	case WREP_DESCRIBES_UNLINK:
		remove_db(h, e);
		return 1;
	case WREP_DESCRIBES_PAGES:
		return add_pages(e, term, d);
	case WREP_DESCRIBES_COMMIT:
		return add_commit(e, term, d);
	case WREP_DESCRIBES_DISCARD:
		return add_discard(e, term, d);
	case WREP_DESCRIBES_CREATE:
	case WREP_DESCRIBES_SETATTR:
		break;
	}
	return 1;
}

int wrep_history_databases(const struct wrep_history *h,
			   int (*each)(void *arg, const struct wrep_history_db *db), void *arg)
{
	int rv = 0;

	for (size_t i = 0; rv == 0 && i < h->count; i++)
		rv = each(arg, &h->dbs[i].db);
	return rv;
}
