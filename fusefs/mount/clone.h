/* The private clone of the mount. */
#ifndef FUSEFS_CLONE_H
#define FUSEFS_CLONE_H

#include "mount/mount.h"

/* Wait until the private clone is there. Its directory, opened, or -ENOTCONN once the mount is gone.
 * [applier] */
int fsd_mount_wait(struct fsd *fs);

/* The same within `dir_fd`, which is fsd_mount_wait()'s. */
int fsd_open_by_number(int dir_fd, uint64_t number, int flags);
/* Open the file of that number through the mount's private clone. A descriptor, -ESTALE (its name is another's by
 * now), -ENOTCONN (the mount is not there), -errno. [any thread that the mount does not wait for] */
int fsd_open_inode(struct fsd *fs, uint64_t number, int flags);

/* Make it, once the mount is there. 0 or -errno. [main thread] */
int fsd_mount_open_clone(struct fsd *fs);
/* Let go of those who wait for the clone, and of the clone. */
void fsd_mount_drop_clone(struct fsd *fs);

#endif
