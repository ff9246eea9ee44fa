/* Directories. */
#ifndef WALREPL_DB_DIRECTORY_H
#define WALREPL_DB_DIRECTORY_H

#include "base/wrep.h"
#include "record/entry.h"

struct wrep_manifest;

struct wrep_dir {
	_Atomic unsigned refs;
	struct wrep *w;
	uint64_t id;
	bool shown;	       /* w->lock: in w->dirs */
	bool retired;	       /* w->lock: what the log says of it comes again, after a fetch */
	bool changed;	       /* w->lock: the directory itself is not synced */
	unsigned subdirs;      /* w->lock: directories in it that are shown */
	struct wrep_dir *next; /* w->lock: in w->dirs, or w->retired_dirs */
	_Atomic(void *) host_data;
	char path[];
};
/* Is `path` in the directory `dir` itself? What is behind the directory's name, or NULL. */
const char *wrep_dir_name_in(const char *path, const char *dir);
/* The directories in `path`: references in a malloc'd array that ends with NULL; NULL: out of memory. */
struct wrep_dir **wrep_dirs_in(struct wrep *w, const char *path);
struct wrep_dir *wrep_dir_new(struct wrep *w, const char *path, uint64_t id); /* NULL: no memory */
/* Let it be found, or not, as of entry `index`. [applier] */
void wrep_dir_show(struct wrep_dir *d, uint64_t index);
void wrep_dir_hide(struct wrep_dir *d, uint64_t index);
bool wrep_dir_is_retired(struct wrep_dir *d);
/* A directory is at `path` then, of the databases and on the tmpfs, whatever else was. `e`: what the former shall look
 * like, or NULL. 0 or -errno. */
int wrep_dir_ensure(struct wrep *w, const char *path, const struct wrep_entry *e);
int wrep_dir_open(int at_fd, const char *path); /* a descriptor, or -errno */
int wrep_dir_apply_attributes(int fd,
			      const struct wrep_entry *e); /* as a SETATTR says. 0 or -errno */
/* The directory that `path` is in has changed. [applier, snapshotter] */
void wrep_dir_touch(struct wrep *w, const char *path);
/* Sync the directories that have changed; the top always. 0 or -errno. [snapshotter, applier] */
int wrep_dirs_sync(struct wrep *w);
/* Enter all of them into the manifest; w->lock held. 0 or -ENOMEM. Then say what they look like. */
int wrep_dirs_note(struct wrep *w, struct wrep_manifest *m);
void wrep_dirs_describe(struct wrep *w, struct wrep_manifest *m);
/* Make those of the manifest on the disk, with `attributes` as it says, and let them be found. */
int wrep_dirs_prepare(struct wrep *w, const struct wrep_manifest *m, bool attributes);
int wrep_dirs_restore(struct wrep *w, const struct wrep_manifest *m);
/* Nobody sees a directory any more, and the tree is empty. Nothing is delivered meanwhile. */
void wrep_dirs_retire(struct wrep *w);
void wrep_dirs_release(
	struct wrep *w); /* at the end, or after a restore those that did not return */

#endif
