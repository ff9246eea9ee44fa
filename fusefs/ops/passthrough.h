/* The backing files of -shm files, which the kernel reads and maps by itself. */
#ifndef FUSEFS_PASSTHROUGH_H
#define FUSEFS_PASSTHROUGH_H

#include "mount/fuse.h"
#include "mount/mount.h"

/* The backing id with which an open is answered, one reference more; 0: the kernel does not want it. */
int fsd_backing_get(struct fsd *fs, fuse_req_t req, struct fsd_inode *inode);
void fsd_backing_put(struct fsd *fs, fuse_req_t req, struct fsd_inode *inode);

#endif
