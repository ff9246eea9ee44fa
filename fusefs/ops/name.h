/* Names made, removed and changed. */
#ifndef FUSEFS_NAME_H
#define FUSEFS_NAME_H

#include "mount/fuse.h"

void fsd_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void fsd_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void fsd_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
		   const char *newname, unsigned int flags);
void fsd_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);

#endif
