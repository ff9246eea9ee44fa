/* What walrepl calls up for. */
#ifndef FUSEFS_HOST_H
#define FUSEFS_HOST_H

#include "mount/mount.h"

extern const struct wrep_host fsd_host; /* its ctx is a struct fsd */

#endif
