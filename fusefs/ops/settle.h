/* Whether the kernel has taken in what it was told of a file's size, see settle.c. */
#ifndef FUSEFS_SETTLE_H
#define FUSEFS_SETTLE_H

#include "mount/mount.h"

struct fsd_inode;
struct fsd_settling;

/* NULL: out of memory. */
struct fsd_settling *fsd_settling_new(void);

/* A SETATTR of the file is about to be answered. Before its size is looked up. [any thread] */
void fsd_settle_tell(struct fsd_inode *inode);

/* A request has come that the kernel sends under its lock of the file. Before it is served. [any thread] */
void fsd_settle_heard(struct fsd *fs, struct fsd_inode *inode);
/* The same of the file at `path`, should the kernel know one. */
void fsd_settle_heard_path(struct fsd *fs, const char *path);

/* Wait until the kernel has taken in every size that was looked up before. `fd`: the file, opened through the
 * mount. 0 or -errno. [a thread that requests may wait for] */
int fsd_settle(struct fsd *fs, struct fsd_inode *inode, int fd);

#endif
