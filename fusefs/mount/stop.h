/* The end of the daemon is asked for. */
#ifndef FUSEFS_STOP_H
#define FUSEFS_STOP_H

#include "mount/mount.h"

/* Ask serve.c's loop to end, with this exit code. [any thread] */
void fsd_stop(struct fsd *fs, int exit_code);
void fsd_wake(struct fsd *fs);

#endif
