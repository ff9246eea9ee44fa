/* The daemon's main loop. */
#ifndef FUSEFS_SERVE_H
#define FUSEFS_SERVE_H

#include "mount/mount.h"

/* Serve until a signal, an unmount or a failure ends it, then shut down in order. The process's
 * exit code. SIGTERM, SIGINT and SIGHUP are blocked in all threads. */
int fsd_serve(struct fsd *fs, int control_fd);

#endif
