/* Names looked up, and forgotten by the kernel.
 *
 * The kernel keeps the names of databases and -wals, once found. A name without a lifetime would be dropped with its
 * last open file, its inode with it, and with that all that was cached of its content. The next program to open
 * the database would read it from the daemon again (ten times the price of a warm point select). It keeps the
 * names of directories, too, so that a path is not walked by requests. Names that are not there it does not keep.
 *
 * A name that meanwhile means another file, or none, is noticed when it is used. walrepl answers ESTALE for a file
 * that is no longer called so, and every question about a directory that is gone is answered ESTALE. Then the
 * kernel looks the name up again. To tell the kernel earlier would be wrong: it takes the directory's lock for
 * that, which an application's create or unlink holds until its entry is committed, and the applier must never wait
 * for a commit.
 */
#include "ops/lookup.h"

#include <errno.h>
#include <string.h>
#include "ops/admission.h"
#include "ops/attr.h"
#include "ops/inode.h"
#include "ops/open_queue.h"
#include "ops/path.h"
#include "ops/pending.h"

double fsd_name_timeout(const struct fsd_inode *inode)
{
	struct wrep_file *file = inode->file;
	enum wrep_kind kind = WREP_DB;

	if (!inode->dir)
		kind = file ? wrep_file_kind(file) : WREP_SHM; /* not kept */
	return kind == WREP_DB || kind == WREP_WAL ? 3600 : 0;
}

/* The inode that `name` means now, with a reference. A file's own "." is asked for when it is opened by its
 * number (host.c) and the kernel does not know it. */
static int look_up(struct fsd *fs, fuse_ino_t parent, const char *name, struct fsd_inode **out)
{
	char path[FSD_PATH_SIZE];
	struct wrep_file *file;
	struct wrep_dir *dir;
	int rv;

	if (!strcmp(name, ".")) {
		*out = fsd_inode_find(fs, parent);
		return *out ? 0 : -ESTALE;
	}
	rv = fsd_path(fs, parent, name, path);
	if (rv)
		return rv;
	if (wrep_dir_lookup(fs->wrep, path, &dir) == 0) {
		*out = fsd_inode_of_dir(fs, dir);
		return *out ? 0 : -ENOMEM;
	}
	rv = wrep_lookup(fs->wrep, path, &file);
	if (rv)
		return rv;
	*out = fsd_inode_of(fs, file);
	return *out ? 0 : -ENOMEM;
}

/* Answer a lookup: `rv` is what look_up() returned. Takes the inode. */
static void lookup_answer(struct fsd *fs, fuse_req_t req, struct fsd_inode *inode, int rv)
{
	struct fuse_entry_param entry = {0};

	if (!rv)
		rv = fsd_inode_attr(inode, &entry.attr);
	if (rv) {
		fuse_reply_err(req, -rv);
	} else {
		entry.ino = inode->id;
		entry.entry_timeout = fsd_name_timeout(inode);
		entry.attr_timeout = fsd_attr_timeout(inode, &entry.attr);
		fsd_inode_looked_up(fs, inode);
		if (fuse_reply_entry(req, &entry))
			fsd_inode_forget(fs, entry.ino, 1);
	}
	if (inode)
		fsd_inode_unref(fs, inode);
}

void fsd_lookup_reply(struct fsd *fs, fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fsd_inode *inode = NULL;
	int rv = look_up(fs, parent, name, &inode);

	/* A fetch has begun since: whoever asks again waits. */
	lookup_answer(fs, req, inode, rv == -EAGAIN ? -ETIMEDOUT : rv);
}

static void lookup_ready(struct wrep_op *op, int result)
{
	struct fsd_pend *pend = fsd_pend_of(op);
	struct fsd_inode *inode = NULL;

	if (!result || result == -ETIMEDOUT) {
		result = look_up(pend->fs, pend->parent, pend->name, &inode);
		if (result == -EAGAIN)
			result = -ETIMEDOUT;
	}
	fsd_opens_remove(pend, result);
	lookup_answer(pend->fs, pend->req, inode, result);
	fsd_pend_unref(pend);
}

/* A node that has not caught up does not know yet which names there are: "no such file" would be a
 * wrong answer, on which SQLite makes a new database. */
void fsd_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fsd *fs = fsd_of(req);
	struct fsd_inode *inode = NULL;
	struct fsd_pend *pend;
	int rv;

	if (fsd_is_hidden(parent, name)) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	if (!fsd_enter(fs, req))
		return;
	if (wrep_is_ready(fs->wrep) || fsd_is_internal(fs, req)) {
		fsd_lookup_reply(fs, req, parent, name);
		fsd_leave(fs);
		return;
	}
	rv = look_up(fs, parent, name, &inode);
	if (inode)
		fsd_inode_unref(fs, inode);
	pend = fsd_pend_begin(req, lookup_ready);
	if (!pend || !fsd_pend_set_name(pend, name))
		return;
	pend->parent = parent;
	pend->is_known = rv != -EAGAIN;
	fsd_pend_end(fs, pend, fsd_wait_ready(pend));
}

void fsd_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
	struct fsd *fs = fsd_of(req);

	if (fsd_enter_as(fs, req, true)) {
		fsd_inode_forget(fs, ino, lookups);
		fsd_leave(fs);
	}
	fuse_reply_none(req);
}

void fsd_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct fsd *fs = fsd_of(req);

	if (fsd_enter_as(fs, req, true)) {
		for (size_t i = 0; i < count; i++)
			fsd_inode_forget(fs, forgets[i].ino, forgets[i].nlookup);
		fsd_leave(fs);
	}
	fuse_reply_none(req);
}
