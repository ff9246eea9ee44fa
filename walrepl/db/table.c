/* The databases and the incarnations of their files: who refers to what, and for how long.
 *
 * Each of the two tables holds one reference to a database. It is in that of ids from the entry that
 * creates it to the one that removes it, and in that of names while applications see it, which the applier
 * brings about a little later. It lives on while files, queued work or undecided transactions refer to it. A database holds
 * one reference to the current incarnation of each of its files, and every file one to its database;
 * wrep_db_forget_file() is what unties the two.
 */
#include "db/table.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "base/wrep.h"
#include "db/db.h"
#include "db/spool.h"
#include "pages/capture.h"
#include "pages/overlay.h"
#include "sqlite/names.h"
#include "state/version.h"

/* ---- the table -------------------------------------------------------------------------------- */

static unsigned name_bucket(const char *name)
{
	return (unsigned)(XXH3_64bits(name, strlen(name)) % WREP_BUCKETS);
}

struct wrep_db *wrep_db_ref(struct wrep_db *db)
{
	atomic_fetch_add_explicit(&db->refs, 1, memory_order_relaxed);
	return db;
}

void wrep_db_unref(struct wrep_db *db)
{
	if (!db || atomic_fetch_sub(&db->refs, 1) != 1)
		return;
	assert(!db->conn && !db->pending);
	wrep_overlay_close(db->overlay);
	if (db->capture)
		wrep_capture_close(db->capture);
	db->up->db_freed(db); /* `w` may be gone */
	while (db->unapplied)
		wrep_spool_applied(db, db->unapplied);
	wrep_spool_unref(wrep_spool_take(wrep_version_take_parts(&db->state)));
	wrep_version_clear(&db->state);
	pthread_mutex_destroy(&db->lock);
	pthread_cond_destroy(&db->wal_gone);
	while (db->names) {
		struct wrep_name *former = db->names->former;

		free(db->names);
		db->names = former;
	}
	free(db);
}

struct wrep_db *wrep_db_by_name(struct wrep *w, const char *name)
{
	struct wrep_db *db;

	pthread_mutex_lock(&w->lock);
	for (db = w->by_name[name_bucket(name)]; db; db = db->next_by_name)
		if (!strcmp(db->name, name))
			break;
	if (db)
		wrep_db_ref(db);
	pthread_mutex_unlock(&w->lock);
	return db;
}

struct wrep_db *wrep_db_by_id(struct wrep *w, uint64_t id)
{
	struct wrep_db *db;

	pthread_mutex_lock(&w->lock);
	for (db = w->by_id[id % WREP_BUCKETS]; db; db = db->next_by_id)
		if (db->id == id)
			break;
	if (db)
		wrep_db_ref(db);
	pthread_mutex_unlock(&w->lock);
	return db;
}

/* Put all databases into `all`, if it is there. Returns how many they are. w->lock held. */
static size_t collect(struct wrep *w, struct wrep_db **all)
{
	size_t n = 0;

	for (size_t b = 0; b < WREP_BUCKETS; b++) {
		for (struct wrep_db *db = w->by_id[b]; db; db = db->next_by_id, n++)
			if (all)
				all[n] = wrep_db_ref(db);
		for (struct wrep_db *db = w->by_name[b]; db; db = db->next_by_name) {
			if (db->known)
				continue;
			if (all)
				all[n] = wrep_db_ref(db);
			n++;
		}
	}
	return n;
}

int wrep_db_all(struct wrep *w, struct wrep_db ***out, size_t *count)
{
	struct wrep_db **all;

	pthread_mutex_lock(&w->lock);
	all = malloc((collect(w, NULL) + 1) * sizeof *all);
	if (!all) {
		pthread_mutex_unlock(&w->lock);
		return -ENOMEM;
	}
	*count = collect(w, all);
	pthread_mutex_unlock(&w->lock);
	*out = all;
	return 0;
}

int wrep_db_set_name(struct wrep_db *db, const char *name)
{
	struct wrep_name *n = malloc(sizeof *n + strlen(name) + 1);

	if (!n)
		return -ENOMEM;
	strcpy(n->text, name);
	n->former = db->names;
	db->names = n;
	atomic_store(&db->name, n->text);
	return 0;
}

/* A new database enters the table of ids, which holds one reference. */
struct wrep_db *wrep_db_new(struct wrep *w, const char *name, uint64_t id)
{
	struct wrep_db *db = calloc(1, sizeof *db);

	if (!db)
		return NULL;
	if (wrep_db_set_name(db, name)) {
		free(db);
		return NULL;
	}
	atomic_init(&db->refs, 1);
	db->w = w;
	db->up = w->up;
	db->id = db->local_index = id;
	wrep_version_init(&db->state, id);
	db->touched = true;
	pthread_mutex_init(&db->lock, NULL);
	pthread_cond_init(&db->wal_gone, NULL);
	pthread_mutex_lock(&w->lock);
	db->known = true;
	db->next_by_id = w->by_id[id % WREP_BUCKETS];
	w->by_id[id % WREP_BUCKETS] = db;
	pthread_mutex_unlock(&w->lock);
	return db;
}

void wrep_db_remove(struct wrep_db *db)
{
	struct wrep *w = db->w;
	struct wrep_db **p;
	bool known;

	pthread_mutex_lock(&w->lock);
	known = db->known;
	db->known = false;
	for (p = &w->by_id[db->id % WREP_BUCKETS]; known && *p != db; p = &(*p)->next_by_id)
		;
	if (known)
		*p = db->next_by_id;
	pthread_mutex_unlock(&w->lock);
	if (known)
		wrep_db_unref(db);
}

void wrep_db_show_locked(struct wrep_db *db)
{
	struct wrep *w = db->w;
	unsigned b = name_bucket(db->name);

	if (db->shown)
		return;
	db->shown = true;
	db->next_by_name = w->by_name[b];
	w->by_name[b] = wrep_db_ref(db);
}

void wrep_db_hide_locked(struct wrep_db *db)
{
	struct wrep_db **p;

	if (!db->shown)
		return;
	db->shown = false;
	for (p = &db->w->by_name[name_bucket(db->name)]; *p != db; p = &(*p)->next_by_name)
		;
	*p = db->next_by_name;
	wrep_db_unref(db); /* never the last: the caller has one */
}

void wrep_db_show(struct wrep_db *db, uint64_t index)
{
	pthread_mutex_lock(&db->w->lock);
	wrep_db_show_locked(db);
	db->w->names_index = index;
	pthread_mutex_unlock(&db->w->lock);
}

void wrep_db_hide(struct wrep_db *db, uint64_t index)
{
	pthread_mutex_lock(&db->w->lock);
	wrep_db_hide_locked(db);
	db->w->names_index = index;
	pthread_mutex_unlock(&db->w->lock);
}

/* ---- files ------------------------------------------------------------------------------------ */

bool wrep_db_is_removed(struct wrep_db *db)
{
	bool removed;

	pthread_mutex_lock(&db->lock);
	removed = db->removed;
	pthread_mutex_unlock(&db->lock);
	return removed;
}

int wrep_name_refusal(const struct wrep *w, const char *name)
{
	return wrep_names_refusal(w->config.match, name);
}

bool wrep_name_kind(const struct wrep *w, const char *name, enum wrep_kind *kind)
{
	char base[WREP_PATH_MAX + 1];

	return wrep_names_kind(w->config.match, name, kind, base);
}

void wrep_db_retire(struct wrep_db *db)
{
	pthread_mutex_lock(&db->lock);
	db->removed = db->retired = true;
	pthread_mutex_unlock(&db->lock);
}
