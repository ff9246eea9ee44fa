/* Reading the directory. A reader sees the names as of its first read, or of its last rewind. */
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include <fuse_lowlevel.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "inode.h"
#include "opens.h"
#include "ops.h"

/* What one reader of the directory sees: the names as of its first read. */
struct listing {
	char **names;
	size_t count, room;
};

static void listing_clear(struct listing *listing)
{
	for (size_t i = 0; i < listing->count; i++)
		free(listing->names[i]);
	free(listing->names);
	memset(listing, 0, sizeof(*listing));
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

static void opendir_ready(struct wrep_op *op, int result)
{
	struct fsd_pend *pend = (struct fsd_pend *)op;
	struct fuse_file_info fi = {0};
	struct listing *listing = NULL;

	fsd_opens_remove(pend);
	if (!result) {
		listing = calloc(1, sizeof(*listing));
		result = listing ? 0 : -ENOMEM;
	}
	fi.fh = (uint64_t)(uintptr_t)listing;
	if (result)
		fuse_reply_err(pend->req, -result);
	else if (fuse_reply_open(pend->req, &fi))
		free(listing);
	fsd_pend_unref(pend);
}

/* Like a lookup: which names there are is known once the node has caught up. */
void fsd_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fsd *fs = fsd_of(req);
	struct fsd_pend *pend;
	int rv = 0;

	if (!fsd_enter(fs, req))
		return;
	pend = fsd_pend_new(fs, req);
	if (!pend) {
		fuse_reply_err(req, ENOMEM);
		fsd_leave(fs);
		return;
	}
	/* The daemon opens the root of its own mount for its clone. */
	if (!wrep_is_ready(fs->wrep) && fuse_req_ctx(req)->pid != getpid() &&
	    !fsd_is_internal(fs, req))
		rv = fsd_wait_ready(pend, opendir_ready);
	if (rv != WREP_PENDING)
		opendir_ready(&pend->op, rv);
	fsd_leave(fs);
}

void fsd_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct listing *listing = (struct listing *)(uintptr_t)fi->fh;

	listing_clear(listing);
	free(listing);
	fuse_reply_err(req, 0);
}

static fuse_ino_t number_of_name(struct fsd *fs, const char *name)
{
	struct wrep_file *file;
	fuse_ino_t number;

	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return FUSE_ROOT_ID;
	if (wrep_lookup(fs->wrep, name, &file))
		return 0;
	number = fsd_inode_number(fs, file);
	wrep_file_unref(file);
	return number;
}

static int listing_fill(struct fsd *fs, struct listing *listing)
{
	int rv;

	listing_clear(listing);
	rv = listing_add(listing, ".");
	if (!rv)
		rv = listing_add(listing, "..");
	if (!rv)
		rv = wrep_list(fs->wrep, listing_add, listing);
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

		st.st_ino = number_of_name(fs, name);
		if (!st.st_ino)
			continue; /* removed meanwhile */
		st.st_mode = st.st_ino == FUSE_ROOT_ID ? S_IFDIR : S_IFREG;
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
