/* walrepl's calls up: files opened through the mount, the kernel's cache and locks, logging, and the
 * end of the daemon.
 */
#ifndef FUSEFS_HOST_H
#define FUSEFS_HOST_H

#include "mount/mount.h"

struct fsd_host;

/* NULL: out of memory. */
struct fsd_host *fsd_host_new(void);

extern const struct wrep_host fsd_host_calls; /* their ctx is a struct fsd */

#endif
