/* The table of databases as a log leaves it, without any file: what state/state.c
 * decides when an entry is delivered, from the snapshot and the entries alone. There are no page images
 * here, so the versions are without page sums.
 *
 * A log that was compacted begins with what the manifest says. Entries up to the snapshot's index are not
 * delivered any more, though some may still lie in the log: they are the only ones that this file judges itself.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "record/entry.h"
#include "record/manifest.h"
#include "state/name_tree.h"
#include "state/parts.h"
#include "state/state.h"
#include "state/version.h"
#include "walrepl.h"

static_assert((int)WREP_REFUSED == (int)WREP_HISTORY_PASSED_OVER, "a verdict is what is told");
static_assert((int)WREP_TAKES_EFFECT == (int)WREP_HISTORY_TAKES_EFFECT,
	      "a verdict is what is told");
static_assert((int)WREP_PAST == (int)WREP_HISTORY_IN_SNAPSHOT, "a verdict is what is told");

struct entry_db {
	struct wrep_version version; /* first: what the state refers to */
	uint64_t id, snapshot_index;
	uint32_t wal_frames;
};

struct wrep_history {
	struct wrep_replicated *state;
	uint64_t start_index;  /* of the snapshot; 0: there is none */
	uint64_t wanted;       /* up to here the log has to reach, as the manifest says */
	struct entry_db **dbs; /* by id */
	size_t count, room;
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
		h->state = wrep_state_new();
	if (!h || !h->state) {
		free(h);
		return NULL;
	}
	return h;
}

static void free_db(struct entry_db *e)
{
	wrep_version_clear(&e->version);
	free(e);
}

void wrep_history_free(struct wrep_history *h)
{
	if (!h)
		return;
	for (size_t i = 0; i < h->count; i++)
		free_db(h->dbs[i]);
	for (size_t i = 0; i < h->former_count; i++)
		free(h->former[i].name);
	free(h->former);
	free(h->dbs);
	wrep_state_free(h->state);
	free(h);
}

/* ---- the databases ------------------------------------------------------------------------------- */

static struct entry_db *append(struct wrep_history *h, uint64_t id)
{
	size_t at = h->count;
	struct entry_db *e;

	if (h->count == h->room) {
		size_t room = h->room ? 2 * h->room : 16;
		struct entry_db **more = reallocarray(h->dbs, room, sizeof(*more));

		if (!more)
			return NULL;
		h->dbs = more;
		h->room = room;
	}
	e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	wrep_version_init(&e->version, id);
	e->version.without_sums = true;
	e->id = id;
	/* A database that was made behind the snapshot may be in it, with a later id. */
	for (; at > 0 && h->dbs[at - 1]->id > id; at--)
		h->dbs[at] = h->dbs[at - 1];
	h->dbs[at] = e;
	h->count++;
	return e;
}

static void remove_db(struct wrep_history *h, uint64_t id)
{
	size_t i = 0;

	while (i < h->count && h->dbs[i]->id != id)
		i++;
	if (i == h->count)
		return;
	free_db(h->dbs[i]);
	memmove(h->dbs + i, h->dbs + i + 1, (--h->count - i) * sizeof(*h->dbs));
}

static int start_db(struct wrep_history *h, const struct wrep_manifest_db *d)
{
	struct entry_db *e = append(h, d->id);

	if (!e)
		return -ENOMEM;
	e->snapshot_index = d->index;
	e->wal_frames = d->wal_frames;
	wrep_version_restore(&e->version, d, NULL);
	return wrep_state_restore_name(h->state, d->id, d->name, false, &e->version);
}

int wrep_history_start(struct wrep_history *h, uint64_t index, const struct rlog_buf *payload)
{
	struct wrep_manifest m;
	int rc = wrep_manifest_decode(payload, &m);

	if (rc)
		return rc;
	if (!m.names_index)
		m.names_index = index; /* of an earlier version */
	h->start_index = index;
	h->wanted = m.redo_until;
	rc = wrep_state_restore(h->state, &m, 0);
	for (size_t i = 0; i < m.dir_count && !rc; i++)
		rc = wrep_state_restore_name(h->state, m.dirs[i].id, m.dirs[i].path, true, NULL);
	wrep_manifest_sort(&m);
	for (size_t i = 0; i < m.count && !rc; i++)
		rc = start_db(h, &m.dbs[i]);
	wrep_manifest_clear(&m);
	return rc;
}

uint64_t wrep_history_wants(const struct wrep_history *h)
{
	return h->wanted;
}

static int remember(struct wrep_history *h, uint64_t id, const char *name)
{
	char *copy;

	if (h->former_count == h->former_room) {
		size_t room = h->former_room ? 2 * h->former_room : 16;
		struct former *more = reallocarray(h->former, room, sizeof(*more));

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

/* The name that `id` has, or had. */
static const char *name_of(const struct wrep_history *h, uint64_t id)
{
	const struct wrep_tree_node *n = wrep_tree_find(h->state->names, id);

	for (size_t i = h->former_count; !n && i-- > 0;)
		if (h->former[i].id == id)
			return h->former[i].name;
	return n ? n->path : "";
}

/* ---- entries ------------------------------------------------------------------------------------- */

/* The entry that was described, without its images. */
static void entry_of(const struct wrep_description *d, struct wrep_entry *e)
{
	static const enum wrep_entry_type types[] = {
		[WREP_DESCRIBES_CREATE] = WREP_ENTRY_CREATE,
		[WREP_DESCRIBES_UNLINK] = WREP_ENTRY_UNLINK,
		[WREP_DESCRIBES_SETATTR] = WREP_ENTRY_SETATTR,
		[WREP_DESCRIBES_PAGES] = WREP_ENTRY_PAGES,
		[WREP_DESCRIBES_COMMIT] = WREP_ENTRY_COMMIT,
		[WREP_DESCRIBES_DISCARD] = WREP_ENTRY_DISCARD,
		[WREP_DESCRIBES_GROUP] = WREP_ENTRY_GROUP,
		[WREP_DESCRIBES_MKDIR] = WREP_ENTRY_MKDIR,
		[WREP_DESCRIBES_RMDIR] = WREP_ENTRY_RMDIR,
		[WREP_DESCRIBES_RENAME] = WREP_ENTRY_RENAME,
	};

	*e = (struct wrep_entry){
		.type = types[d->kind],
		.db_id = d->db_id,
		.keep = d->keep,
		.origin = d->origin,
		.sequence = d->sequence,
		.part = d->part,
		.base_version = d->base_version,
		.checksum = d->checksum,
		.page_count = d->page_count,
		.page_size = d->page_size,
	};
	strcpy(e->name, d->kind == WREP_DESCRIBES_RENAME ? d->to : d->name);
}

static int change_names(struct wrep_history *h, uint64_t index, const struct wrep_entry *e,
			struct wrep_description *d)
{
	bool makes = e->type == WREP_ENTRY_CREATE || e->type == WREP_ENTRY_MKDIR;
	struct wrep_name_effect effect;
	struct entry_db *db;
	int rc = wrep_state_change_names(h->state, index, e, &effect);

	if (rc)
		return rc;
	if (makes) {
		d->db_id = effect.id && effect.is_dir == d->is_dir ? effect.id : index;
		if (effect.verdict == WREP_PAST && !effect.id)
			rc = remember(h, index, d->name);
	} else {
		d->is_dir = d->is_dir || effect.is_dir;
		d->replaced = effect.replaced;
	}
	if (effect.verdict != WREP_TAKES_EFFECT || rc)
		return rc ? rc : (int)effect.verdict;
	if (e->type == WREP_ENTRY_CREATE) {
		db = append(h, index);
		if (!db)
			return -ENOMEM;
		wrep_state_attach(h->state, index, &db->version);
	} else if (e->type == WREP_ENTRY_UNLINK) {
		remove_db(h, e->db_id);
	} else if (effect.replaced) {
		remove_db(h, effect.replaced);
	}
	return effect.verdict;
}

static int commit(struct wrep_history *h, struct wrep_log_position at, struct wrep_change *changes,
		  uint32_t count)
{
	const struct wrep_change *bad;
	int rc;

	rc = count == 1 ? wrep_state_commit(h->state, at, changes)
			: wrep_state_multi_commit(h->state, at, changes, count, &bad);
	for (uint32_t i = 0; i < count; i++)
		wrep_parts_free(changes[i].parts);
	return rc == -EUCLEAN ? WREP_HISTORY_PASSED_OVER : rc; /* no node went on from there */
}

/* An entry of a transaction of the database that is at `v`. */
static int add_to_transaction(struct wrep_history *h, struct wrep_log_position at,
			      struct wrep_version *v, const struct wrep_entry *e)
{
	struct wrep_change c = {.e = *e, .v = v};
	struct wrep_parts *given_up = wrep_version_give_up_older(v, at.term);
	int rc;

	wrep_parts_free(given_up);
	if (e->type == WREP_ENTRY_COMMIT)
		return commit(h, at, &c, 1);
	if (e->type == WREP_ENTRY_PAGES)
		rc = wrep_version_pages(v, e, at.index, at.term, &given_up);
	else
		rc = wrep_version_discard(v, e, at.index, &given_up);
	wrep_parts_free(given_up);
	return rc;
}

static int add_multi_commit(struct wrep_history *h, struct wrep_log_position at,
			    struct wrep_description *d)
{
	struct wrep_change *changes = calloc(d->member_count + 1, sizeof(*changes));
	int rc;

	if (!changes)
		return -ENOMEM;
	for (uint32_t i = 0; i < d->member_count; i++) {
		strcpy(d->members[i].name, name_of(h, d->members[i].db_id));
		entry_of(&d->members[i], &changes[i].e);
		changes[i].v = wrep_state_version(h->state, d->members[i].db_id);
	}
	rc = at.index <= h->start_index ? WREP_HISTORY_IN_SNAPSHOT
					: commit(h, at, changes, d->member_count);
	free(changes);
	return rc;
}

int wrep_history_add(struct wrep_history *h, uint64_t index, uint64_t term,
		     struct wrep_description *d)
{
	const struct wrep_log_position at = {index, term};
	struct wrep_version *v;
	struct wrep_entry e;

	if (d->kind == WREP_DESCRIBES_GROUP)
		return add_multi_commit(h, at, d);
	entry_of(d, &e);
	if (d->kind != WREP_DESCRIBES_CREATE && d->kind != WREP_DESCRIBES_MKDIR)
		strcpy(d->name, name_of(h, d->db_id));
	if (d->kind != WREP_DESCRIBES_PAGES && d->kind != WREP_DESCRIBES_COMMIT &&
	    d->kind != WREP_DESCRIBES_DISCARD) {
		int rc = change_names(h, index, &e, d);

		/* Attributes are not in the state. */
		return rc == WREP_HISTORY_TAKES_EFFECT && index <= h->start_index
			       ? WREP_HISTORY_IN_SNAPSHOT
			       : rc;
	}
	v = wrep_state_version(h->state, d->db_id);
	if (index <= (v ? h->start_index : h->state->names_index))
		return WREP_HISTORY_IN_SNAPSHOT;
	return v ? add_to_transaction(h, at, v, &e) : WREP_HISTORY_PASSED_OVER;
}

/* ---- what there is ------------------------------------------------------------------------------- */

int wrep_history_databases(const struct wrep_history *h,
			   int (*each)(void *arg, const struct wrep_history_db *db), void *arg)
{
	int rv = 0;

	for (size_t i = 0; rv == 0 && i < h->count; i++) {
		const struct entry_db *e = h->dbs[i];
		const struct wrep_history_db db = {
			.id = e->id,
			.name = name_of(h, e->id),
			.version = e->version.version,
			.checksum = e->version.sum.sum,
			.page_size = e->version.sum.page_size,
			.page_count = e->version.sum.page_count,
			.index = e->snapshot_index,
			.wal_frames = e->wal_frames,
		};

		rv = each(arg, &db);
	}
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

	wrep_tree_each(h->state->names, one_directory, &e);
	return e.rv;
}
