/* See stray.h. On the disk: DATA/.dqlitefs/stray-N is the file, stray-N.is what it is: "left INDEX NAME" or
 * "copied INDEX NAME", where INDEX is the last entry that names had followed when it came. An entry that makes a
 * database of that name ends a stray only if it lies behind, so that applying the log again does not.
 */
#include "db/stray.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>
#include "base/attr.h"
#include "base/io.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/files.h"
#include "db/pin.h"
#include "record/entry.h"
#include "sqlite/names.h"

bool wrep_stray_copies(int flags)
{
	return (flags & O_ACCMODE) == O_WRONLY || (flags & (O_TRUNC | O_EXCL));
}

#define PREFIX "stray-"

void wrep_stray_file_name(char name[WREP_STRAY_FILE_NAME_SIZE], uint64_t number, const char *suffix)
{
	snprintf(name, WREP_STRAY_FILE_NAME_SIZE, PREFIX "%" PRIu64 "%s", number, suffix);
}

/* Say what it is. */
int wrep_stray_describe(const struct wrep_stray *s)
{
	char about[WREP_STRAY_FILE_NAME_SIZE], fresh[WREP_STRAY_FILE_NAME_SIZE],
		text[WREP_NAME_MAX + 64];
	int state_fd = s->w->config.state_fd, rc, fd;

	wrep_stray_file_name(about, s->number, WREP_STRAY_ABOUT);
	wrep_stray_file_name(fresh, s->number, WREP_STRAY_ABOUT "~");
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

void wrep_stray_remove_files(struct wrep *w, uint64_t number)
{
	char name[WREP_STRAY_FILE_NAME_SIZE];

	wrep_stray_file_name(name, number, WREP_STRAY_ABOUT);
	unlinkat(w->config.state_fd, name, 0);
	wrep_stray_file_name(name, number, "");
	unlinkat(w->config.state_fd, name, 0);
}

/* With its file, which has a reference for the table, but not in that yet. */
struct wrep_stray *wrep_stray_new(struct wrep *w, const char *name, uint64_t number, bool left)
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
void wrep_stray_insert_locked(struct wrep_stray *s)
{
	s->next = s->w->strays;
	s->w->strays = s;
}

struct wrep_stray **wrep_stray_link_locked(struct wrep *w, const char *name)
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
	wrep_stray_remove_files(s->w, s->number);
	return s->file;
}

void wrep_stray_drop_locked(struct wrep_stray **from)
{
	wrep_file_unref(take_locked(from));
}

struct wrep_file *wrep_stray_find(struct wrep *w, const char *name)
{
	struct wrep_stray *s;
	struct wrep_file *f;

	pthread_mutex_lock(&w->stray_lock);
	s = *wrep_stray_link_locked(w, name);
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
			wrep_stray_drop_locked(p);
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
	char about[WREP_STRAY_FILE_NAME_SIZE], text[WREP_NAME_MAX + 64], base[WREP_PATH_MAX + 1];
	struct wrep_stray *s = NULL;
	enum wrep_kind kind;
	uint64_t index;
	ssize_t len;
	int fd, at = 0;
	bool left;

	wrep_stray_file_name(about, number, WREP_STRAY_ABOUT);
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
		s = wrep_stray_new(w, text + at, number, left);
	else
		wrep_stray_remove_files(w, number);
	if (s) {
		s->index = index;
		s->complete = true;
		wrep_stray_insert_locked(s);
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
		    strcmp(entry->d_name + at, WREP_STRAY_ABOUT) == 0)
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

int wrep_stray_open_locked(struct wrep_stray *s)
{
	char name[WREP_STRAY_FILE_NAME_SIZE];

	if (s->file->fd < 0) {
		wrep_stray_file_name(name, s->number, "");
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

void wrep_stray_close_locked(struct wrep_stray *s)
{
	if (--s->opens)
		return;
	close(s->file->fd);
	s->file->fd = -1;
}

/* From now on it is somebody's copy, and not whole before its close. What is in front of `off` stays. */
int wrep_stray_change_locked(struct wrep_stray *s, uint64_t off)
{
	bool other = s->left || s->played;

	if (off < s->played_bytes)
		s->played_index = 0;
	s->complete = s->left = s->played = false;
	return other ? wrep_stray_describe(s) : 0;
}

int wrep_stray_create_locked(struct wrep *w, const char *name, const struct wrep_new_file *as,
			     struct wrep_stray **out)
{
	struct wrep_stray *s = wrep_stray_new(w, name, w->stray_next++, false);
	char path[WREP_STRAY_FILE_NAME_SIZE];
	int fd, rc = 0;

	if (!s)
		return -ENOMEM;
	wrep_stray_file_name(path, s->number, "");
	fd = openat(w->config.state_fd, path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
		    as->mode & 07777);
	rc = fd < 0 ? -errno : wrep_attr_own(fd, as->mode, as->uid, as->gid);
	if (fd >= 0)
		close(fd);
	if (!rc)
		rc = wrep_stray_describe(s);
	if (rc) {
		wrep_stray_remove_files(w, s->number);
		wrep_file_unref(s->file);
		return rc;
	}
	wrep_stray_insert_locked(s);
	*out = s;
	return 0;
}

int wrep_stray_stat(struct wrep_file *f, struct stat *st)
{
	char name[WREP_STRAY_FILE_NAME_SIZE];
	int rc;

	wrep_stray_file_name(name, f->stray->number, "");
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
	char name[WREP_STRAY_FILE_NAME_SIZE];

	wrep_stray_file_name(name, f->stray->number, "");
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
	p = wrep_stray_link_locked(w, name);
	rc = *p ? 0 : -ENOENT;
	if (!rc)
		wrep_stray_drop_locked(p);
	pthread_mutex_unlock(&w->stray_lock);
	return rc;
}
