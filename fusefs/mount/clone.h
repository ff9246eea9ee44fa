/* The private clone of the mount, attached nowhere.
 *
 * The daemon itself uses only the clone, so its open files never keep the visible mount busy; the file system lives
 * until both are gone and nobody has a file open.
 */
#ifndef FUSEFS_CLONE_H
#define FUSEFS_CLONE_H

#include "mount/mount.h"

struct fsd_clone;

/* It is awaited from now on. NULL: out of memory. */
struct fsd_clone *fsd_clone_new(void);

/* Make it, now that the mount is there: this asks the daemon itself, and so proves that the way is open. 0 or
 * -errno. [main thread] */
int fsd_clone_open(struct fsd *fs);

/* Let go of those who wait for it, and of it. [main thread] */
void fsd_clone_drop(struct fsd_clone *c);

bool fsd_clone_is_there(struct fsd_clone *c);

/* Wait until it is there. Its directory, opened, or -ENOTCONN once the mount is gone. [applier] */
int fsd_clone_wait(struct fsd_clone *c);

/* Open the file of that number in it, where `dir_fd` is fsd_clone_wait()'s. By number, since a walk to the name
 * may want the directory's lock. A descriptor, -ESTALE (its name is another's by now), -errno. */
int fsd_clone_open_within(int dir_fd, uint64_t number, int flags);

/* The same, without waiting for it: -ENOTCONN when it is not there. [any thread that the mount does not wait
 * for] */
int fsd_clone_open_file(struct fsd_clone *c, uint64_t number, int flags);

#endif
