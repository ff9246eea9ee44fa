/* Directories read. */
#ifndef FUSEFS_DIR_H
#define FUSEFS_DIR_H

#include "mount/fuse.h"

void fsd_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fsd_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fsd_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi);

#endif
