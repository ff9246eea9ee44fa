/* Requests for a stand-in are answered. standin.c tells the story. */
#ifndef FUSEFS_STANDIN_FILE_H
#define FUSEFS_STANDIN_FILE_H

#include <sys/stat.h>
#include "mount/fuse.h"
#include "mount/mount.h"

struct fsd_inode;

/* All take an inode with neither a file nor a directory. [request threads] */
int fsd_standin_attr(const struct fsd_inode *inode, struct stat *st);
/* One more descriptor. 0 or -errno. `*fh_bits`: what its handle says of it (handle.h); not 0: it is one of the
 * daemon's own. */
int fsd_standin_open(fuse_req_t req, struct fsd_inode *inode, int flags, uint64_t *fh_bits);
/* The answer to a read, or a change. 0 or -errno. */
int fsd_standin_read(const struct fsd_inode *inode);
int fsd_standin_change(const struct fsd_inode *inode);

/* An application's descriptor is closed. False: it is one of the database by now. */
bool fsd_standin_release(struct fsd *fs, struct fsd_inode *inode);

#endif
