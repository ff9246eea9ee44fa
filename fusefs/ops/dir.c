/* Directories read. A reader sees the names as of its first read, or of its last rewind. */
#include "ops/dir.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "ops/admission.h"
#include "ops/inode.h"
#include "ops/open_queue.h"
#include "ops/path.h"
#include "ops/pending.h"

/* The names that one reader of the directory sees, as of its first read. */
struct listing {
	struct fsd_inode *dir; /* a reference; NULL: the top */
	char **names;
	size_t count, room;
};

static void listing_clear(struct listing *listing)
{
	for (size_t i = 0; i < listing->count; i++)
		free(listing->names[i]);
	free(listing->names);
	listing->names = NULL;
	listing->count = listing->room = 0;
}

static int listing_add(void *arg, const char *name)
{
	struct listing *listing = arg;

	if (listing->count == listing->room) {
		size_t room = listing->room ? listing->room * 2 : 16;
		char **names = reallocarray(listing->names, room, sizeof(*names));

		if (!names)
			return -ENOMEM;
		listing->names = names;
		listing->room = room;
	}
	listing->names[listing->count] = strdup(name);
	if (!listing->names[listing->count])
		return -ENOMEM;
	listing->count++;
	return 0;
}

static void listing_free(struct fsd *fs, struct listing *listing)
{
	if (!listing)
		return;
	listing_clear(listing);
	if (listing->dir)
		fsd_inode_unref(fs, listing->dir);
	free(listing);
}

static void opendir_ready(struct wrep_op *op, int result)
{
	struct fsd_pend *pend = fsd_pend_of(op);
	struct fuse_file_info fi = {0};
	struct listing *listing = NULL;

	if (result == -ETIMEDOUT && wrep_knows_names(pend->fs->wrep))
		result = 0;
	fsd_opens_remove(pend, result);
	if (!result) {
		listing = calloc(1, sizeof(*listing));
		result = listing ? 0 : -ENOMEM;
	}
	if (!result && pend->parent != FUSE_ROOT_ID) {
		listing->dir = fsd_inode_find(pend->fs, pend->parent);
		if (!listing->dir || !listing->dir->dir || wrep_dir_is_gone(listing->dir->dir))
			result = -ESTALE;
	}
	fi.fh = (uint64_t)(uintptr_t)listing;
	if (result)
		fuse_reply_err(pend->req, -result);
	if (result || fuse_reply_open(pend->req, &fi))
		listing_free(pend->fs, listing);
	fsd_pend_unref(pend);
}

/* Like a lookup: which names there are is known once the node has caught up, and until then as of an earlier
 * time, if at all. */
void fsd_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fsd *fs = fsd_of(req);
	struct fsd_pend *pend;
	int rv = 0;

	if (!fsd_enter(fs, req))
		return;
	pend = fsd_pend_begin(req, opendir_ready);
	if (!pend)
		return;
	pend->parent = ino;
	/* The daemon opens the root of its own mount for its clone. */
	if (!wrep_is_ready(fs->wrep) && fuse_req_ctx(req)->pid != getpid() &&
	    !fsd_is_internal(fs, req)) {
		pend->is_known = wrep_knows_names(fs->wrep);
		rv = fsd_wait_ready(pend);
	}
	fsd_pend_end(fs, pend, rv);
}

void fsd_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fsd *fs = fsd_of(req);

	/* Else walrepl is closed, and this process soon gone. */
	if (fsd_enter_as(fs, req, true)) {
		listing_free(fs, (struct listing *)(uintptr_t)fi->fh);
		fsd_leave(fs);
	}
	fuse_reply_err(req, 0);
}

static fuse_ino_t number_of_dir(struct fsd *fs, const char *path)
{
	struct wrep_dir *dir;
	fuse_ino_t number;

	if (!*path)
		return FUSE_ROOT_ID;
	if (wrep_dir_lookup(fs->wrep, path, &dir))
		return 0;
	number = fsd_inode_number_of_dir(fs, dir);
	wrep_dir_unref(dir);
	return number;
}

/* Number and type of what is called `name` in the directory `path`; false: it is there no more. */
static bool look_at(struct fsd *fs, const char *path, const char *name, struct stat *st)
{
	char full[FSD_PATH_SIZE];
	struct wrep_file *file;
	const char *slash;

	if (snprintf(full, sizeof(full), "%s%s%s", path, *path ? "/" : "", name) >=
	    (int)sizeof(full))
		return false;
	if (!strcmp(name, "..")) {
		slash = strrchr(path, '/');
		full[slash ? slash - path : 0] = '\0';
	} else if (!strcmp(name, ".")) {
		strcpy(full, path);
	}
	st->st_mode = S_IFDIR;
	st->st_ino = number_of_dir(fs, full);
	if (st->st_ino)
		return true;
	if (wrep_lookup(fs->wrep, full, &file))
		return false;
	st->st_mode = S_IFREG;
	st->st_ino = fsd_inode_number(fs, file);
	wrep_file_unref(file);
	return true;
}

static const char *path_of(const struct listing *listing)
{
	return listing->dir ? wrep_dir_path(listing->dir->dir) : "";
}

static int listing_fill(struct fsd *fs, struct listing *listing)
{
	int rv;

	listing_clear(listing);
	if (listing->dir && wrep_dir_is_gone(listing->dir->dir))
		return 0; /* nothing is in it any more */
	rv = listing_add(listing, ".");
	if (!rv)
		rv = listing_add(listing, "..");
	if (!rv)
		rv = wrep_list(fs->wrep, path_of(listing), listing_add, listing);
	return rv;
}

void fsd_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	struct fsd *fs = fsd_of(req);
	struct listing *listing = (struct listing *)(uintptr_t)fi->fh;
	struct stat st = {0};
	size_t used = 0;
	char *buf;
	int rv = 0;

	if (!fsd_enter(fs, req))
		return;
	buf = malloc(size);
	if (!buf)
		rv = -ENOMEM;
	else if (!off)
		rv = listing_fill(fs, listing);
	if (rv) {
		fuse_reply_err(req, -rv);
		goto out;
	}
	for (size_t i = (size_t)off; i < listing->count; i++) {
		const char *name = listing->names[i];
		size_t need;

		if (!look_at(fs, path_of(listing), name, &st))
			continue; /* removed meanwhile */
		need = fuse_add_direntry(req, buf + used, size - used, name, &st, (off_t)i + 1);
		if (need > size - used)
			break;
		used += need;
	}
	fuse_reply_buf(req, buf, used);
out:
	free(buf);
	fsd_leave(fs);
}
