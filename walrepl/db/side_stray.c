/* Strays beside a database: those that bear the name of one of its side files. */
#include "db/side_stray.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>
#include "base/attr.h"
#include "base/io.h"
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/files.h"
#include "db/stray.h"
#include "pages/playback.h"
#include "record/entry.h"
#include "sqlite/names.h"

#define PLAYED_MS 2000 /* so long what is played stays, for who sets mode and times last */

const enum wrep_kind wrep_side_kinds[] = {WREP_JOURNAL, WREP_WAL, WREP_SHM}; /* in SQLite's order */

static int holds_locked(struct wrep_stray *s, enum wrep_kind kind)
{
	int rc = kind == WREP_SHM ? 0 : wrep_stray_open_locked(s);

	if (rc || kind == WREP_SHM)
		return rc;
	rc = kind == WREP_WAL ? wrep_playback_wal_holds(s->file->fd)
			      : wrep_playback_journal_holds(s->file->fd);
	wrep_stray_close_locked(s);
	return rc;
}

bool wrep_strays_wait(struct wrep *w, const char *db)
{
	char name[WREP_NAME_MAX + 16];
	bool wait = false;

	pthread_mutex_lock(&w->stray_lock);
	for (int i = 0; i < 3 && !wait; i++) {
		struct wrep_stray *s;

		wrep_names_file(db, wrep_side_kinds[i], name);
		s = *wrep_stray_link_locked(w, name);
		wait = s && !s->left && !s->played && holds_locked(s, wrep_side_kinds[i]) != 0;
	}
	pthread_mutex_unlock(&w->stray_lock);
	return wait;
}

int wrep_strays_move(struct wrep *w, const char *from, const char *to)
{
	char name[WREP_NAME_MAX + 16], fresh[WREP_NAME_MAX + 16];
	int rc = 0;

	pthread_mutex_lock(&w->stray_lock);
	for (int i = 0; i < 3 && !rc; i++) {
		struct wrep_stray *s;
		char *copy;

		wrep_names_file(from, wrep_side_kinds[i], name);
		wrep_names_file(to, wrep_side_kinds[i], fresh);
		s = *wrep_stray_link_locked(w, name);
		if (!s || s->left)
			continue;
		copy = strdup(fresh);
		if (!copy) {
			rc = -ENOMEM;
			break;
		}
		free(s->name);
		s->name = copy;
		rc = s->played ? 0 : wrep_stray_describe(s);
	}
	pthread_mutex_unlock(&w->stray_lock);
	return rc;
}

int wrep_strays_admit(struct wrep_db *db, int flags)
{
	struct wrep *w = db->w;
	char name[WREP_NAME_MAX + 16];
	int rc = 0;

	if (wrep_stray_copies(flags))
		return 0;
	pthread_mutex_lock(&w->stray_lock);
	for (int i = 0; i < 3 && w->strays && !rc; i++) {
		struct wrep_stray **p;

		wrep_names_file(db->name, wrep_side_kinds[i], name);
		p = wrep_stray_link_locked(w, name);
		if (!*p)
			continue;
		if ((*p)->played && (flags & O_ACCMODE) == O_RDONLY)
			continue; /* who copies it takes that along; others see wrep_stray_open() */
		/* SQLite removes those of an empty database itself. */
		if (!(*p)->left && !(*p)->played && db->state.sum.page_count &&
		    (!(*p)->complete || holds_locked(*p, wrep_side_kinds[i])))
			rc = -EBUSY;
		else
			wrep_stray_drop_locked(p);
	}
	pthread_mutex_unlock(&w->stray_lock);
	if (rc)
		wrep_logf(
			w, 'W',
			"refused to open a database: beside it a file was copied that did not come "
			"with it, and may hold transactions: copy the database again, or remove "
			"that file database=%s file=%s",
			db->name, name);
	return rc;
}

void wrep_strays_displaced(struct wrep_db *db)
{
	struct wrep *w = db->w;
	char name[WREP_NAME_MAX + 16];

	pthread_mutex_lock(&w->stray_lock);
	for (int i = 0; i < 3 && w->strays; i++) {
		struct wrep_stray **p;

		wrep_names_file(db->name, wrep_side_kinds[i], name);
		p = wrep_stray_link_locked(w, name);
		if (*p && (*p)->played)
			wrep_stray_drop_locked(p);
	}
	pthread_mutex_unlock(&w->stray_lock);
}

void wrep_stray_trace(struct wrep_db *db, enum wrep_kind kind, const struct stat *st)
{
	const struct wrep_new_file as = {.mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid};
	struct wrep *w = db->w;
	char name[WREP_NAME_MAX + 16], about[WREP_STRAY_FILE_NAME_SIZE];
	struct wrep_stray *s;

	wrep_names_file(db->name, kind, name);
	pthread_mutex_lock(&w->stray_lock);
	if (!*wrep_stray_link_locked(w, name) && wrep_stray_create_locked(w, name, &as, &s) == 0) {
		s->complete = s->played = true;
		s->played_ms = wrep_now_ms();
		wrep_stray_file_name(about, s->number, WREP_STRAY_ABOUT);
		unlinkat(w->config.state_fd, about, 0);
	}
	pthread_mutex_unlock(&w->stray_lock);
}

void wrep_strays_tidy(struct wrep *w)
{
	pthread_mutex_lock(&w->stray_lock);
	for (struct wrep_stray **p = &w->strays; *p;) {
		if ((*p)->played && !(*p)->opens && wrep_now_ms() - (*p)->played_ms > PLAYED_MS)
			wrep_stray_drop_locked(p);
		else
			p = &(*p)->next;
	}
	pthread_mutex_unlock(&w->stray_lock);
}

void wrep_strays_begin(struct wrep *w, const char *db, uint64_t index, bool copied)
{
	char name[WREP_NAME_MAX + 16];

	pthread_mutex_lock(&w->stray_lock);
	for (int i = 0; i < 3 && w->strays; i++) {
		struct wrep_stray **p;

		wrep_names_file(db, wrep_side_kinds[i], name);
		p = wrep_stray_link_locked(w, name);
		if (*p && index > (*p)->index && ((*p)->left || (*p)->played || !copied))
			wrep_stray_drop_locked(p);
	}
	pthread_mutex_unlock(&w->stray_lock);
}

/* The content of an open file, behind what `to` holds. */
static int copy_all(int from, int to)
{
	ssize_t n;

	while ((n = sendfile(to, from, NULL, 1 << 20)) > 0)
		;
	return n < 0 ? -errno : 0;
}

/* Its number is `number`; what it has been is gone. */
static int move_here(struct wrep_db *db, enum wrep_kind kind, const char *name, uint64_t number)
{
	struct wrep *w = db->w;
	char path[WREP_STRAY_FILE_NAME_SIZE];
	struct stat st;
	int from = -1, fd, rc = 0;

	wrep_stray_file_name(path, number, "");
	if (kind != WREP_SHM) {
		if (renameat(w->config.data_fd, name, w->config.state_fd, path) < 0)
			return -errno;
		fd = openat(w->config.state_fd, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	} else { /* from a tmpfs, where applications have it mapped */
		from = openat(w->config.shm_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (from < 0 || fstat(from, &st) < 0) {
			rc = -errno;
			goto out;
		}
		fd = openat(w->config.state_fd, path,
			    O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd >= 0)
			rc = copy_all(from, fd);
		if (!rc && fd >= 0)
			rc = wrep_attr_own(fd, st.st_mode, st.st_uid, st.st_gid);
	}
	if (fd < 0)
		rc = -errno;
	/* What was committed to the database was durable; so is the file that is left of it. */
	if (!rc && fsync(fd) < 0)
		rc = -errno;
	if (fd >= 0)
		close(fd);
out:
	if (from >= 0)
		close(from);
	return rc;
}

void wrep_stray_leave(struct wrep_db *db, enum wrep_kind kind, uint64_t index)
{
	struct wrep *w = db->w;
	char name[WREP_NAME_MAX + 16];
	struct wrep_stray *s = NULL;
	struct stat st;
	int rc = 0;

	wrep_names_file(db->name, kind, name);
	if (fstatat(wrep_dir_fd(w, kind), name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !st.st_size)
		return;
	pthread_mutex_lock(&w->stray_lock);
	if (!*wrep_stray_link_locked(w, name)) {
		s = wrep_stray_new(w, name, w->stray_next++, true);
		rc = s ? move_here(db, kind, name, s->number) : -ENOMEM;
		if (s)
			s->index = index;
		if (s && !rc)
			rc = wrep_stray_describe(s);
		if (s && !rc) {
			s->complete = true;
			wrep_stray_insert_locked(s);
		} else if (s) {
			wrep_stray_remove_files(w, s->number);
			wrep_file_unref(s->file);
		}
	}
	pthread_mutex_unlock(&w->stray_lock);
	if (rc)
		wrep_logf(w, 'W',
			  "a side file goes with its database, since it cannot be kept name=%s "
			  "error=\"%s\"",
			  name, strerror(-rc));
}
