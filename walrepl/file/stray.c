/* Applications make, open, write, close and rename strays. */
#include "file/stray.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>
#include "base/io.h"
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/departure.h"
#include "db/files.h"
#include "db/stray.h"
#include "db/table.h"
#include "file/postponed.h"
#include "record/entry.h"
#include "sqlite/names.h"
#include "txn/unjournaled.h"

/* ---- on the disk --------------------------------------------------------------------------------- */

/* ---- the table ----------------------------------------------------------------------------------- */

/* ---- what applications do -------------------------------------------------------------------------- */

static int open_for_locked(struct wrep_stray *s, int flags)
{
	int rc = s->gone ? -ESTALE : wrep_stray_open_locked(s);

	if (rc || !(flags & O_TRUNC))
		return rc;
	rc = wrep_stray_change_locked(s, 0);
	if (!rc && ftruncate(s->file->fd, 0) < 0)
		rc = -errno;
	if (rc)
		wrep_stray_close_locked(s);
	return rc;
}

int wrep_stray_create(struct wrep *w, const char *name, const struct wrep_new_file *as,
		      struct wrep_op *op)
{
	struct wrep_stray *s;
	int rc = 0;

	pthread_mutex_lock(&w->stray_lock);
	s = *wrep_stray_link_locked(w, name);
	if (s && (as->flags & O_EXCL))
		rc = -EEXIST;
	else if (!s && !atomic_load(&w->may_write))
		rc = -EROFS;
	else if (!s)
		rc = wrep_stray_create_locked(w, name, as, &s);
	if (!rc)
		rc = open_for_locked(s, as->flags);
	if (!rc)
		op->file = wrep_file_ref(s->file);
	pthread_mutex_unlock(&w->stray_lock);
	return rc;
}

/* Does who asks have open the database that a file of that name belongs to? Then it is SQLite. */
static bool is_user(struct wrep *w, const char *name, pid_t tid)
{
	char base[WREP_PATH_MAX + 1];
	enum wrep_kind kind;
	struct wrep_db *db;
	bool is = false;

	if (!tid || !wrep_names_kind(w->config.match, name, &kind, base) || kind == WREP_STRAY)
		return false;
	db = wrep_db_by_name(w, base);
	if (!db)
		return false;
	pthread_mutex_lock(&db->lock);
	is = db->opens && db->files[WREP_DB] &&
	     w->config.host.has_open(w->config.host_ctx, tid, db->files[WREP_DB]);
	pthread_mutex_unlock(&db->lock);
	wrep_db_unref(db);
	return is;
}

int wrep_stray_open(struct wrep_file *f, int flags, struct wrep_op *op)
{
	struct wrep *w = f->w;
	char name[WREP_NAME_MAX + 16];
	bool played;
	int rc;

	pthread_mutex_lock(&w->stray_lock);
	played = f->stray->played && !f->stray->gone;
	snprintf(name, sizeof name, "%s", f->stray->name);
	pthread_mutex_unlock(&w->stray_lock);
	if (played && is_user(w, name, op->tid)) {
		wrep_stray_unlink(w, name);
		return -ESTALE; /* on which it finds none */
	}
	pthread_mutex_lock(&w->stray_lock);
	rc = open_for_locked(f->stray, flags);
	pthread_mutex_unlock(&w->stray_lock);
	return rc;
}

void wrep_stray_release(struct wrep_file *f)
{
	pthread_mutex_lock(&f->w->stray_lock);
	wrep_stray_close_locked(f->stray);
	pthread_mutex_unlock(&f->w->stray_lock);
}

static int change(struct wrep_file *f, uint64_t off)
{
	int rc;

	pthread_mutex_lock(&f->w->stray_lock);
	rc = wrep_stray_change_locked(f->stray, off);
	pthread_mutex_unlock(&f->w->stray_lock);
	return rc;
}

int wrep_stray_write(struct wrep_file *f, const void *buf, size_t len, uint64_t off)
{
	int rc = change(f, off);

	return rc ? rc : wrep_write_all(f->fd, buf, len, off);
}

int wrep_stray_truncate(struct wrep_file *f, uint64_t size)
{
	int rc;

	pthread_mutex_lock(&f->w->stray_lock);
	rc = f->stray->gone && !f->stray->opens ? -ESTALE : wrep_stray_open_locked(f->stray);
	if (!rc) {
		rc = wrep_stray_change_locked(f->stray, size);
		if (!rc && ftruncate(f->fd, (off_t)size) < 0)
			rc = -errno;
		wrep_stray_close_locked(f->stray);
		f->stray->complete = !f->stray->opens; /* truncate(2) */
	}
	pthread_mutex_unlock(&f->w->stray_lock);
	return rc;
}

/* ---- beside a database ------------------------------------------------------------------------------ */

/* ---- a copy is complete ----------------------------------------------------------------------------- */

static int flush_again(struct wrep_postponed *r)
{
	return wrep_stray_flush(r->file, r->op);
}

/* The stray of that name is whole. If its database is a copy, closed and complete as well, it becomes a part of
 * that. As wrep_file_flush(). `f`: a stray to ask again for. */
static int pair(struct wrep *w, struct wrep_file *f, const char *name, struct wrep_op *op)
{
	char base[WREP_PATH_MAX + 1];
	enum wrep_kind kind;
	struct wrep_db *db;
	uint64_t played_index;
	bool busy, belongs;
	int rc = 0;

	if (!wrep_names_kind(w->config.match, name, &kind, base) ||
	    (kind != WREP_WAL && kind != WREP_JOURNAL))
		return 0;
	db = wrep_db_by_name(w, base);
	if (!db)
		return 0; /* it comes later */
	pthread_mutex_lock(&w->stray_lock);
	played_index = f->stray->played_index;
	pthread_mutex_unlock(&w->stray_lock);
	pthread_mutex_lock(&db->lock);
	busy = db->opens;
	belongs = wrep_unjournaled_is_copy(db, played_index);
	if (!belongs || (busy && wrep_departure_late(op))) {
		pthread_mutex_unlock(&db->lock);
		wrep_logf(
			w, 'I',
			"a copied file waits until its database is copied, too: until then nobody "
			"can open that name=%s",
			name);
	} else if (busy) {
		pthread_mutex_unlock(&db->lock);
		rc = wrep_postpone(db, f, &(struct wrep_postponed){.again = flush_again}, NULL, op);
	} else {
		rc = wrep_unjournaled_take_strays(db, op); /* unlocks */
	}
	wrep_db_unref(db);
	return rc;
}

int wrep_stray_flush(struct wrep_file *f, struct wrep_op *op)
{
	struct wrep *w = f->w;
	struct wrep_stray *s = f->stray;
	char name[WREP_NAME_MAX + 16];
	bool whole, again = op->until_ms; /* it waited for the database's last close */

	whole = !w->config.host.is_killed(w->config.host_ctx, op->tid);
	pthread_mutex_lock(&w->stray_lock);
	whole = whole && !s->gone && !s->left && (!s->complete || again);
	if (whole)
		s->complete = true;
	snprintf(name, sizeof name, "%s", s->name);
	pthread_mutex_unlock(&w->stray_lock);
	return whole ? pair(w, f, name, op) : 0;
}

/* Is there a side file of that name which a database has? -EBUSY, with a line. */
static int check_free(struct wrep *w, const char *name)
{
	char base[WREP_PATH_MAX + 1];
	struct wrep_file *f = NULL;
	enum wrep_kind kind;
	struct wrep_db *db;
	bool open = false;

	wrep_names_kind(w->config.match, name, &kind, base);
	db = kind == WREP_STRAY ? NULL : wrep_db_by_name(w, base);
	if (db) {
		pthread_mutex_lock(&db->lock);
		f = wrep_db_file(db, kind);
		open = db->opens;
		pthread_mutex_unlock(&db->lock);
	}
	wrep_file_unref(f);
	wrep_db_unref(db);
	if (!f && !open)
		return 0;
	wrep_logf(
		w, 'W',
		"refused rename to=%s: the database has one, or an application has it open; close "
		"it first",
		name);
	return -EBUSY;
}

int wrep_stray_rename(struct wrep *w, const char *from, const char *to, unsigned flags,
		      struct wrep_op *op)
{
	struct wrep_stray **p, **target;
	enum wrep_kind kind;
	struct wrep_file *f = NULL;
	bool is_side_file = false; /* a database's */
	char *name;
	int rc;

	if (!wrep_name_kind(w, to, &kind))
		return wrep_name_refusal(w, to);
	if (kind == WREP_DB || kind == WREP_SUPER)
		return -EPERM;
	if (wrep_lookup(w, from, &f) == 0)
		is_side_file = wrep_file_kind(f) != WREP_STRAY;
	wrep_file_unref(f);
	f = NULL;
	rc = check_free(w, to);
	name = rc ? NULL : strdup(to);
	if (!name)
		return rc ? rc : -ENOMEM;
	pthread_mutex_lock(&w->stray_lock);
	p = wrep_stray_link_locked(w, from);
	target = wrep_stray_link_locked(w, to);
	if (!*p) {
		rc = is_side_file ? -EPERM : -ENOENT;
	} else if (*target && (flags & RENAME_NOREPLACE)) {
		rc = -EEXIST;
	} else if (*p != *target) {
		struct wrep_stray *s = *p;
		bool left = s->left;
		char *former = s->name;

		s->name = name;
		s->left = s->played = false;
		rc = wrep_stray_describe(s);
		if (rc) {
			s->name = former;
			s->left = left;
		} else {
			name = former;
			f = wrep_file_ref(s->file);
			if (*target)
				wrep_stray_drop_locked(target);
		}
	}
	pthread_mutex_unlock(&w->stray_lock);
	free(name);
	if (f)
		rc = pair(w, f, to, op);
	wrep_file_unref(f);
	return rc;
}
