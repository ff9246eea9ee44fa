/* The mount: libfuse's session, and the mount that users see. */
#ifndef FUSEFS_SESSION_H
#define FUSEFS_SESSION_H

#include "mount/mount.h"

/* Make the session, which checks the mount options (separated by commas, or NULL) and changes
 * nothing yet. 0, or -errno with one line. */
int fsd_mount_prepare(struct fsd *fs, const char *options, char errmsg[FSD_ERRMSG_SIZE]);

/* Mount and serve. 0, or -errno with one line; then nothing is mounted. */
int fsd_mount_start(struct fsd *fs, char errmsg[FSD_ERRMSG_SIZE]);

/* Is the mount that users see still there? */
bool fsd_mount_visible(const struct fsd *fs);

/* Take the visible mount away; files that are open stay usable. */
void fsd_mount_detach(struct fsd *fs);

/* End the session. Requests of applications that still have files open fail from now on. */
void fsd_mount_stop(struct fsd *fs);

/* Told by the INIT request. [request thread] */
void fsd_mount_init_done(struct fsd *fs, bool passthrough);

#endif
