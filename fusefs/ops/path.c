/* Requests name a thing by the number of its directory and its name there; walrepl knows it by its path.
 * A directory keeps its path for as long as it lives. One that is gone, or whose name is another's by now,
 * answers ESTALE, on which the kernel walks the path again.
 */
#include "ops/path.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "node/identity.h"
#include "ops/inode.h"

#define NAME_BYTES 255

int fsd_path(struct fsd *fs, fuse_ino_t parent, const char *name, char path[FSD_PATH_SIZE])
{
	struct fsd_inode *inode;
	int rv = 0;

	if (strlen(name) > NAME_BYTES)
		return -ENAMETOOLONG;
	if (parent == FUSE_ROOT_ID) {
		strcpy(path, name);
		return 0;
	}
	inode = fsd_inode_find(fs, parent);
	if (!inode)
		return -ESTALE;
	if (!inode->dir)
		rv = -ENOTDIR;
	else if (wrep_dir_is_gone(inode->dir))
		rv = -ESTALE;
	else if (snprintf(path, FSD_PATH_SIZE, "%s/%s", wrep_dir_path(inode->dir), name) >=
		 FSD_PATH_SIZE)
		rv = -ENAMETOOLONG;
	fsd_inode_unref(fs, inode);
	return rv;
}

void fsd_inherit(struct fsd *fs, fuse_ino_t parent, gid_t *gid, mode_t *dir_mode)
{
	struct fsd_inode *inode;
	struct stat st;
	int rv;

	if (parent == FUSE_ROOT_ID) {
		rv = fstat(fs->data_fd, &st);
	} else {
		inode = fsd_inode_find(fs, parent);
		rv = inode && inode->dir ? wrep_dir_stat(inode->dir, &st) : -ESTALE;
		if (inode)
			fsd_inode_unref(fs, inode);
	}
	if (rv || !(st.st_mode & S_ISGID))
		return;
	*gid = st.st_gid;
	if (dir_mode)
		*dir_mode |= S_ISGID;
}

bool fsd_is_hidden(fuse_ino_t parent, const char *name)
{
	return parent == FUSE_ROOT_ID && !strncmp(name, FSD_STATE_DIR, strlen(FSD_STATE_DIR));
}
