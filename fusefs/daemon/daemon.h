/* The rooms of a mount (mount/mount.h) are made, and ended. */
#ifndef FUSEFS_DAEMON_H
#define FUSEFS_DAEMON_H

#include "mount/mount.h"

/* With all rooms that need no thread. NULL: out of memory. It lives as long as the process. */
struct fsd *fsd_new(void);

/* End the session, and what goes through the mount. The stop has been asked for. [main thread] */
void fsd_end_session(struct fsd *fs);

#endif
