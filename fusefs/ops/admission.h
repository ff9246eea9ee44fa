/* The gate: which requests may call walrepl. */
#ifndef FUSEFS_ADMISSION_H
#define FUSEFS_ADMISSION_H

#include "mount/fuse.h"
#include "mount/mount.h"

struct fsd *fsd_of(fuse_req_t req);

/* Does the request come from walrepl's applier, or the cleaner? Asks walrepl: only once inside. */
bool fsd_is_internal(struct fsd *fs, fuse_req_t req);

/* Every request that calls walrepl enters, and leaves, on one thread. False: walrepl is closing, and an answer
 * must be made without it. `internal`: the handle says that the applier opened it. What may change something,
 * or submit to the log, enters to write: it is refused first. */
bool fsd_enter_as(struct fsd *fs, fuse_req_t req, bool internal);
bool fsd_enter_to_write_as(struct fsd *fs, fuse_req_t req, bool internal);
void fsd_leave(struct fsd *fs);

/* The same; when it returns false the request has been answered. What reads, or finds a name, gets ENOTCONN,
 * which is what the kernel itself answers once the session is gone; what writes gets EIO. */
bool fsd_enter(struct fsd *fs, fuse_req_t req);
bool fsd_enter_to_write(struct fsd *fs, fuse_req_t req);

/* Refuse further requests as `gate` says, and wait until those inside that it would refuse have left. */
void fsd_ops_close_gate(struct fsd *fs, enum fsd_gate gate);

#endif
