/* The operations, one file for each kind, and what they share. Includers define FUSE_USE_VERSION and
 * include fuse_lowlevel.h first.
 */
#ifndef FUSEFS_OPS_H
#define FUSEFS_OPS_H

#include "mount/mount.h"
#include "ops/inode.h"

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

/* Answers READ and GETATTR (of which the kernel makes one within a read behind the end that it knows).
 * SQLite takes EIO, ENXIO and ERANGE of a read for a damaged file system and reports SQLITE_CORRUPT (unixRead()
 * in its os_unix.c), and there are applications that remove the database then, on all nodes. Nothing that
 * ends a read here is cured by that, a bad sector of this node's disk included: they get EBADMSG instead,
 * a plain I/O error. */
void fsd_reply_read_err(fuse_req_t req, int rv);

/* Enter with a request that changes something and that walrepl may answer later, by `done`. NULL: it has been
 * answered. */
struct fsd_pend *fsd_pend_enter(fuse_req_t req, void (*done)(struct wrep_op *op, int result));
/* As `done`, for what is answered with nothing but an error, or none. */
void fsd_plain_done(struct wrep_op *op, int result);

/* Our own files in the data directory are not there for anybody. */
bool fsd_is_hidden(fuse_ino_t parent, const char *name);

/* The path that `name` in a directory means, room for it and a side file's suffix. 0; -ESTALE: the
 * directory is gone; -ENOTDIR, -ENAMETOOLONG. Only once inside. */
#define FSD_PATH_SIZE (WREP_PATH_MAX + 16)
int fsd_path(struct fsd *fs, fuse_ino_t parent, const char *name, char path[FSD_PATH_SIZE]);

/* What is made in a directory with the set-group-ID bit gets its group; a directory the bit, too. */
void fsd_inherit(struct fsd *fs, fuse_ino_t parent, gid_t *gid, mode_t *dir_mode);

/* EPERM, and a log line that names the rule. */
void fsd_refuse(fuse_req_t req, const char *what, const char *name);

/* 0 or -errno. */
/* Seconds for which the kernel may keep the name, and the attributes. */
double fsd_name_timeout(const struct fsd_inode *inode);
double fsd_attr_timeout(const struct fsd_inode *inode, const struct stat *st);
int fsd_inode_attr(struct fsd_inode *inode, struct stat *st);

/* ops_attr.c */
void fsd_lookup_reply(struct fsd *fs, fuse_req_t req, fuse_ino_t parent, const char *name);
void fsd_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void fsd_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups);
void fsd_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void fsd_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fsd_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int valid,
		    struct fuse_file_info *fi);

/* ops_file.c */
void fsd_app_opens_sub(struct fsd *fs);
/* A descriptor of an application is closed. Takes its reference of the inode. */
void fsd_release_app(struct fsd *fs, struct fsd_inode *inode);
void fsd_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fsd_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		   struct fuse_file_info *fi);
void fsd_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fsd_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void fsd_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fsd_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void fsd_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
		  struct fuse_file_info *fi);
void fsd_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);

/* ops_name.c */
void fsd_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void fsd_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void fsd_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
		   const char *newname, unsigned int flags);

/* ops_dir.c */
void fsd_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fsd_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fsd_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi);

#endif
