/* libfuse's low-level API, of the version that is written for. */
#ifndef FUSEFS_FUSE_H
#define FUSEFS_FUSE_H

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include <fuse_lowlevel.h>

#endif
