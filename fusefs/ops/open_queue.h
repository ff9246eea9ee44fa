/* Opens that wait until the node has caught up. */
#ifndef FUSEFS_OPEN_QUEUE_H
#define FUSEFS_OPEN_QUEUE_H

#include "mount/mount.h"

struct fsd_open_queue;
struct fsd_pend;

/* NULL: out of memory. */
struct fsd_open_queue *fsd_open_queue_new(void);

/* Wait for a name until the node has caught up, interruptibly. 0, WREP_PENDING (then its op's `done` is called, once,
 * from another thread), -errno: -ETIMEDOUT when it makes no progress. */
int fsd_wait_ready(struct fsd_pend *pend);

/* An open begins (0, or -ETIMEDOUT where there is no sense in waiting), or has ended. Between the two it may be
 * interrupted, and given up: its op gets -ETIMEDOUT, of which its end logs a line. */
int fsd_opens_add(struct fsd_pend *pend);
void fsd_opens_remove(struct fsd_pend *pend, int result);

/* Interrupt the opens whose callers have a signal to handle, and give up those that have waited long enough.
 * Milliseconds until it wants to be called again, -1 when no open waits. [serve.c's loop] */
int fsd_opens_tick(struct fsd *fs);

/* Why this node cannot answer what it does not know, and what to do; NULL: it has caught up. */
const char *fsd_opens_reason(struct fsd *fs);

#endif
