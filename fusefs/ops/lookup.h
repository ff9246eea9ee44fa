/* Names looked up, and forgotten by the kernel. */
#ifndef FUSEFS_LOOKUP_H
#define FUSEFS_LOOKUP_H

#include "mount/fuse.h"
#include "ops/inode.h"

/* Seconds for which the kernel may keep the name. */
double fsd_name_timeout(const struct fsd_inode *inode);

void fsd_lookup_reply(struct fsd *fs, fuse_req_t req, fuse_ino_t parent, const char *name);

void fsd_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void fsd_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups);
void fsd_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);

#endif
