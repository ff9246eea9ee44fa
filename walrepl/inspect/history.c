/* The table of databases as a log leaves it, without any file: what replica.c decides when an entry
 * is delivered, decided from the snapshot and the entries alone. A change of the rules there is a change
 * here.
 *
 * The table is in the order of creation, which is that of the ids. A COMMIT moves the version of its
 * database by one if it was built on the present one and all of its parts came before it, in its own
 * term.
 *
 * A log that was compacted begins with what the manifest says. Entries up to the snapshot's index are
 * not delivered any more, though some may still lie in the log; those behind it are, but for the
 * databases that were ahead of the snapshot when it was taken: what led to these is passed over. Whether a
 * group took effect is in the manifest, as far as that cannot be judged (txn/multi_commit.c). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "record/manifest.h"
#include "state/name_tree.h"
#include "walrepl.h"

struct entry_db {
	struct wrep_history_db db;
	/* of the transaction that is coming in, and how many parts of it there are */
	uint64_t origin, sequence, term;
	uint32_t parts;
};

struct wrep_history {
	struct wrep_tree *tree; /* all names */
	uint64_t names_index;	/* of the manifest: entries up to it change none again */
	struct entry_db *dbs;
	size_t count, room;
	uint64_t start_index;	     /* of the snapshot; 0: there is none */
	uint64_t redo_until;	     /* what the manifest says */
	struct wrep_manifest groups; /* without databases */
	/* What entries in front of the snapshot made that it does not have (any more), by id. */
	struct former {
		uint64_t id;
		char *name;
	} * former;
	size_t former_count, former_room;
};

struct wrep_history *wrep_history_new(void)
{
	struct wrep_history *h = calloc(1, sizeof(*h));

	if (h)
		h->tree = wrep_tree_new();
	if (!h || !h->tree) {
		free(h);
		return NULL;
	}
	return h;
}

void wrep_history_free(struct wrep_history *h)
{
	if (!h)
		return;
	for (size_t i = 0; i < h->count; i++)
		free((char *)h->dbs[i].db.name);
	for (size_t i = 0; i < h->former_count; i++)
		free(h->former[i].name);
	wrep_manifest_clear(&h->groups);
	free(h->former);
	free(h->dbs);
	wrep_tree_free(h->tree);
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

/* Room at the end for one more, named `name`; NULL when out of memory. */
static struct entry_db *append(struct wrep_history *h, uint64_t id, const char *name)
{
	char *copy;

	if (h->count == h->room) {
		size_t room = h->room ? 2 * h->room : 16;
		struct entry_db *more = realloc(h->dbs, room * sizeof(*more));

		if (!more)
			return NULL;
		h->dbs = more;
		h->room = room;
	}
	copy = strdup(name);
	if (!copy)
		return NULL;
	h->dbs[h->count] = (struct entry_db){.db = {.id = id, .name = copy}};
	return &h->dbs[h->count++];
}

static int by_id(const void *a, const void *b)
{
	uint64_t x = ((const struct entry_db *)a)->db.id, y = ((const struct entry_db *)b)->db.id;

	return x < y ? -1 : x > y;
}

int wrep_history_start(struct wrep_history *h, uint64_t index, const struct rlog_buf *payload)
{
	struct wrep_manifest m;
	int rc = wrep_manifest_decode(payload, &m);

	if (rc)
		return rc;
	h->start_index = index;
	h->redo_until = m.redo_until;
	rc = wrep_manifest_set_groups(&h->groups, m.judged_until, m.groups, m.group_count);
	h->names_index = m.names_index ? m.names_index : index;
	for (size_t i = 0; i < m.dir_count && !rc; i++)
		rc = wrep_tree_add(h->tree, m.dirs[i].id, m.dirs[i].path, true);
	for (size_t i = 0; i < m.count && !rc; i++) {
		const struct wrep_manifest_db *d = &m.dbs[i];
		struct entry_db *e = append(h, d->id, d->name);

		rc = e ? wrep_tree_add(h->tree, d->id, d->name, false) : -ENOMEM;
		if (rc)
			break;
		e->db.version = d->version;
		e->db.checksum = d->checksum;
		e->db.page_size = d->page_size;
		e->db.page_count = d->page_count;
		e->db.index = d->index;
		e->db.wal_frames = d->wal_frames;
	}
	if (h->count > 0)
		qsort(h->dbs, h->count, sizeof(*h->dbs), by_id);
	wrep_manifest_clear(&m);
	return rc && rc != -ENOMEM ? -EBADMSG : rc;
}

static int remember(struct wrep_history *h, uint64_t id, const char *name)
{
	char *copy;

	if (h->former_count == h->former_room) {
		size_t room = h->former_room ? 2 * h->former_room : 16;
		struct former *more = realloc(h->former, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		h->former = more;
		h->former_room = room;
	}
	copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	h->former[h->former_count++] = (struct former){.id = id, .name = copy};
	return 0;
}

static const char *former_name(const struct wrep_history *h, uint64_t id)
{
	for (size_t i = h->former_count; i-- > 0;)
		if (h->former[i].id == id)
			return h->former[i].name;
	return "";
}

static int add_create(struct wrep_history *h, uint64_t index, struct wrep_description *d)
{
	struct wrep_tree_node *there;
	int rc;

	d->db_id = index;
	if (find(h, index))
		return WREP_HISTORY_IN_SNAPSHOT;
	if (index <= h->names_index)
		return remember(h, index, d->name) < 0 ? -ENOMEM : WREP_HISTORY_IN_SNAPSHOT;
	there = wrep_tree_find_path(h->tree, d->name);
	if (there && !there->is_dir)
		d->db_id = there->id;
	rc = wrep_tree_add(h->tree, index, d->name, false);
	if (rc)
		return rc == -ENOMEM ? rc : WREP_HISTORY_PASSED_OVER;
	if (!append(h, index, d->name))
		return -ENOMEM;
	/* A database that was made behind the snapshot may be in it, with a later id. */
	if (h->count > 1 && h->dbs[h->count - 2].db.id > index)
		qsort(h->dbs, h->count, sizeof(*h->dbs), by_id);
	return WREP_HISTORY_TAKES_EFFECT;
}

static int add_mkdir(struct wrep_history *h, uint64_t index, struct wrep_description *d)
{
	struct wrep_tree_node *there;
	int rc;

	d->db_id = index;
	if (index <= h->names_index) {
		rc = wrep_tree_find(h->tree, index) ? 0 : remember(h, index, d->name);
		return rc ? rc : WREP_HISTORY_IN_SNAPSHOT;
	}
	there = wrep_tree_find_path(h->tree, d->name);
	if (there && there->is_dir)
		d->db_id = there->id;
	rc = wrep_tree_add(h->tree, index, d->name, true);
	return rc == -ENOMEM ? rc : rc ? WREP_HISTORY_PASSED_OVER : WREP_HISTORY_TAKES_EFFECT;
}

/* RMDIR, and SETATTR of a directory. */
static int add_to_directory(struct wrep_history *h, uint64_t index, struct wrep_tree_node *n,
			    struct wrep_description *d)
{
	d->is_dir = true;
	strcpy(d->name, n->path);
	if (d->kind == WREP_DESCRIBES_SETATTR)
		return index <= h->start_index ? WREP_HISTORY_IN_SNAPSHOT
					       : WREP_HISTORY_TAKES_EFFECT;
	if (index <= h->names_index)
		return WREP_HISTORY_IN_SNAPSHOT;
	if (n->children)
		return WREP_HISTORY_PASSED_OVER;
	wrep_tree_remove(h->tree, n->id);
	return WREP_HISTORY_TAKES_EFFECT;
}

static void remove_db(struct wrep_history *h, struct entry_db *e)
{
	free((char *)e->db.name);
	memmove(e, e + 1, (size_t)(h->dbs + --h->count - e) * sizeof(*e));
}

static int add_rename(struct wrep_history *h, struct entry_db *e, struct wrep_description *d)
{
	char *name = strdup(d->to);
	struct entry_db *replaced;
	int rc = name ? wrep_tree_rename(h->tree, e->db.id, d->to, d->keep, &d->replaced) : -ENOMEM;

	if (rc <= 0) {
		free(name);
		return rc == -ENOMEM ? rc : WREP_HISTORY_PASSED_OVER;
	}
	free((char *)e->db.name);
	e->db.name = name;
	replaced = d->replaced ? find(h, d->replaced) : NULL;
	if (replaced)
		remove_db(h, replaced);
	return WREP_HISTORY_TAKES_EFFECT;
}

uint64_t wrep_history_wants(const struct wrep_history *h)
{
	return h->redo_until;
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
		return WREP_HISTORY_PASSED_OVER;
	e->parts++;
	return WREP_HISTORY_TAKES_EFFECT;
}

static int add_discard(struct entry_db *e, uint64_t term, const struct wrep_description *d)
{
	if (!is_open(e, term, d))
		return WREP_HISTORY_PASSED_OVER;
	e->parts = 0;
	return WREP_HISTORY_TAKES_EFFECT;
}

static bool commit_holds(struct entry_db *e, uint64_t term, const struct wrep_description *d)
{
	bool complete = d->part == 0 || (is_open(e, term, d) && d->part == e->parts);

	e->parts = 0;
	return complete && d->base_version == e->db.version;
}

static void commit(struct entry_db *e, const struct wrep_description *d)
{
	e->db.version++;
	e->db.checksum = d->checksum;
	e->db.page_size = d->page_size;
	e->db.page_count = d->page_count;
}

static int add_commit(struct entry_db *e, uint64_t term, const struct wrep_description *d)
{
	if (!commit_holds(e, term, d))
		return WREP_HISTORY_PASSED_OVER;
	commit(e, d);
	return WREP_HISTORY_TAKES_EFFECT;
}

static int add_group(struct wrep_history *h, uint64_t index, uint64_t term,
		     struct wrep_description *d)
{
	bool effect = true, news = false;

	for (uint32_t i = 0; i < d->member_count; i++) {
		struct wrep_description *m = &d->members[i];
		struct entry_db *e = find(h, m->db_id);
		bool past = e && index <= e->db.index;

		strcpy(m->name, e ? e->db.name : former_name(h, m->db_id));
		if (index <= h->start_index || past)
			continue;
		news = true;
		effect = e && commit_holds(e, term, m) && effect;
	}
	if (!news)
		return WREP_HISTORY_IN_SNAPSHOT;
	if (index <= h->groups.judged_until)
		effect = wrep_manifest_has_group(&h->groups, index);
	for (uint32_t i = 0; i < d->member_count && effect; i++) {
		struct entry_db *e = find(h, d->members[i].db_id);

		if (e && index > e->db.index)
			commit(e, &d->members[i]);
	}
	return effect ? WREP_HISTORY_TAKES_EFFECT : WREP_HISTORY_PASSED_OVER;
}

int wrep_history_add(struct wrep_history *h, uint64_t index, uint64_t term,
		     struct wrep_description *d)
{
	struct wrep_tree_node *n;
	struct entry_db *e;
	bool names = d->kind == WREP_DESCRIBES_UNLINK || d->kind == WREP_DESCRIBES_RENAME ||
		     d->kind == WREP_DESCRIBES_RMDIR;

	if (d->kind == WREP_DESCRIBES_CREATE)
		return add_create(h, index, d);
	if (d->kind == WREP_DESCRIBES_GROUP)
		return add_group(h, index, term, d);
	if (d->kind == WREP_DESCRIBES_MKDIR)
		return add_mkdir(h, index, d);
	e = find(h, d->db_id);
	n = wrep_tree_find(h->tree, d->db_id);
	if (n && n->is_dir)
		return add_to_directory(h, index, n, d);
	strcpy(d->name, e ? e->db.name : former_name(h, d->db_id));
	if (names ? index <= h->names_index
		  : index <= (e ? h->start_index : h->names_index) || (e && index <= e->db.index))
		return WREP_HISTORY_IN_SNAPSHOT;
	if (!e)
		return WREP_HISTORY_PASSED_OVER;
	switch (d->kind) {
	case WREP_DESCRIBES_UNLINK:
		wrep_tree_remove(h->tree, e->db.id);
		remove_db(h, e);
		return WREP_HISTORY_TAKES_EFFECT;
	case WREP_DESCRIBES_PAGES:
		return add_pages(e, term, d);
	case WREP_DESCRIBES_COMMIT:
		return add_commit(e, term, d);
	case WREP_DESCRIBES_DISCARD:
		return add_discard(e, term, d);
	case WREP_DESCRIBES_RENAME:
		return add_rename(h, e, d);
	case WREP_DESCRIBES_RMDIR:
		return WREP_HISTORY_PASSED_OVER;
	case WREP_DESCRIBES_CREATE:
	case WREP_DESCRIBES_GROUP:
	case WREP_DESCRIBES_MKDIR:
	case WREP_DESCRIBES_SETATTR:
		break;
	}
	return WREP_HISTORY_TAKES_EFFECT;
}

int wrep_history_databases(const struct wrep_history *h,
			   int (*each)(void *arg, const struct wrep_history_db *db), void *arg)
{
	int rv = 0;

	for (size_t i = 0; rv == 0 && i < h->count; i++)
		rv = each(arg, &h->dbs[i].db);
	return rv;
}

struct each_directory {
	int (*each)(void *arg, uint64_t id, const char *path);
	void *arg;
	int rv;
};

static void one_directory(void *arg, struct wrep_tree_node *n)
{
	struct each_directory *e = arg;

	if (n->is_dir && e->rv == 0)
		e->rv = e->each(e->arg, n->id, n->path);
}

int wrep_history_directories(const struct wrep_history *h,
			     int (*each)(void *arg, uint64_t id, const char *path), void *arg)
{
	struct each_directory e = {.each = each, .arg = arg};

	wrep_tree_each(h->tree, one_directory, &e);
	return e.rv;
}
