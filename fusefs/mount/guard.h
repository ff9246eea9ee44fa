/* The guard: a tiny process that sees to it that a killed daemon ends.
 *
 * The daemon opens files of its own mount, and tells the kernel to drop cached ranges of it. Killed
 * while one of its threads waits for such a thing, that thread waits for good: the others, who
 * would answer, are dead; but /dev/fuse, whose closing would end all requests, stays open, because
 * the waiting thread shares the table of open files. Mount and data directory would stay locked
 * until somebody aborts the connection by hand. The guard is that somebody.
 *
 * It has one end of a socket, the connection's `abort` file, and the mount. That file belongs to one
 * connection, never to a later one under the same number, and has no effect once the connection is
 * gone. The mount it keeps until the daemon is gone (guard.c says why).
 */
#ifndef FUSEFS_GUARD_H
#define FUSEFS_GUARD_H

#include "node/errmsg.h"

struct fsd_guard;

/* Make the guard. Before /dev/fuse is opened; nothing is guarded yet. 0, or -errno with one line: then `*out` is
 * NULL. It is never freed, since a crash may still want it. [main thread] */
int fsd_guard_start(struct fsd_guard **out, char errmsg[FSD_ERRMSG_SIZE]);

/* Guard the connection of this number, which is the minor number of the mount's st_dev, from now on,
 * against a crash of the daemon too. At most once, while nobody uses the mount. 0 or -errno.
 * [main thread] */
int fsd_guard_watch(struct fsd_guard *guard, unsigned connection);

/* Keep what `fd` refers to until the daemon is gone, or the guard is stopped. `fd` stays the caller's. At
 * any time after fsd_guard_watch(). 0 or -errno. [main thread] */
int fsd_guard_hold(struct fsd_guard *guard, int fd);

/* End the guard, and wait until it is gone. The connection is aborted, if it is still there. Does
 * nothing to NULL. [main thread] */
void fsd_guard_stop(struct fsd_guard *guard);

/* In place of a guard that was killed too, before somebody looks at a mount: if one of ours is at
 * `mountpoint` (absolute, resolved), and its daemon was killed and hangs, abort its connection. */
void fsd_guard_stand_in(const char *mountpoint);

#endif
