/* See state_entries.h. */
#include "state_entries.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define PAGES_MAX 200u
#define PARTS_MAX 3u
#define MEMBERS_MAX 3u

static const char *const directories[] = {"d", "e", "d/f"};
static const char *const databases[] = {"a.db",	  "b.db",   "c.db",	"x.db",	    "y.db",
					"d/a.db", "d/b.db", "d/c.db",	"e/a.db",   "e/b.db",
					"e/c.db", "z.db",   "d/f/a.db", "d/f/b.db", "d/f/c.db"};

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- what there is ----------------------------------------------------------------------------- */

struct choice {
	struct sim_random *random;
	bool is_dir, idle;
	uint64_t seen;
	const struct wrep_tree_node *node;
};

static void choose(void *arg, struct wrep_tree_node *n)
{
	struct choice *c = arg;
	const struct rig_db *db = n->is_dir ? NULL : n->data;

	if (c->idle && db && db->submitted_on == db->version.version + 1)
		return;
	if (n->is_dir == c->is_dir && sim_below(c->random, ++c->seen) == 0)
		c->node = n;
}

/* NULL: there is none. */
static const struct wrep_tree_node *any(struct rig_author *a, const struct state_rig *r,
					bool is_dir)
{
	struct choice c = {.random = a->random, .is_dir = is_dir};

	wrep_tree_each(r->state->names, choose, &c);
	return c.node;
}

/* A database for a transaction. */
static const struct wrep_tree_node *any_idle(struct rig_author *a, const struct state_rig *r)
{
	struct choice c = {.random = a->random, .idle = a->waits && sim_chance(a->random, 95)};

	wrep_tree_each(r->state->names, choose, &c);
	return c.node;
}

/* ---- names ------------------------------------------------------------------------------------- */

static const char *any_name(struct rig_author *a, bool is_dir)
{
	return is_dir ? directories[sim_below(a->random, COUNT(directories))]
		      : databases[sim_below(a->random, COUNT(databases))];
}

static struct rlog_buf *name_entry(struct rig_author *a, const struct state_rig *r)
{
	static const enum wrep_entry_type types[] = {WREP_ENTRY_CREATE,	 WREP_ENTRY_CREATE,
						     WREP_ENTRY_CREATE,	 WREP_ENTRY_UNLINK,
						     WREP_ENTRY_SETATTR, WREP_ENTRY_MKDIR,
						     WREP_ENTRY_MKDIR,	 WREP_ENTRY_RMDIR,
						     WREP_ENTRY_RENAME,	 WREP_ENTRY_RENAME};
	struct wrep_entry e = {.type = types[sim_below(a->random, COUNT(types))], .mode = 0600};
	bool is_dir = e.type == WREP_ENTRY_MKDIR || e.type == WREP_ENTRY_RMDIR;
	const struct wrep_tree_node *n = any(a, r, is_dir);

	if (e.type == WREP_ENTRY_CREATE || e.type == WREP_ENTRY_MKDIR) {
		/* Now and then a database where a directory might be, and the other way round. */
		strcpy(e.name, any_name(a, sim_chance(a->random, 4) ? !is_dir : is_dir));
		return wrep_entry_encode(&e);
	}
	/* One that is not there, or of the other kind, is refused. */
	if (!n || sim_chance(a->random, 4))
		n = any(a, r, !is_dir);
	e.db_id = n ? n->id : 1 + sim_below(a->random, 100);
	if (e.type == WREP_ENTRY_RENAME) {
		strcpy(e.name, any_name(a, sim_chance(a->random, 4)));
		e.keep = sim_chance(a->random, 30);
	}
	return wrep_entry_encode(&e);
}

/* ---- transactions ------------------------------------------------------------------------------ */

/* What one of them does to a database. */
struct writing {
	struct wrep_entry commit;
	const struct wrep_version *v;
	uint32_t written;	      /* at most so many pages in one entry */
	uint64_t hash[PAGES_MAX + 1]; /* by page number: of the last image; 0: none */
	bool dropped[PAGES_MAX + 1];
};

static void fill_page(struct rig_author *a, uint8_t *page, uint32_t size)
{
	uint64_t word = sim_random(a->random);

	memset(page, (int)(word >> 56), size);
	memcpy(page, &word, sizeof word);
	page[18] = page[19] = sim_chance(a->random, 50) ? 2 : 1;
}

/* Ascending page numbers up to `limit`, at most `count`. How many. */
static uint32_t choose_pages(struct rig_author *a, uint32_t limit, uint32_t count, uint32_t *pgnos)
{
	uint32_t n = 0, pgno = 0;

	while (n < count) {
		pgno += 1 + (uint32_t)sim_below(a->random, count > 8 ? 2 : 4);
		if (pgno > limit)
			break;
		pgnos[n++] = pgno;
	}
	return n;
}

static void fill(struct rig_author *a, struct writing *w, struct wrep_entry *e,
		 const uint32_t *pgnos)
{
	for (uint32_t i = 0; i < e->image_count; i++) {
		uint8_t *page = (uint8_t *)(uintptr_t)e->images + (size_t)i * e->page_size;

		wrep_entry_set_pgno(e, i, pgnos[i]);
		fill_page(a, page, e->page_size);
		w->hash[pgnos[i]] = wrep_page_hash(pgnos[i], page, e->page_size);
	}
}

static void begin(struct rig_author *a, struct writing *w, const struct wrep_tree_node *n)
{
	static const uint32_t sizes[] = {512, 512, 512, 512, 512, 512, 1024, 4096};
	const struct wrep_version *v = n->data;

	((struct rig_db *)n->data)->submitted_on = v->version + 1;
	w->v = v;
	w->commit = (struct wrep_entry){
		.type = WREP_ENTRY_COMMIT,
		.db_id = n->id,
		.origin = a->origin,
		.sequence = ++a->sequence,
		.commit_mode = 1 + (enum wrep_commit_mode)sim_below(a->random, 3),
		.base_version = v->version,
		.page_size = v->sum.page_size,
		.page_count = v->sum.page_count,
	};
	if (!w->commit.page_size || sim_chance(a->random, 2))
		w->commit.page_size = sizes[sim_below(a->random, COUNT(sizes))];
	w->written = 3;
	if (sim_chance(a->random, a->large_percent))
		w->written = w->commit.page_count =
			60 + (uint32_t)sim_below(a->random, PAGES_MAX - 60);
	else if (!w->commit.page_count || sim_chance(a->random, 10))
		w->commit.page_count = 1 + (uint32_t)sim_below(a->random, 12);
}

static struct rlog_buf *part(struct rig_author *a, struct writing *w, uint32_t number)
{
	uint32_t pgnos[PAGES_MAX], limit = w->commit.page_count + (uint32_t)sim_below(a->random, 3);
	struct wrep_entry e = w->commit;
	struct rlog_buf *buf;

	if (limit > PAGES_MAX)
		limit = PAGES_MAX;
	e.type = WREP_ENTRY_PAGES;
	e.part = number;
	pgnos[0] = 1 + (uint32_t)sim_below(a->random, limit);
	e.image_count = choose_pages(a, limit, 1 + (uint32_t)sim_below(a->random, 4), pgnos);
	if (!e.image_count)
		e.image_count = 1;
	buf = wrep_entry_alloc(&e);
	assert(buf);
	fill(a, w, &e, pgnos);
	return buf;
}

/* Which pages the COMMIT carries, before it is encoded. */
static void shape(struct rig_author *a, struct writing *w, uint32_t *pgnos)
{
	struct wrep_entry *e = &w->commit;
	uint32_t count = (uint32_t)sim_below(a->random, w->written + 1);

	e->image_count = 0;
	e->dropped_count = 0;
	for (uint32_t p = 1; e->part && p <= e->page_count; p++) {
		w->dropped[p] = w->hash[p] && sim_chance(a->random, 10);
		e->dropped_count += w->dropped[p];
	}
	if (!e->dropped_count)
		e->image_count = choose_pages(a, e->page_count, count, pgnos);
	for (uint32_t i = 0; i < e->image_count; i++)
		w->hash[pgnos[i]] = 1; /* it is to be counted */
	e->total_pages = 0;
	for (uint32_t p = 1; p <= e->page_count; p++)
		e->total_pages += w->hash[p] && !w->dropped[p];
}

/* And what it says of them, once they are in their places. */
static void complete(struct rig_author *a, struct writing *w, const uint32_t *pgnos)
{
	struct wrep_page_change changes[PAGES_MAX];
	struct wrep_entry *e = &w->commit;
	uint32_t count = 0, dropped = 0;

	fill(a, w, e, pgnos);
	for (uint32_t p = 1; p <= e->page_count; p++) {
		if (w->dropped[p])
			wrep_entry_set_dropped(e, dropped++, p);
		else if (w->hash[p])
			changes[count++] = (struct wrep_page_change){.pgno = p, .hash = w->hash[p]};
	}
	e->checksum = wrep_pagesum_preview(&w->v->sum, e->page_size, e->page_count, changes, count);
}

/* The same entry, with its checksum in it now: `to` is encoded, `from` is full. */
static void copy_images(const struct wrep_entry *from, const struct wrep_entry *to)
{
	memcpy((uint8_t *)(uintptr_t)to->images, from->images,
	       (size_t)from->image_count * (from->page_size + 4) + (size_t)from->dropped_count * 4);
}

static struct rlog_buf *commit_entry(struct rig_author *a, struct writing *w)
{
	uint32_t pgnos[PAGES_MAX];
	struct rlog_buf *draft, *buf;
	struct wrep_entry e;

	shape(a, w, pgnos);
	draft = wrep_entry_alloc(&w->commit);
	assert(draft);
	complete(a, w, pgnos);
	e = w->commit;
	buf = wrep_entry_alloc(&e);
	assert(buf);
	copy_images(&w->commit, &e);
	rlog_buf_unref(draft);
	return buf;
}

/* Now and then one that was built on what is no longer there. */
static void outdate(struct rig_author *a, struct writing *w)
{
	if (w->commit.base_version && sim_chance(a->random, 5))
		w->commit.base_version = sim_below(a->random, w->commit.base_version);
}

/* The parts of one database's transaction. How many entries they are. */
static unsigned write_parts(struct rig_author *a, struct writing *w, unsigned count,
			    struct rlog_buf **out)
{
	unsigned made = 0;

	for (unsigned i = 0; i < count; i++) {
		struct rlog_buf *buf = part(a, w, i);

		if (sim_chance(a->random, 4)) /* it is lost, and the transaction with it */
			rlog_buf_unref(buf);
		else
			out[made++] = buf;
	}
	w->commit.part = count;
	return made;
}

static unsigned single(struct rig_author *a, const struct wrep_tree_node *n, struct rlog_buf **out)
{
	struct writing w = {0};
	unsigned made = 0;

	begin(a, &w, n);
	if (sim_chance(a->random, 12))
		made = write_parts(a, &w, 1 + (unsigned)sim_below(a->random, PARTS_MAX), out);
	if (made && sim_chance(a->random, 10)) { /* given up */
		struct wrep_entry e = w.commit;

		if (a->leaves_parts && sim_chance(a->random, 50))
			return made;
		e.type = WREP_ENTRY_DISCARD;
		out[made++] = wrep_entry_encode(&e);
		return made;
	}
	outdate(a, &w);
	out[made] = commit_entry(a, &w);
	return made + 1;
}

static int by_id(const void *x, const void *y)
{
	const struct wrep_tree_node *const *a = x, *const *b = y;

	return (*a)->id < (*b)->id ? -1 : (*a)->id > (*b)->id;
}

/* Several databases, in ascending order of their ids. 0: there are not enough. */
static unsigned several(struct rig_author *a, const struct state_rig *r,
			const struct wrep_tree_node *nodes[MEMBERS_MAX])
{
	unsigned count = 0;

	for (unsigned tries = 0; tries < 8 && count < MEMBERS_MAX; tries++) {
		const struct wrep_tree_node *n = any_idle(a, r);
		bool there = false;

		for (unsigned i = 0; i < count; i++)
			there = there || nodes[i] == n;
		if (n && !there)
			nodes[count++] = n;
		if (count == 2 && sim_chance(a->random, 60))
			break;
	}
	qsort(nodes, count, sizeof *nodes, by_id);
	return count < 2 ? 0 : count;
}

static struct rlog_buf *multi_commit_entry(struct rig_author *a, struct writing *w, unsigned count)
{
	struct wrep_entry members[MEMBERS_MAX];
	uint32_t pgnos[MEMBERS_MAX][PAGES_MAX];
	struct rlog_buf *draft, *buf;

	for (unsigned i = 0; i < count; i++) {
		shape(a, &w[i], pgnos[i]);
		members[i] = w[i].commit;
	}
	draft = wrep_entry_alloc_group(members, count);
	assert(draft);
	for (unsigned i = 0; i < count; i++) {
		w[i].commit = members[i];
		complete(a, &w[i], pgnos[i]);
		members[i] = w[i].commit;
	}
	buf = wrep_entry_alloc_group(members, count);
	assert(buf);
	for (unsigned i = 0; i < count; i++)
		copy_images(&w[i].commit, &members[i]);
	rlog_buf_unref(draft);
	return buf;
}

static unsigned multi(struct rig_author *a, const struct state_rig *r, struct rlog_buf **out)
{
	const struct wrep_tree_node *nodes[MEMBERS_MAX];
	struct writing *w = calloc(MEMBERS_MAX, sizeof *w);
	unsigned count = several(a, r, nodes), made = 0;

	assert(w);
	for (unsigned i = 0; i < count; i++) {
		begin(a, &w[i], nodes[i]);
		if (sim_chance(a->random, 15))
			made += write_parts(a, &w[i], 1 + (unsigned)sim_below(a->random, 2),
					    out + made);
		outdate(a, &w[i]);
	}
	if (count)
		out[made++] = multi_commit_entry(a, w, count);
	free(w);
	return made;
}

unsigned rig_entries(struct rig_author *a, struct state_rig *r,
		     struct rlog_buf *out[RIG_ENTRIES_MAX])
{
	const struct wrep_tree_node *n = any_idle(a, r);
	unsigned made = 0;

	if (n && sim_chance(a->random, 15))
		made = multi(a, r, out);
	if (!made && n && sim_chance(a->random, 85))
		made = single(a, n, out);
	if (!made && (!a->waits || n || sim_chance(a->random, 10)))
		out[made++] = name_entry(a, r);
	return made;
}
