/* Directories: made and removed on every node, in order with all else.
 *
 * An application's mkdir becomes a MKDIR entry. When it is delivered, the state (state/state.h) says whether it
 * takes effect; then the applier makes the backing directory, and one on the tmpfs for the -shm files in
 * it, lets the name be found, and answers the application. A directory is known by the index of its MKDIR
 * entry and keeps its name for as long as it lives. Mode, owner and times are those of the backing
 * directory, set by SETATTR entries as those of a database are.
 *
 * After a crash the directories of the last manifest are made again where they are missing, and what
 * came since is applied again: making one that is there already changes nothing but its attributes, which
 * later entries set again, and removing one that is gone changes nothing.
 */
#include "db/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "base/attr.h"
#include "base/wrep.h"
#include "record/entry.h"
#include "record/manifest.h"
#include "state/name_tree.h"
#include "state/state.h"

/* ---- what applications see ---------------------------------------------------------------------- */

static unsigned bucket(const char *path)
{
	return (unsigned)(XXH3_64bits(path, strlen(path)) % WREP_BUCKETS);
}

struct wrep_dir *wrep_dir_ref(struct wrep_dir *d)
{
	atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
	return d;
}

void wrep_dir_unref(struct wrep_dir *d)
{
	if (d && atomic_fetch_sub(&d->refs, 1) == 1)
		free(d);
}

const char *wrep_dir_path(const struct wrep_dir *d)
{
	return d->path;
}

_Atomic(void *) *wrep_dir_host_data(struct wrep_dir *d)
{
	return &d->host_data;
}

struct wrep_dir *wrep_dir_new(struct wrep *w, const char *path, uint64_t id)
{
	struct wrep_dir *d = calloc(1, sizeof *d + strlen(path) + 1);

	if (!d)
		return NULL;
	atomic_init(&d->refs, 1);
	d->w = w;
	d->id = id;
	strcpy(d->path, path);
	return d;
}

/* w->lock held. */
static struct wrep_dir *find_shown(struct wrep *w, const char *path, size_t len)
{
	unsigned b = (unsigned)(XXH3_64bits(path, len) % WREP_BUCKETS);
	struct wrep_dir *d = w->dirs[b];

	while (d && !(strlen(d->path) == len && memcmp(d->path, path, len) == 0))
		d = d->next;
	return d;
}

int wrep_dir_lookup(struct wrep *w, const char *path, struct wrep_dir **out)
{
	pthread_mutex_lock(&w->lock);
	*out = find_shown(w, path, strlen(path));
	if (*out)
		wrep_dir_ref(*out);
	pthread_mutex_unlock(&w->lock);
	return *out ? 0 : -ENOENT;
}

bool wrep_dir_is_gone(struct wrep_dir *d)
{
	bool gone;

	pthread_mutex_lock(&d->w->lock);
	gone = !d->shown;
	pthread_mutex_unlock(&d->w->lock);
	return gone;
}

/* Is `path` in the directory `dir` itself? What is behind the directory's name, or NULL. */
const char *wrep_dir_name_in(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	if (len && (strncmp(path, dir, len) != 0 || path[len] != '/'))
		return NULL;
	path += len ? len + 1 : 0;
	return strchr(path, '/') ? NULL : path;
}

/* How many directories the one that `path` is in has. NULL: it is gone. w->lock held. */
static unsigned *count_beside(struct wrep *w, const char *path)
{
	const char *slash = strrchr(path, '/');
	struct wrep_dir *d = slash ? find_shown(w, path, (size_t)(slash - path)) : NULL;

	return d ? &d->subdirs : slash ? NULL : &w->top_dirs;
}

unsigned wrep_dir_count(struct wrep *w, const char *path)
{
	struct wrep_dir *d;
	unsigned n;

	pthread_mutex_lock(&w->lock);
	d = *path ? find_shown(w, path, strlen(path)) : NULL;
	n = d ? d->subdirs : *path ? 0 : w->top_dirs;
	pthread_mutex_unlock(&w->lock);
	return n;
}

/* The directories in `path`: references in a malloc'd array that ends with NULL; NULL: out of memory. */
struct wrep_dir **wrep_dirs_in(struct wrep *w, const char *path)
{
	struct wrep_dir **all;
	size_t n = 0;

	pthread_mutex_lock(&w->lock);
	for (size_t b = 0; b < WREP_BUCKETS; b++)
		for (struct wrep_dir *d = w->dirs[b]; d; d = d->next)
			n++;
	all = calloc(n + 1, sizeof *all);
	n = 0;
	for (size_t b = 0; all && b < WREP_BUCKETS; b++)
		for (struct wrep_dir *d = w->dirs[b]; d; d = d->next)
			if (wrep_dir_name_in(d->path, path))
				all[n++] = wrep_dir_ref(d);
	pthread_mutex_unlock(&w->lock);
	return all;
}

int wrep_dir_stat(struct wrep_dir *d, struct stat *st)
{
	if (wrep_dir_is_gone(d))
		return -ESTALE;
	if (fstatat(d->w->config.data_fd, d->path, st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? -ESTALE : -errno;
	st->st_nlink = 2 + wrep_dir_count(d->w, d->path);
	return 0;
}

/* ---- on the disk --------------------------------------------------------------------------------- */

void wrep_dir_touch(struct wrep *w, const char *path)
{
	const char *slash = strrchr(path, '/');
	struct wrep_dir *d;

	if (!slash)
		return; /* the top is always synced */
	pthread_mutex_lock(&w->lock);
	d = find_shown(w, path, (size_t)(slash - path));
	if (d)
		d->changed = true;
	pthread_mutex_unlock(&w->lock);
}

int wrep_dir_open(int at_fd, const char *path)
{
	int fd = openat(at_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

int wrep_dirs_sync(struct wrep *w)
{
	int rc = fsync(w->config.data_fd) < 0 ? -errno : 0;

	for (size_t b = 0; b < WREP_BUCKETS && !rc; b++) {
		struct wrep_dir *d;

		do {
			pthread_mutex_lock(&w->lock);
			for (d = w->dirs[b]; d && !d->changed; d = d->next)
				;
			if (d) {
				d->changed = false;
				wrep_dir_ref(d);
			}
			pthread_mutex_unlock(&w->lock);
			if (d) {
				int fd = wrep_dir_open(w->config.data_fd, d->path);

				/* One that is removed meanwhile need not last. */
				if (fd >= 0 && fsync(fd) < 0)
					rc = -errno;
				if (fd >= 0)
					close(fd);
				if (rc) {
					pthread_mutex_lock(&w->lock);
					d->changed = true;
					pthread_mutex_unlock(&w->lock);
				}
				wrep_dir_unref(d);
			}
		} while (d && !rc);
	}
	return rc;
}

int wrep_dir_apply_attributes(int fd, const struct wrep_entry *e)
{
	struct wrep_attr attr = wrep_entry_attr(e);

	return wrep_attr_set(fd, &attr);
}

/* A directory is at `path` then, whatever else was; made with no right for anybody. */
static int ensure(int at_fd, const char *path)
{
	struct stat st;

	if (mkdirat(at_fd, path, 0700) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	if (fstatat(at_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return 0;
	if (unlinkat(at_fd, path, 0) < 0 || mkdirat(at_fd, path, 0700) < 0)
		return -errno;
	return 0;
}

/* Make both of them. `e`: what the backing one shall look like, or NULL. */
int wrep_dir_ensure(struct wrep *w, const char *path, const struct wrep_entry *e)
{
	int rc = ensure(w->config.data_fd, path), fd = -1;

	if (!rc)
		rc = ensure(w->config.shm_fd, path);
	if (rc || !e)
		return rc;
	fd = wrep_dir_open(w->config.data_fd, path);
	if (fd < 0)
		return fd;
	rc = wrep_dir_apply_attributes(fd, e);
	close(fd);
	return rc;
}

void wrep_dir_show(struct wrep_dir *d, uint64_t index)
{
	struct wrep *w = d->w;
	unsigned b = bucket(d->path), *count;

	pthread_mutex_lock(&w->lock);
	count = count_beside(w, d->path);
	if (count)
		++*count;
	d->shown = d->changed = true;
	d->next = w->dirs[b];
	w->dirs[b] = wrep_dir_ref(d);
	w->names_index = index;
	pthread_mutex_unlock(&w->lock);
	wrep_dir_touch(w, d->path);
}

void wrep_dir_hide(struct wrep_dir *d, uint64_t index)
{
	struct wrep *w = d->w;
	struct wrep_dir **p;
	unsigned *count;
	bool shown;

	pthread_mutex_lock(&w->lock);
	shown = d->shown;
	count = shown ? count_beside(w, d->path) : NULL;
	if (count)
		--*count;
	d->shown = false;
	for (p = &w->dirs[bucket(d->path)]; shown && *p != d; p = &(*p)->next)
		;
	if (shown)
		*p = d->next;
	w->names_index = index;
	pthread_mutex_unlock(&w->lock);
	wrep_dir_touch(w, d->path);
	if (shown)
		wrep_dir_unref(d);
}

bool wrep_dir_is_retired(struct wrep_dir *d)
{
	bool retired;

	pthread_mutex_lock(&d->w->lock);
	retired = d->retired;
	pthread_mutex_unlock(&d->w->lock);
	return retired;
}

/* ---- the manifest -------------------------------------------------------------------------------- */

int wrep_dirs_note(struct wrep *w, struct wrep_manifest *m)
{
	for (size_t b = 0; b < WREP_BUCKETS; b++) {
		for (struct wrep_dir *d = w->dirs[b]; d; d = d->next) {
			struct wrep_manifest_dir *md = wrep_manifest_add_dir(m);

			if (!md)
				return -ENOMEM;
			strcpy(md->path, d->path);
			md->id = d->id;
		}
	}
	return 0;
}

void wrep_dirs_describe(struct wrep *w, struct wrep_manifest *m)
{
	for (size_t i = 0; i < m->dir_count; i++) {
		struct wrep_manifest_dir *md = &m->dirs[i];
		struct stat st = {
			.st_mode = 0755}; /* removed meanwhile, by an entry that comes again */

		fstatat(w->config.data_fd, md->path, &st, AT_SYMLINK_NOFOLLOW);
		md->mode = st.st_mode & 07777;
		md->uid = st.st_uid;
		md->gid = st.st_gid;
		md->mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	}
	wrep_manifest_sort_dirs(m);
}

int wrep_dirs_prepare(struct wrep *w, const struct wrep_manifest *m, bool attributes)
{
	int rc = 0;

	for (size_t i = 0; i < m->dir_count && !rc; i++) {
		const struct wrep_manifest_dir *d = &m->dirs[i];
		struct wrep_entry e = {
			.attr_valid = WREP_ATTR_MODE | WREP_ATTR_UID | WREP_ATTR_GID,
			.mode = d->mode,
			.uid = d->uid,
			.gid = d->gid,
		};
		bool there = faccessat(w->config.data_fd, d->path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;

		rc = wrep_dir_ensure(w, d->path, attributes || !there ? &e : NULL);
	}
	/* What was made in them changed their times. */
	for (size_t i = m->dir_count; attributes && i-- > 0 && !rc;) {
		const struct wrep_manifest_dir *d = &m->dirs[i];
		struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
					    wrep_attr_time(d->mtime_ns, false)};

		if (utimensat(w->config.data_fd, d->path, times, AT_SYMLINK_NOFOLLOW) < 0)
			rc = -errno;
	}
	return rc;
}

/* The one that was there before the fetch, with a reference; NULL: a new one. */
static struct wrep_dir *take_retired(struct wrep *w, const struct wrep_manifest_dir *md)
{
	struct wrep_dir **p, *d;

	pthread_mutex_lock(&w->lock);
	for (p = &w->retired_dirs; (d = *p); p = &d->next) {
		if (d->id != md->id || strcmp(d->path, md->path) != 0)
			continue;
		*p = d->next;
		d->retired = false;
		break;
	}
	pthread_mutex_unlock(&w->lock);
	return d;
}

int wrep_dirs_restore(struct wrep *w, const struct wrep_manifest *m)
{
	int rc = wrep_dirs_prepare(w, m, false);

	for (size_t i = 0; i < m->dir_count && !rc; i++) {
		const struct wrep_manifest_dir *md = &m->dirs[i];
		struct wrep_dir *d = take_retired(w, md);

		if (!d)
			d = wrep_dir_new(w, md->path, md->id);
		rc = d ? wrep_state_restore_name(w->state, md->id, md->path, true, d) : -ENOMEM;
		if (rc) {
			wrep_dir_unref(d);
			return rc;
		}
		wrep_dir_show(d, m->names_index);
	}
	wrep_dirs_release(w);
	return rc;
}

static void drop_data(void *arg, struct wrep_tree_node *n)
{
	(void)arg;
	if (n->is_dir)
		wrep_dir_unref(n->data);
}

void wrep_dirs_retire(struct wrep *w)
{
	wrep_tree_each(w->state->names, drop_data, NULL);
	wrep_tree_clear(w->state->names);
	pthread_mutex_lock(&w->lock);
	w->top_dirs = 0;
	for (size_t b = 0; b < WREP_BUCKETS; b++) {
		struct wrep_dir *d;

		while ((d = w->dirs[b])) { /* with the table's reference */
			w->dirs[b] = d->next;
			d->shown = false;
			d->subdirs = 0;
			d->retired = true;
			d->next = w->retired_dirs;
			w->retired_dirs = d;
		}
	}
	pthread_mutex_unlock(&w->lock);
}

void wrep_dirs_release(struct wrep *w)
{
	struct wrep_dir *d;

	pthread_mutex_lock(&w->lock);
	while ((d = w->retired_dirs)) {
		w->retired_dirs = d->next;
		wrep_dir_unref(d);
	}
	pthread_mutex_unlock(&w->lock);
}
