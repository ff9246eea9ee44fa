/* The control socket, and the daemon's answers to requests. */
#ifndef FUSEFS_CONTROL_H
#define FUSEFS_CONTROL_H

#include "mount/mount.h"

/* The socket in the state directory. A listening descriptor, or -errno with one line. */
int fsd_control_listen(int state_fd, char errmsg[FSD_ERRMSG_SIZE]);

/* The line that answers a request, to be freed; NULL: out of memory. [any thread] */
char *fsd_control_answer(struct fsd *fs, const char *request);

#endif
