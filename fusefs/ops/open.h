/* Files opened and created. */
#ifndef FUSEFS_OPEN_H
#define FUSEFS_OPEN_H

#include "mount/fuse.h"

void fsd_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fsd_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		   struct fuse_file_info *fi);

#endif
