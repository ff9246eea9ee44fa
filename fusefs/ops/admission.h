/* Admission: which requests may call walrepl.
 *
 * Every request that calls walrepl enters, and leaves, on one thread. While walrepl stops, requests that may change
 * something are refused; once it is to be closed, all are.
 */
#ifndef FUSEFS_ADMISSION_H
#define FUSEFS_ADMISSION_H

#include "mount/fuse.h"
#include "mount/mount.h"

struct fsd_admission;

/* It only goes down this list. */
enum fsd_admits {
	FSD_ADMITS_ALL,
	FSD_ADMITS_READING, /* the applier's own, and what changes nothing, while walrepl stops */
	FSD_ADMITS_NONE,    /* walrepl is closed */
};

/* NULL: out of memory. */
struct fsd_admission *fsd_admission_new(void);

struct fsd *fsd_of(fuse_req_t req);

/* Does the request come from walrepl's applier, or the cleaner? Asks walrepl: only once inside. */
bool fsd_is_internal(struct fsd *fs, fuse_req_t req);
/* The cleaner's thread (refusals.c). */
void fsd_admission_set_cleaner(struct fsd *fs, pid_t tid);

/* False: walrepl is closing, and an answer must be made without it. `internal`: the handle says that the applier
 * opened it. A request that may change something, or submit to the log, enters to write: it is refused first. */
bool fsd_enter_as(struct fsd *fs, fuse_req_t req, bool internal);
bool fsd_enter_to_write_as(struct fsd *fs, fuse_req_t req, bool internal);
void fsd_leave(struct fsd *fs);

/* The same; when it returns false the request has been answered. A request that reads, or finds a name, gets
 * ENOTCONN, which the kernel itself answers once the session is gone; one that writes gets EIO. */
bool fsd_enter(struct fsd *fs, fuse_req_t req);
bool fsd_enter_to_write(struct fsd *fs, fuse_req_t req);

/* Refuse further requests, and wait until those inside that it would refuse have left. FSD_ADMITS_READING while
 * walrepl's applier lives, FSD_ADMITS_NONE afterwards. [main thread] */
void fsd_admission_restrict(struct fsd *fs, enum fsd_admits admits);

/* Are walrepl's files still there? After FSD_ADMITS_NONE they are not, and this process soon is not. */
bool fsd_admission_is_shut(struct fsd *fs);

#endif
