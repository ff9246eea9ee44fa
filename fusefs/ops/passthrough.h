/* Passthrough: the kernel reads, writes and maps the backing file of a -shm by itself. */
#ifndef FUSEFS_PASSTHROUGH_H
#define FUSEFS_PASSTHROUGH_H

#include "mount/fuse.h"

struct fsd_inode;

/* The backing id with which the open of a -shm is answered. To be given back when the descriptor is closed. 0: the
 * kernel does not want the file. [request threads] */
int fsd_backing_get(fuse_req_t req, struct fsd_inode *inode);
void fsd_backing_put(fuse_req_t req, struct fsd_inode *inode);

#endif
