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
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/pin.h"
#include "db/spool.h"
#include "db/stray.h"
#include "pages/capture.h"
#include "pages/overlay.h"
#include "record/entry.h"
#include "sqlite/names.h"
#include "sqlite/wal_index.h"
#include "state/version.h"
#include "txn/sender.h"
#include "txn/streaming.h"

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
	wrep_ahead_forget(db);
	wrep_sender_free(db);
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

void wrep_db_backing_name(const struct wrep_db *db, enum wrep_kind kind,
			  char name[WREP_NAME_MAX + 16])
{
	wrep_names_file(db->name, kind, name);
}

int wrep_dir_fd(const struct wrep *w, enum wrep_kind kind)
{
	return kind == WREP_SHM ? w->config.shm_fd : w->config.data_fd;
}

struct wrep_file *wrep_file_ref(struct wrep_file *f)
{
	atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
	return f;
}

void wrep_file_unref(struct wrep_file *f)
{
	if (!f || atomic_fetch_sub(&f->refs, 1) != 1)
		return;
	if (f->fd >= 0)
		close(f->fd);
	wrep_db_unref(f->db);
	wrep_stray_free(f->stray);
	free(f);
}

enum wrep_kind wrep_file_kind(const struct wrep_file *f)
{
	return f->kind;
}

const char *wrep_file_name(const struct wrep_file *f)
{
	return f->name;
}

_Atomic(void *) *wrep_file_host_data(struct wrep_file *f)
{
	return &f->host_data;
}

int wrep_file_fd(struct wrep_file *f)
{
	return f->fd;
}

int wrep_file_make(struct wrep_db *db, enum wrep_kind kind, int fd, ino_t ino,
		   struct wrep_file **out)
{
	char name[WREP_NAME_MAX + 16];
	struct wrep_file *f;

	wrep_db_backing_name(db, kind, name);
	f = calloc(1, sizeof *f + strlen(name) + 1);
	if (!f)
		return -ENOMEM;
	strcpy(f->name, name);
	atomic_init(&f->refs, 1);
	f->kind = kind;
	f->fd = fd;
	f->ino = ino;
	f->db = wrep_db_ref(db);
	if (kind == WREP_WAL && fd >= 0) {
		int rc;

		assert(!db->capture);
		rc = wrep_capture_open(&db->capture, fd);
		if (rc < 0) {
			wrep_db_unref(db);
			free(f);
			return rc;
		}
	}
	*out = f;
	return 0;
}

struct wrep_file *wrep_db_file(struct wrep_db *db, enum wrep_kind kind)
{
	struct wrep_file *f = db->files[kind];
	char name[WREP_NAME_MAX + 16];
	struct stat st = {0};
	int fd = -1;

	if (!f && kind != WREP_DB && db->files[WREP_DB] && !db->removed) {
		/* The daemon's own SQLite makes -wal and -shm as well. Before the applier has made
		 * the database itself, what lies under the name belonged to a former one. */
		wrep_db_backing_name(db, kind, name);
		if (!db->holds) {
			if (fstatat(wrep_dir_fd(db->w, kind), name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
			    !S_ISREG(st.st_mode))
				return NULL;
		} else {
			fd = openat(wrep_dir_fd(db->w, kind), name,
				    O_RDWR | O_CLOEXEC | O_NOFOLLOW);
			if (fd < 0)
				return NULL;
		}
		if (wrep_file_make(db, kind, fd, st.st_ino, &f) < 0) {
			if (fd >= 0)
				close(fd);
			return NULL;
		}
		db->files[kind] = f;
	}
	return f ? wrep_file_ref(f) : NULL;
}

void wrep_db_forget_file(struct wrep_db *db, enum wrep_kind kind)
{
	struct wrep_file *f = db->files[kind];

	db->files[kind] = NULL;
	if (kind == WREP_WAL && db->capture) {
		wrep_ahead_forget(db);
		wrep_capture_close(db->capture);
		db->capture = NULL;
	}
	if (f && !db->holds && f->fd >= 0) { /* else whoever has it open goes on with it */
		close(f->fd);
		f->fd = -1;
	}
	wrep_file_unref(f);
}

void wrep_db_drop_overlay(struct wrep_db *db)
{
	wrep_ahead_forget(db);
	wrep_overlay_close(db->overlay);
	db->overlay = NULL;
	db->direct.active = false;
	wrep_db_rest(db);
}

bool wrep_db_revoke(struct wrep_db *db, bool lost)
{
	struct wrep *w = db->w;
	struct wrep_file *old[2] = {NULL}, *fresh;
	char name[WREP_NAME_MAX + 16];
	int fd, rc = 0;

	assert(!db->conn);
	wrep_db_backing_name(db, WREP_SHM, name);
	pthread_mutex_lock(&db->lock);
	if (db->pending || db->removed) {
		pthread_mutex_unlock(&db->lock);
		return false;
	}
	old[0] = db->files[WREP_DB];
	if (old[0]) {
		fd = old[0]->fd < 0 ? -1 : fcntl(old[0]->fd, F_DUPFD_CLOEXEC, 0);
		rc = fd < 0 && old[0]->fd >= 0
			     ? -errno
			     : wrep_file_make(db, WREP_DB, fd, old[0]->ino, &fresh);
		old[0]->revoked = true;
		old[0]->lost = lost || db->direct.active;
		db->files[WREP_DB] = rc ? NULL : fresh;
		if (!db->holds && old[0]->fd >= 0) {
			close(old[0]->fd);
			old[0]->fd = -1;
		}
	}
	old[1] = wrep_db_file(db, WREP_WAL);
	if (old[1])
		old[1]->revoked = true;
	wrep_db_forget_file(db, WREP_WAL);
	if (db->files[WREP_SHM] && db->files[WREP_SHM]->fd >= 0)
		wrep_wal_index_spoil(db->files[WREP_SHM]->fd);
	unlinkat(wrep_dir_fd(w, WREP_SHM), name, 0);
	wrep_db_forget_file(db, WREP_SHM);
	wrep_db_drop_overlay(db);
	db->opens = 0;
	db->locker_tid = 0;
	wrep_txn_unlock(db);
	for (int i = 0; i < 2; i++) {
		if (old[i])
			w->config.host.invalidate(w->config.host_ctx, old[i], 0, 0);
		wrep_file_unref(old[i]);
	}
	if (rc)
		wrep_fatalf(w, "cannot open a database file again name=%s error=%s", db->name,
			    strerror(-rc));
	return true;
}

void wrep_db_settled(struct wrep_db *db)
{
	if (!db->removed) {
		wrep_db_rest(db);
		return;
	}
	for (int k = 0; k < 4; k++)
		wrep_db_forget_file(db, k);
}

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
