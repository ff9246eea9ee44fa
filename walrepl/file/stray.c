/* See stray.h. On the disk: DATA/.dqlitefs/stray-N is the file, stray-N.is what it is: "left INDEX NAME" or
 * "copied INDEX NAME", where INDEX is the last entry that names had followed when it came. An entry that makes a
 * database of that name ends a stray only if it lies behind, so that applying the log again does not.
 */
#include "file/stray.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>
#include "base/io.h"
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/pin.h"
#include "db/table.h"
#include "file/departure.h"
#include "pages/playback.h"
#include "record/entry.h"
#include "sqlite/names.h"
#include "txn/unjournaled.h"

#define PLAYED_MS 2000 /* so long what is played stays, for who sets mode and times last */

struct wrep_stray {
	struct wrep *w;
	/* guarded by w->stray_lock */
	struct wrep_stray *next;
	struct wrep_file *file; /* the table's reference */
	char *name;
	uint64_t number, index;
	bool left;     /* by a removed database; else copied */
	bool gone;     /* its name is */
	bool complete; /* whoever wrote to it has closed it */
	bool played;   /* its database has what it says: it goes soon, or with a restart */
	uint64_t played_ms;
	/* The COMMIT that it was played with, 0: since then it was not only appended to; and how much of it. */
	uint64_t played_index, played_bytes;
	unsigned opens;
};

bool wrep_stray_copies(int flags)
{
	return (flags & O_ACCMODE) == O_WRONLY || (flags & (O_TRUNC | O_EXCL));
}

/* ---- on the disk --------------------------------------------------------------------------------- */

#define PREFIX "stray-"
#define ABOUT ".is"
#define FILE_NAME_SIZE 48

static void file_name(char name[FILE_NAME_SIZE], uint64_t number, const char *suffix)
{
	snprintf(name, FILE_NAME_SIZE, PREFIX "%" PRIu64 "%s", number, suffix);
}

/* Say what it is. */
static int describe(const struct wrep_stray *s)
{
	char about[FILE_NAME_SIZE], fresh[FILE_NAME_SIZE], text[WREP_NAME_MAX + 64];
	int state_fd = s->w->config.state_fd, rc, fd;

	file_name(about, s->number, ABOUT);
	file_name(fresh, s->number, ABOUT "~");
	snprintf(text, sizeof text, "%s %" PRIu64 " %s", s->left ? "left" : "copied", s->index,
		 s->name);
	fd = openat(state_fd, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	rc = wrep_write_all(fd, text, strlen(text), 0);
	if (!rc && s->left && fsync(fd) < 0)
		rc = -errno;
	close(fd);
	if (!rc && renameat(state_fd, fresh, state_fd, about) < 0)
		rc = -errno;
	return rc;
}

static void remove_files(struct wrep *w, uint64_t number)
{
	char name[FILE_NAME_SIZE];

	file_name(name, number, ABOUT);
	unlinkat(w->config.state_fd, name, 0);
	file_name(name, number, "");
	unlinkat(w->config.state_fd, name, 0);
}

/* ---- the table ----------------------------------------------------------------------------------- */

void wrep_stray_free(struct wrep_stray *s)
{
	if (s)
		free(s->name);
	free(s);
}

/* With its file, which has a reference for the table, but not in that yet. */
static struct wrep_stray *stray_new(struct wrep *w, const char *name, uint64_t number, bool left)
{
	struct wrep_file *f = calloc(1, sizeof *f + strlen(name) + 1);
	struct wrep_stray *s = calloc(1, sizeof *s);

	if (s)
		s->name = strdup(name);
	if (!f || !s || !s->name) {
		free(f);
		wrep_stray_free(s);
		return NULL;
	}
	atomic_init(&f->refs, 1);
	f->kind = WREP_STRAY;
	f->fd = -1;
	f->w = w;
	f->stray = s;
	strcpy(f->name, name);
	s->w = w;
	s->file = f;
	s->number = number;
	s->left = left;
	s->index = atomic_load(&w->delivered);
	return s;
}

/* stray_lock held, as in all that is called _locked. */
static void insert_locked(struct wrep_stray *s)
{
	s->next = s->w->strays;
	s->w->strays = s;
}

static struct wrep_stray **link_locked(struct wrep *w, const char *name)
{
	struct wrep_stray **p = &w->strays;

	while (*p && strcmp((*p)->name, name) != 0)
		p = &(*p)->next;
	return p;
}

/* Out of the table and off the disk. The reference of the table is the caller's then. */
static struct wrep_file *take_locked(struct wrep_stray **from)
{
	struct wrep_stray *s = *from;

	*from = s->next;
	s->gone = true;
	remove_files(s->w, s->number);
	return s->file;
}

static void drop_locked(struct wrep_stray **from)
{
	wrep_file_unref(take_locked(from));
}

struct wrep_file *wrep_stray_find(struct wrep *w, const char *name)
{
	struct wrep_stray *s;
	struct wrep_file *f;

	pthread_mutex_lock(&w->stray_lock);
	s = *link_locked(w, name);
	f = s ? wrep_file_ref(s->file) : NULL;
	pthread_mutex_unlock(&w->stray_lock);
	return f;
}

int wrep_strays_list(struct wrep *w, int (*each)(void *arg, const char *name), void *arg)
{
	int rc = 0;

	pthread_mutex_lock(&w->stray_lock);
	for (struct wrep_stray *s = w->strays; s && !rc; s = s->next)
		rc = each(arg, s->name);
	pthread_mutex_unlock(&w->stray_lock);
	return rc;
}

static bool is_in(const struct wrep_stray *s, const char *path)
{
	size_t len = strlen(path);

	return strncmp(s->name, path, len) == 0 && s->name[len] == '/';
}

bool wrep_strays_are_in(struct wrep *w, const char *path)
{
	struct wrep_stray *s;

	pthread_mutex_lock(&w->stray_lock);
	for (s = w->strays; s && (s->played || !is_in(s, path)); s = s->next)
		;
	pthread_mutex_unlock(&w->stray_lock);
	return s;
}

void wrep_strays_end_in(struct wrep *w, const char *path)
{
	pthread_mutex_lock(&w->stray_lock);
	for (struct wrep_stray **p = &w->strays; *p;) {
		if (is_in(*p, path))
			drop_locked(p);
		else
			p = &(*p)->next;
	}
	pthread_mutex_unlock(&w->stray_lock);
}

void wrep_strays_forget_all(struct wrep *w)
{
	struct wrep_stray *s;

	while ((s = w->strays)) {
		w->strays = s->next;
		s->gone = true;
		wrep_file_unref(s->file);
	}
}

/* One that a former process had; `number` is that of its files. */
static int load(struct wrep *w, uint64_t number)
{
	char about[FILE_NAME_SIZE], text[WREP_NAME_MAX + 64], base[WREP_PATH_MAX + 1];
	struct wrep_stray *s = NULL;
	enum wrep_kind kind;
	uint64_t index;
	ssize_t len;
	int fd, at = 0;
	bool left;

	file_name(about, number, ABOUT);
	fd = openat(w->config.state_fd, about, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	len = wrep_read_some(fd, text, sizeof text - 1, 0);
	close(fd);
	if (len < 0)
		return (int)len;
	text[len] = '\0';
	left = strncmp(text, "left ", 5) == 0;
	if (sscanf(text, left ? "left %" SCNu64 " %n" : "copied %" SCNu64 " %n", &index, &at) ==
		    1 &&
	    at && wrep_names_kind(w->config.match, text + at, &kind, base))
		s = stray_new(w, text + at, number, left);
	else
		remove_files(w, number);
	if (s) {
		s->index = index;
		s->complete = true;
		insert_locked(s);
	}
	if (number >= w->stray_next)
		w->stray_next = number + 1;
	return 0;
}

int wrep_strays_load(struct wrep *w)
{
	int fd = openat(w->config.state_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir)
		return -errno;
	while (!rc && (entry = readdir(dir))) {
		uint64_t number;
		int at = 0;

		if (sscanf(entry->d_name, PREFIX "%" SCNu64 "%n", &number, &at) == 1 && at &&
		    strcmp(entry->d_name + at, ABOUT) == 0)
			rc = load(w, number);
	}
	rewinddir(dir);
	while (!rc && (entry = readdir(dir))) { /* of which nothing is known */
		struct wrep_stray *s;
		uint64_t number;

		if (sscanf(entry->d_name, PREFIX "%" SCNu64, &number) != 1)
			continue;
		for (s = w->strays; s && s->number != number; s = s->next)
			;
		if (!s || strchr(entry->d_name, '~'))
			unlinkat(w->config.state_fd, entry->d_name, 0);
	}
	closedir(dir);
	return rc;
}

/* ---- what applications do -------------------------------------------------------------------------- */

static int open_locked(struct wrep_stray *s)
{
	char name[FILE_NAME_SIZE];

	if (s->file->fd < 0) {
		file_name(name, s->number, "");
		s->file->fd = openat(s->w->config.state_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
		if (s->file->fd < 0)
			return errno == ENOENT ? -ESTALE : -errno;
		if (wrep_descriptor_is_spare(s->w, s->file->fd)) {
			close(s->file->fd);
			s->file->fd = -1;
			return -EMFILE;
		}
	}
	s->opens++;
	return 0;
}

static void close_locked(struct wrep_stray *s)
{
	if (--s->opens)
		return;
	close(s->file->fd);
	s->file->fd = -1;
}

/* From now on it is somebody's copy, and not whole before its close. What is in front of `off` stays. */
static int change_locked(struct wrep_stray *s, uint64_t off)
{
	bool other = s->left || s->played;

	if (off < s->played_bytes)
		s->played_index = 0;
	s->complete = s->left = s->played = false;
	return other ? describe(s) : 0;
}

static int create_locked(struct wrep *w, const char *name, mode_t mode, uid_t uid, gid_t gid,
			 struct wrep_stray **out)
{
	struct wrep_stray *s = stray_new(w, name, w->stray_next++, false);
	char path[FILE_NAME_SIZE];
	int fd, rc = 0;

	if (!s)
		return -ENOMEM;
	file_name(path, s->number, "");
	fd = openat(w->config.state_fd, path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
		    mode & 07777);
	if (fd < 0 || fchown(fd, uid, gid) < 0 || fchmod(fd, mode & 07777) < 0)
		rc = -errno;
	if (fd >= 0)
		close(fd);
	if (!rc)
		rc = describe(s);
	if (rc) {
		remove_files(w, s->number);
		wrep_file_unref(s->file);
		return rc;
	}
	insert_locked(s);
	*out = s;
	return 0;
}

static int open_for_locked(struct wrep_stray *s, int flags)
{
	int rc = s->gone ? -ESTALE : open_locked(s);

	if (rc || !(flags & O_TRUNC))
		return rc;
	rc = change_locked(s, 0);
	if (!rc && ftruncate(s->file->fd, 0) < 0)
		rc = -errno;
	if (rc)
		close_locked(s);
	return rc;
}

int wrep_stray_create(struct wrep *w, const char *name, mode_t mode, uid_t uid, gid_t gid,
		      int flags, struct wrep_op *op)
{
	struct wrep_stray *s;
	int rc = 0;

	pthread_mutex_lock(&w->stray_lock);
	s = *link_locked(w, name);
	if (s && (flags & O_EXCL))
		rc = -EEXIST;
	else if (!s && !atomic_load(&w->may_write))
		rc = -EROFS;
	else if (!s)
		rc = create_locked(w, name, mode, uid, gid, &s);
	if (!rc)
		rc = open_for_locked(s, flags);
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
	close_locked(f->stray);
	pthread_mutex_unlock(&f->w->stray_lock);
}

static int change(struct wrep_file *f, uint64_t off)
{
	int rc;

	pthread_mutex_lock(&f->w->stray_lock);
	rc = change_locked(f->stray, off);
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
	rc = f->stray->gone && !f->stray->opens ? -ESTALE : open_locked(f->stray);
	if (!rc) {
		rc = change_locked(f->stray, size);
		if (!rc && ftruncate(f->fd, (off_t)size) < 0)
			rc = -errno;
		close_locked(f->stray);
		f->stray->complete = !f->stray->opens; /* truncate(2) */
	}
	pthread_mutex_unlock(&f->w->stray_lock);
	return rc;
}

int wrep_stray_stat(struct wrep_file *f, struct stat *st)
{
	char name[FILE_NAME_SIZE];
	int rc;

	file_name(name, f->stray->number, "");
	pthread_mutex_lock(&f->w->stray_lock);
	if (f->fd >= 0)
		rc = fstat(f->fd, st) < 0 ? -errno : 0;
	else
		rc = f->stray->gone || fstatat(f->w->config.state_fd, name, st,
					       AT_SYMLINK_NOFOLLOW) < 0
			     ? -ESTALE
			     : 0;
	pthread_mutex_unlock(&f->w->stray_lock);
	return rc;
}

int wrep_stray_setattr(struct wrep_file *f, const struct wrep_attr *attr)
{
	int state_fd = f->w->config.state_fd, rc = 0;
	char name[FILE_NAME_SIZE];

	file_name(name, f->stray->number, "");
	pthread_mutex_lock(&f->w->stray_lock);
	if (f->stray->gone) {
		/* Whoever has it open goes on with what is no more. */
	} else if (((attr->valid & (WREP_ATTR_UID | WREP_ATTR_GID)) &&
		    fchownat(state_fd, name, attr->valid & WREP_ATTR_UID ? attr->uid : (uid_t)-1,
			     attr->valid & WREP_ATTR_GID ? attr->gid : (gid_t)-1, 0) < 0) ||
		   ((attr->valid & WREP_ATTR_MODE) &&
		    fchmodat(state_fd, name, attr->mode & 07777, 0) < 0) ||
		   ((attr->valid & WREP_ATTR_TIMES) &&
		    utimensat(state_fd, name, (struct timespec[]){attr->atime, attr->mtime}, 0) <
			    0)) {
		rc = -errno;
	}
	pthread_mutex_unlock(&f->w->stray_lock);
	return rc;
}

int wrep_stray_unlink(struct wrep *w, const char *name)
{
	struct wrep_stray **p;
	int rc;

	pthread_mutex_lock(&w->stray_lock);
	p = link_locked(w, name);
	rc = *p ? 0 : -ENOENT;
	if (!rc)
		drop_locked(p);
	pthread_mutex_unlock(&w->stray_lock);
	return rc;
}

/* ---- beside a database ------------------------------------------------------------------------------ */

static const enum wrep_kind kinds[] = {WREP_JOURNAL, WREP_WAL, WREP_SHM}; /* in SQLite's order */

static void name_of(const char *db, enum wrep_kind kind, char name[WREP_NAME_MAX + 16])
{
	static const char *const suffix[] =
		{[WREP_WAL] = "-wal", [WREP_SHM] = "-shm", [WREP_JOURNAL] = "-journal"};

	snprintf(name, WREP_NAME_MAX + 16, "%s%s", db, suffix[kind]);
}

static int holds_locked(struct wrep_stray *s, enum wrep_kind kind)
{
	int rc = kind == WREP_SHM ? 0 : open_locked(s);

	if (rc || kind == WREP_SHM)
		return rc;
	rc = kind == WREP_WAL ? wrep_playback_wal_holds(s->file->fd)
			      : wrep_playback_journal_holds(s->file->fd);
	close_locked(s);
	return rc;
}

bool wrep_strays_wait(struct wrep *w, const char *db)
{
	char name[WREP_NAME_MAX + 16];
	bool wait = false;

	pthread_mutex_lock(&w->stray_lock);
	for (int i = 0; i < 3 && !wait; i++) {
		struct wrep_stray *s;

		name_of(db, kinds[i], name);
		s = *link_locked(w, name);
		wait = s && !s->left && !s->played && holds_locked(s, kinds[i]) != 0;
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

		name_of(from, kinds[i], name);
		name_of(to, kinds[i], fresh);
		s = *link_locked(w, name);
		if (!s || s->left)
			continue;
		copy = strdup(fresh);
		if (!copy) {
			rc = -ENOMEM;
			break;
		}
		free(s->name);
		s->name = copy;
		rc = s->played ? 0 : describe(s);
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

		name_of(db->name, kinds[i], name);
		p = link_locked(w, name);
		if (!*p)
			continue;
		if ((*p)->played && (flags & O_ACCMODE) == O_RDONLY)
			continue; /* who copies it takes that along; others see wrep_stray_open() */
		/* SQLite removes those of an empty database itself. */
		if (!(*p)->left && !(*p)->played && db->state.sum.page_count &&
		    (!(*p)->complete || holds_locked(*p, kinds[i])))
			rc = -EBUSY;
		else
			drop_locked(p);
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

static int play_locked(struct wrep_db *db, struct wrep_stray *s, enum wrep_kind kind, bool *some)
{
	struct stat st;
	int rc = open_locked(s);

	if (rc)
		return rc;
	s->played_bytes = fstat(s->file->fd, &st) < 0 ? 0 : (uint64_t)st.st_size;
	s->played_index = 0;
	*some |= s->played_bytes > 0;
	rc = kind == WREP_WAL
		     ? wrep_playback_wal(s->file->fd, db->overlay, db->files[WREP_DB]->fd)
		     : wrep_playback_journal(s->file->fd, db->overlay, db->files[WREP_DB]->fd);
	close_locked(s);
	if (rc)
		wrep_logf(
			db->w, 'W',
			"not committed: a copied file does not belong to the database, %s name=%s "
			"error=\"%s\"; open both with SQLite where they come from, close them, and "
			"copy the database again",
			rc == -EXDEV ? "or not to it alone" : "or cannot be read", s->name,
			strerror(-rc));
	return rc;
}

int wrep_strays_play(struct wrep_db *db, bool *some)
{
	struct wrep *w = db->w;
	char name[WREP_NAME_MAX + 16];
	int rc = 0;

	*some = false;
	pthread_mutex_lock(&w->stray_lock);
	for (int i = 0; i < 2 && w->strays && !rc; i++) {
		struct wrep_stray *s;

		name_of(db->name, kinds[i], name);
		s = *link_locked(w, name);
		if (!s || s->left || s->played || !s->complete)
			continue;
		rc = play_locked(db, s, kinds[i], some);
	}
	pthread_mutex_unlock(&w->stray_lock);
	return rc;
}

void wrep_strays_played(struct wrep_db *db, uint64_t index)
{
	char name[WREP_NAME_MAX + 16], about[FILE_NAME_SIZE];
	struct wrep *w = db->w;
	bool any = false;

	pthread_mutex_lock(&w->stray_lock);
	for (int i = 0; i < 3; i++) {
		struct wrep_stray *s;

		name_of(db->name, kinds[i], name);
		s = *link_locked(w, name);
		if (!s || s->left || s->played || !s->complete)
			continue;
		s->played = true;
		s->played_index = index;
		s->played_ms = wrep_now_ms();
		file_name(about, s->number, ABOUT);
		any |= unlinkat(w->config.state_fd, about, 0) == 0;
	}
	/* Else it would wait there again after a power cut, for a database that has it. */
	if (any && fsync(w->config.state_fd) < 0)
		wrep_logf(w, 'W', "cannot sync the state directory error=\"%s\"", strerror(errno));
	pthread_mutex_unlock(&w->stray_lock);
}

void wrep_strays_displaced(struct wrep_db *db)
{
	struct wrep *w = db->w;
	char name[WREP_NAME_MAX + 16];

	pthread_mutex_lock(&w->stray_lock);
	for (int i = 0; i < 3 && w->strays; i++) {
		struct wrep_stray **p;

		name_of(db->name, kinds[i], name);
		p = link_locked(w, name);
		if (*p && (*p)->played)
			drop_locked(p);
	}
	pthread_mutex_unlock(&w->stray_lock);
}

void wrep_stray_trace(struct wrep_db *db, enum wrep_kind kind, const struct stat *st)
{
	struct wrep *w = db->w;
	char name[WREP_NAME_MAX + 16], about[FILE_NAME_SIZE];
	struct wrep_stray *s;

	name_of(db->name, kind, name);
	pthread_mutex_lock(&w->stray_lock);
	if (!*link_locked(w, name) &&
	    create_locked(w, name, st->st_mode, st->st_uid, st->st_gid, &s) == 0) {
		s->complete = s->played = true;
		s->played_ms = wrep_now_ms();
		file_name(about, s->number, ABOUT);
		unlinkat(w->config.state_fd, about, 0);
	}
	pthread_mutex_unlock(&w->stray_lock);
}

void wrep_strays_tidy(struct wrep *w)
{
	pthread_mutex_lock(&w->stray_lock);
	for (struct wrep_stray **p = &w->strays; *p;) {
		if ((*p)->played && !(*p)->opens && wrep_now_ms() - (*p)->played_ms > PLAYED_MS)
			drop_locked(p);
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

		name_of(db, kinds[i], name);
		p = link_locked(w, name);
		if (*p && index > (*p)->index && ((*p)->left || (*p)->played || !copied))
			drop_locked(p);
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
	char path[FILE_NAME_SIZE];
	struct stat st;
	int from = -1, fd, rc = 0;

	file_name(path, number, "");
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
		if (!rc && fd >= 0 &&
		    (fchown(fd, st.st_uid, st.st_gid) < 0 || fchmod(fd, st.st_mode & 07777) < 0))
			rc = -errno;
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

	name_of(db->name, kind, name);
	if (fstatat(wrep_dir_fd(w, kind), name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !st.st_size)
		return;
	pthread_mutex_lock(&w->stray_lock);
	if (!*link_locked(w, name)) {
		s = stray_new(w, name, w->stray_next++, true);
		rc = s ? move_here(db, kind, name, s->number) : -ENOMEM;
		if (s)
			s->index = index;
		if (s && !rc)
			rc = describe(s);
		if (s && !rc) {
			s->complete = true;
			insert_locked(s);
		} else if (s) {
			remove_files(w, s->number);
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

/* ---- a copy is complete ----------------------------------------------------------------------------- */

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
	belongs = wrep_direct_is_copy(db, played_index);
	if (!belongs || (busy && wrep_departure_late(op))) {
		pthread_mutex_unlock(&db->lock);
		wrep_logf(
			w, 'I',
			"a copied file waits until its database is copied, too: until then nobody "
			"can open that name=%s",
			name);
	} else if (busy) {
		pthread_mutex_unlock(&db->lock);
		rc = wrep_departure_flush(f, db, op);
	} else {
		rc = wrep_direct_take_strays(db, op); /* unlocks */
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
	p = link_locked(w, from);
	target = link_locked(w, to);
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
		rc = describe(s);
		if (rc) {
			s->name = former;
			s->left = left;
		} else {
			name = former;
			f = wrep_file_ref(s->file);
			if (*target)
				drop_locked(target);
		}
	}
	pthread_mutex_unlock(&w->stray_lock);
	free(name);
	if (f)
		rc = pair(w, f, to, op);
	wrep_file_unref(f);
	return rc;
}
