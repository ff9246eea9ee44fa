/* Write requests that are refused: see refusals.c. */
#ifndef FUSEFS_REFUSALS_H
#define FUSEFS_REFUSALS_H

#include "mount/fuse.h"
#include "mount/mount.h"

struct fsd_pend;
struct fsd_refusals;

/* Makes fs->refusals and its threads, before the session's first request. 0 or -errno. */
int fsd_refusals_start(struct fsd *fs);
/* Answers what waits, and ends them; nothing, if they were not started. The session must still answer requests. From then on refusals are
 * answered at once: the kernel's cache ends with the session. */
void fsd_refusals_stop(struct fsd *fs);

/* Take what `pend` was about to write out of the kernel's cache, and answer it with `error` (positive). Takes
 * `pend`, whose `ino`, `off` and `size` say what that is; size 0: all of the file, and its attributes.
 * [any thread; waits for nothing] */
void fsd_refusals_push(struct fsd_pend *pend, int error);

/* There is no memory for a write's pend. NULL: nor is there this one, which is another's. It is used again once nobody refers to it. */
struct fsd_pend *fsd_refusals_spare(struct fsd *fs, fuse_req_t req);

#endif
