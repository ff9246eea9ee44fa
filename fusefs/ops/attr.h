/* Attributes, and their changes. */
#ifndef FUSEFS_ATTR_H
#define FUSEFS_ATTR_H

#include "mount/fuse.h"
#include "ops/inode.h"

/* Seconds for which the kernel may keep the attributes. */
double fsd_attr_timeout(const struct fsd_inode *inode, const struct stat *st);
/* 0 or -errno. */
int fsd_inode_attr(struct fsd_inode *inode, struct stat *st);

void fsd_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fsd_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int valid,
		    struct fuse_file_info *fi);

#endif
