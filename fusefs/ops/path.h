/* The path that a name in a directory means. */
#ifndef FUSEFS_PATH_H
#define FUSEFS_PATH_H

#include "mount/fuse.h"
#include "mount/mount.h"
#include "walrepl.h"

/* Our own files in the data directory are not there for anybody. */
bool fsd_is_hidden(fuse_ino_t parent, const char *name);

/* The path that `name` in a directory means, room for it and a side file's suffix. 0; -ESTALE: the
 * directory is gone; -ENOTDIR, -ENAMETOOLONG. Only once inside. */
#define FSD_PATH_SIZE (WREP_PATH_MAX + 16)
int fsd_path(struct fsd *fs, fuse_ino_t parent, const char *name, char path[FSD_PATH_SIZE]);

/* A file or directory made in a directory with the set-group-ID bit gets its group; a directory the bit, too. */
void fsd_inherit(struct fsd *fs, fuse_ino_t parent, gid_t *gid, mode_t *dir_mode);

#endif
