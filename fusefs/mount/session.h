/* libfuse's session: the connection to the kernel, and the threads that read from it. */
#ifndef FUSEFS_SESSION_H
#define FUSEFS_SESSION_H

#include "mount/fuse.h"
#include "mount/mount.h"

struct fsd_session;

/* Make fs->session, which checks the mount options (separated by commas, or NULL) and changes
 * nothing yet. `ops` get `fs` as their userdata. 0, or -errno with one line. */
int fsd_session_prepare(struct fsd *fs, const struct fuse_lowlevel_ops *ops, const char *options,
			char errmsg[FSD_ERRMSG_SIZE]);

/* Mount it there. 0 or -errno; then fsd_session_complaint() is libfuse's word for it. [main thread] */
int fsd_session_mount(struct fsd_session *s, const char *where);
const char *fsd_session_complaint(const char *otherwise);

/* Serve, and wait for the kernel's first request. 0, or -errno with one line. [main thread] */
int fsd_session_start(struct fsd *fs, char errmsg[FSD_ERRMSG_SIZE]);

/* End it. Requests of applications that still have files open fail from now on. Does nothing to one that
 * is not there. [main thread] */
void fsd_session_stop(struct fsd *fs);

/* Told by the INIT request. [request thread] */
void fsd_session_init_done(struct fsd_session *s, bool passthrough);

/* Did the last request for the root's attributes come over io_uring? [any thread] */
void fsd_session_note_uring(struct fsd_session *s, bool uring);
bool fsd_session_is_over_uring(struct fsd_session *s);

/* Drop what the kernel has cached of the inode: its attributes, and these bytes of its content (0: all from `off`
 * on). 0; what the kernel says: -ENOENT, -ENOTCONN and -ENODEV mean that there is nothing of it. Waits for
 * reads of it that are on their way. [any thread that serves no request] */
int fsd_session_invalidate(struct fsd_session *s, uint64_t number, uint64_t off, uint64_t len);

#endif
