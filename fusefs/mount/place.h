/* Where the mount is seen: at the mount point, at first aside if a dead one is in its place. */
#ifndef FUSEFS_PLACE_H
#define FUSEFS_PLACE_H

#include "mount/mount.h"

struct fsd_place;

/* NULL: out of memory. */
struct fsd_place *fsd_place_new(void);

/* At the mount point is the dead mount of a daemon that was killed: take its place. Before
 * fsd_place_mount(). [main thread] */
void fsd_place_replaces_dead(struct fsd_place *p);
bool fsd_place_is_dead(const struct fsd_place *p);

/* Mount the session, serve, and open the clone. 0, or -errno with one line: then nothing is to be seen, and the
 * session is to be stopped. [main thread] */
int fsd_place_mount(struct fsd *fs, char errmsg[FSD_ERRMSG_SIZE]);

/* The minor number of the file system's device (its major is 0), which is its FUSE connection's number. */
unsigned fsd_place_device(const struct fsd_place *p);

/* A descriptor which poll(2) knows for POLLPRI when the machine's mounts have changed; -errno. It stays open.
 * [main thread] */
int fsd_place_watch(struct fsd_place *p);

/* Is the mount that users see still there? */
bool fsd_place_is_visible(const struct fsd *fs);

/* Take the visible mount away; files that are open stay usable. */
void fsd_place_detach(struct fsd *fs);

#endif
