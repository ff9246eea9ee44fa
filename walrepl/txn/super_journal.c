/* Super-journals.
 *
 * A transaction that has written to several databases with rollback journals is committed by SQLite in two
 * phases (vdbeCommit()). It makes a file, called after the main database, that lists the paths of their
 * -journals. Then for each database: the path of that file is appended to its -journal, the -journal is
 * synced, the pages are written, the database is synced. Now the file is removed, which commits, and only
 * then the -journals go. A -journal that names a super-journal which is not there is stale: it is removed,
 * not rolled back.
 *
 *   a.db-mj4F2A1C93B     /path/a.db-journal NUL /path/b.db-journal NUL
 *   a.db-journal         ... | path of a.db-mj4F2A1C93B | u32 length | u32 sum of bytes | magic
 *                              (big-endian; SQLite's readSuperJournal())
 *
 * Here the removal is held back, as that of a -journal is for one database: the overlays of all databases
 * of this mount whose hot -journals name the file, and are named in it, become one GROUP entry (txn/multi_commit.c).
 * Once that has committed all overlays go into the database files, and the super-journal with them; so the
 * application finds nothing to commit when it removes its -journals, and if it dies before, these are
 * stale. Refused, the super-journal stays, and SQLite rolls back each database by its own -journal. The
 * paths are compared by their ends: the same mount may be seen at several places.
 *
 * Databases elsewhere that take part follow this mount, if their super-journal lies in it. If it lies
 * outside, where one of the databases does (the main one: that is why), its removal is not seen here, and
 * the errors of what comes after it SQLite ignores. So such a transaction commits at the sync of the
 * database, the last call of the first phase whose error is heeded, each database by itself. The -journal
 * stays hot: if another database fails in its first phase, SQLite rolls this one back, which is a new
 * transaction that undoes the first. What lies between the two is seen by no application here, since the
 * writer still holds its locks; but other nodes show it, and it stays if the node dies in between. With
 * synchronous=OFF there is no sync: then the removal of the -journal commits, too late to be refused.
 *
 * A super-journal that nobody removes is one of a dead application. Who rolls its last -journal back removes
 * it (pager_delsuper()), the applier as well where it discards that -journal. One that no -journal named
 * yet goes some time later, when the next is made; and a restart removes all of them, with the -journals.
 */
#include "txn/super_journal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/attr.h"
#include "base/io.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/table.h"
#include "pages/overlay.h"
#include "record/entry.h"
#include "sqlite/journal_format.h"
#include "sqlite/names.h"
#include "txn/commit.h"
#include "txn/multi_commit.h"

#define CONTENT_BYTES_MAX (1u << 20)
#define ORPHAN_MS 60000 /* closed that long ago, and named by no -journal */

/* ---- the table -------------------------------------------------------------------------------- */

struct wrep_file *wrep_super_find(struct wrep *w, const char *name)
{
	struct wrep_file *f;

	pthread_mutex_lock(&w->lock);
	for (f = w->supers; f && strcmp(f->name, name) != 0; f = f->next_super)
		;
	if (f)
		wrep_file_ref(f);
	pthread_mutex_unlock(&w->lock);
	return f;
}

/* All of them: references in a malloc'd array. */
static int find_all(struct wrep *w, struct wrep_file ***out, size_t *count)
{
	struct wrep_file **all, *f;
	size_t n = 0;

	pthread_mutex_lock(&w->lock);
	for (f = w->supers; f; f = f->next_super)
		n++;
	all = malloc((n + 1) * sizeof *all);
	n = 0;
	for (f = w->supers; f && all; f = f->next_super)
		all[n++] = wrep_file_ref(f);
	pthread_mutex_unlock(&w->lock);
	*out = all;
	*count = n;
	return all ? 0 : -ENOMEM;
}

int wrep_super_list(struct wrep *w, int (*each)(void *arg, const char *name), void *arg)
{
	struct wrep_file **all;
	size_t count;
	int rc = find_all(w, &all, &count);

	for (size_t i = 0; i < count; i++) {
		if (!rc)
			rc = each(arg, all[i]->name);
		wrep_file_unref(all[i]);
	}
	free(all);
	return rc;
}

/* An application that dies before the first -journal names its super-journal leaves it to nobody. One that
 * lives, and had nothing to write in the end, removes it at once when it has closed it. */
static void remove_orphans(struct wrep *w)
{
	struct wrep_file **all;
	size_t count;

	if (find_all(w, &all, &count) < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		struct wrep_file *f = all[i];
		bool old;

		pthread_mutex_lock(&w->lock);
		old = !f->super_opens && wrep_now_ms() - f->super_closed_ms > ORPHAN_MS;
		pthread_mutex_unlock(&w->lock);
		if (old)
			wrep_super_orphaned(w, f->name);
		wrep_file_unref(f);
	}
	free(all);
}

/* Is there the database that a super-journal of that name would belong to? */
static bool has_database(struct wrep *w, const char *name)
{
	enum wrep_kind kind;
	struct wrep_db *db;
	char base[WREP_PATH_MAX + 1];
	bool there = false;

	if (!wrep_names_kind(w->config.match, name, &kind, base))
		return false;
	db = wrep_db_by_name(w, base);
	if (db) {
		pthread_mutex_lock(&db->lock);
		there = db->files[WREP_DB] && !db->removed;
		pthread_mutex_unlock(&db->lock);
	}
	wrep_db_unref(db);
	return there;
}

/* w->lock held. */
static int create_file(struct wrep *w, const char *name, const struct wrep_new_file *as,
		       struct wrep_file **out)
{
	struct wrep_file *f = calloc(1, sizeof *f + strlen(name) + 1);
	int rc = 0;

	if (!f)
		return -ENOMEM;
	f->fd = openat(w->config.data_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
		       as->mode & 07777);
	rc = f->fd < 0 ? -errno : wrep_attr_own(f->fd, as->mode, as->uid, as->gid);
	if (rc) {
		if (f->fd >= 0)
			close(f->fd);
		free(f);
		return rc;
	}
	atomic_init(&f->refs, 1);
	f->kind = WREP_SUPER;
	f->w = w;
	strcpy(f->name, name);
	f->next_super = w->supers;
	w->supers = f;
	*out = f;
	return 0;
}

int wrep_super_create(struct wrep *w, const char *name, const struct wrep_new_file *as,
		      struct wrep_op *op)
{
	struct wrep_file *f;
	int rc = 0;

	if (!has_database(w, name))
		return -EPERM;
	remove_orphans(w);
	pthread_mutex_lock(&w->lock);
	for (f = w->supers; f && strcmp(f->name, name) != 0; f = f->next_super)
		;
	if (f && (as->flags & O_EXCL))
		rc = -EEXIST;
	else if (!f)
		rc = create_file(w, name, as, &f);
	if (!rc) {
		f->super_opens++;
		op->file = wrep_file_ref(f);
	}
	pthread_mutex_unlock(&w->lock);
	return rc;
}

int wrep_super_open(struct wrep_file *f)
{
	int rc;

	pthread_mutex_lock(&f->w->lock);
	rc = f->super_gone ? -ESTALE : 0;
	if (!rc)
		f->super_opens++;
	pthread_mutex_unlock(&f->w->lock);
	return rc;
}

void wrep_super_release(struct wrep_file *f)
{
	pthread_mutex_lock(&f->w->lock);
	assert(f->super_opens > 0);
	if (--f->super_opens == 0)
		f->super_closed_ms = wrep_now_ms();
	pthread_mutex_unlock(&f->w->lock);
}

/* Out of the table, of which `*from` is a link, and out of the directory. w->lock held; the reference of
 * the table is the caller's then. */
static struct wrep_file *take_out(struct wrep_file **from)
{
	struct wrep_file *f = *from;

	*from = f->next_super;
	f->super_gone = true;
	/* Should it stay there, the next start removes it. */
	unlinkat(f->w->config.data_fd, f->name, 0);
	return f;
}

static void remove_file(struct wrep_file *f)
{
	struct wrep_file **p, *taken = NULL;
	struct wrep *w = f->w;

	pthread_mutex_lock(&w->lock);
	for (p = &w->supers; *p && *p != f; p = &(*p)->next_super)
		;
	if (*p)
		taken = take_out(p);
	pthread_mutex_unlock(&w->lock);
	wrep_file_unref(taken);
}

void wrep_super_forget_all(struct wrep *w)
{
	struct wrep_file *f;

	do {
		pthread_mutex_lock(&w->lock);
		f = w->supers ? take_out(&w->supers) : NULL;
		pthread_mutex_unlock(&w->lock);
		wrep_file_unref(f);
	} while (f);
}

/* ---- names in journals -------------------------------------------------------------------------- */

/* Does the path, as some application sees it, mean the file that this mount calls `name`? */
static bool is_path_of(const char *path, const char *name)
{
	size_t path_len = strlen(path), len = strlen(name);

	return path_len >= len && strcmp(path + path_len - len, name) == 0 &&
	       (path_len == len || path[path_len - len - 1] == '/');
}

/* The super-journal of this mount that `path` means, with a reference, or NULL. */
static struct wrep_file *find_path(struct wrep *w, const char *path)
{
	struct wrep_file *f;

	pthread_mutex_lock(&w->lock);
	for (f = w->supers; f && !is_path_of(path, f->name); f = f->next_super)
		;
	if (f)
		wrep_file_ref(f);
	pthread_mutex_unlock(&w->lock);
	return f;
}

/* Does the -journal of the database name a super-journal, and `super`, if that is not NULL? Fills `path`.
 * db->lock held. */
static bool names_super(struct wrep_db *db, const struct wrep_file *super,
			char path[WREP_SUPER_PATH_MAX])
{
	struct wrep_file *journal = wrep_db_file(db, WREP_JOURNAL);
	bool named;

	if (!journal || wrep_db_pin(db, true)) {
		wrep_file_unref(journal);
		return false;
	}
	named = wrep_journal_fd_is_hot(journal->fd) && wrep_journal_super(journal->fd, path) &&
		(!super || is_path_of(path, super->name));
	wrep_db_unpin(db);
	wrep_file_unref(journal);
	return named;
}

void wrep_super_orphaned(struct wrep *w, const char *path)
{
	struct wrep_file *f = find_path(w, path);
	char other[WREP_SUPER_PATH_MAX];
	struct wrep_db **all;
	bool needed = false;
	size_t count;

	if (!f || wrep_db_all(w, &all, &count) < 0) {
		wrep_file_unref(f);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		pthread_mutex_lock(&all[i]->lock);
		needed = needed || names_super(all[i], f, other);
		pthread_mutex_unlock(&all[i]->lock);
		wrep_db_unref(all[i]);
	}
	free(all);
	pthread_mutex_lock(&w->lock);
	needed = needed || f->super_opens || f->super_deciding;
	pthread_mutex_unlock(&w->lock);
	if (!needed)
		remove_file(f);
	wrep_file_unref(f);
}

/* ---- its removal ---------------------------------------------------------------------------------- */

/* What the super-journal lists: paths, each with a NUL behind it, in a malloc'd buffer of `*len` bytes. */
static int read_content(const struct wrep_file *f, char **out, size_t *len)
{
	struct stat st;
	int rc;

	if (fstat(f->fd, &st) < 0)
		return -errno;
	if (st.st_size > CONTENT_BYTES_MAX)
		return -EFBIG;
	*len = (size_t)st.st_size + 1;
	*out = calloc(1, *len);
	if (!*out)
		return -ENOMEM;
	rc = wrep_read_exact(f->fd, *out, (size_t)st.st_size, 0);
	if (rc)
		free(*out);
	return rc;
}

static bool lists(const char *content, size_t len, const char *journal_name)
{
	for (size_t at = 0; at < len; at += strlen(content + at) + 1)
		if (is_path_of(content + at, journal_name))
			return true;
	return false;
}

static int by_id(const void *a, const void *b)
{
	uint64_t x = (*(struct wrep_db *const *)a)->id, y = (*(struct wrep_db *const *)b)->id;

	return x < y ? -1 : x > y;
}

/* The databases of this mount that the removal of `super` commits: references, in order of their ids. */
static int find_members(const struct wrep_file *super, struct wrep_db ***out, size_t *count)
{
	char path[WREP_SUPER_PATH_MAX], name[WREP_NAME_MAX + 16];
	struct wrep_db **all;
	size_t all_count, len = 0, n = 0;
	char *content = NULL;
	int rc = read_content(super, &content, &len);

	if (rc)
		return rc;
	rc = wrep_db_all(super->w, &all, &all_count);
	if (rc) {
		free(content);
		return rc;
	}
	for (size_t i = 0; i < all_count; i++) {
		struct wrep_db *db = all[i];
		bool member;

		pthread_mutex_lock(&db->lock);
		wrep_db_backing_name(db, WREP_JOURNAL, name);
		member = db->overlay && names_super(db, super, path) && lists(content, len, name);
		pthread_mutex_unlock(&db->lock);
		if (member)
			all[n++] = db;
		else
			wrep_db_unref(db);
	}
	free(content);
	if (n)
		qsort(all, n, sizeof *all, by_id);
	*out = all;
	*count = n;
	return 0;
}

/* The removal of `f` is decided: 0: it takes place. */
static void decided(struct wrep_file *f, int result)
{
	pthread_mutex_lock(&f->w->lock);
	f->super_deciding = false;
	pthread_mutex_unlock(&f->w->lock);
	if (!result)
		remove_file(f);
}

/* A removal that waits for Raft. */
struct removal {
	struct wrep_op op; /* first */
	struct wrep_op *application;
	struct wrep_file *file; /* a reference */
};

static void removal_done(struct wrep_op *op, int result)
{
	struct removal *r = (struct removal *)op;

	decided(r->file, result);
	r->application->done(r->application, result);
	wrep_file_unref(r->file);
	free(r);
}

/* Commit what the databases hold whose journals name it. As wrep_super_unlink(). */
static int commit_members(struct wrep_file *f, struct wrep_op *op)
{
	struct removal *r = calloc(1, sizeof *r);
	struct wrep_db **members;
	size_t count;
	int rc = r ? find_members(f, &members, &count) : -ENOMEM;

	if (rc) {
		free(r);
		return rc;
	}
	r->op.done = removal_done;
	r->application = op;
	r->file = wrep_file_ref(f);
	rc = wrep_multi_commit_start(f->w, members, count, &r->op);
	for (size_t i = 0; i < count; i++)
		wrep_db_unref(members[i]);
	free(members);
	if (rc != WREP_PENDING) {
		wrep_file_unref(f);
		free(r);
	}
	return rc;
}

int wrep_super_unlink(struct wrep *w, const char *name, struct wrep_op *op)
{
	struct wrep_file *f = wrep_super_find(w, name);
	bool mine = false;
	int rc;

	if (!f)
		return -ENOENT;
	pthread_mutex_lock(&w->lock);
	if (!f->super_gone && !f->super_deciding)
		mine = f->super_deciding = true;
	pthread_mutex_unlock(&w->lock);
	if (!mine) {
		wrep_file_unref(f);
		return -EBUSY;
	}
	rc = commit_members(f, op);
	if (rc != WREP_PENDING)
		decided(f, rc);
	wrep_file_unref(f);
	return rc;
}

/* ---- one that lies outside -------------------------------------------------------------------------- */

int wrep_super_sync(struct wrep_db *db, struct wrep_op *op)
{
	char path[WREP_SUPER_PATH_MAX];
	struct wrep_commit *shape;
	struct wrep_file *inside;

	if (!db->overlay || !wrep_overlay_dirty(db->overlay) || db->pending ||
	    !names_super(db, NULL, path))
		return 0;
	/* The table's lock comes before the database's; meanwhile the writer waits for its sync. */
	pthread_mutex_unlock(&db->lock);
	inside = find_path(db->w, path);
	wrep_file_unref(inside);
	pthread_mutex_lock(&db->lock);
	if (inside || !db->overlay || db->pending)
		return 0;
	shape = calloc(1, sizeof *shape);
	if (!shape) {
		pthread_mutex_unlock(&db->lock);
		return -ENOMEM;
	}
	shape->trigger = WREP_TRIGGER_NONE;
	shape->op = op;
	return wrep_commit_overlay(db, shape);
}
