/* The file system's operations. */
#ifndef FUSEFS_OPS_H
#define FUSEFS_OPS_H

#include "mount/fuse.h"

extern const struct fuse_lowlevel_ops fsd_ops;

#endif
