/* A database that an application creates on a node which may not write: what it has open until there is one.
 * standin.c tells the story.
 */
#ifndef FUSEFS_STANDIN_H
#define FUSEFS_STANDIN_H

#include <sys/stat.h>
#include "mount/fuse.h"
#include "mount/mount.h"

struct fsd_inode;
struct fsd_pend;
struct fsd_standins;

/* NULL: out of memory. */
struct fsd_standins *fsd_standins_new(void);

/* Does an open with these flags get one? Others are refused. */
bool fsd_standin_suits(int flags);

/* Answer a create that walrepl refused with EROFS, now or later; takes the pend, whose `name` is the path and
 * whose `attr` says mode and owner. Counted among the files that applications have open. [any thread] */
void fsd_standin_create(struct fsd_pend *pend);

/* End the thread, and let go of all locks. Creates are refused from now on. [main thread] */
void fsd_standins_stop(struct fsd *fs);

/* The descriptor by which it is locked becomes one by which the applier has the database open; -ENOENT: there is
 * none. [applier] */
int fsd_standin_hand_over(struct fsd *fs, struct fsd_inode *inode);
/* That, or the one that locks a stand-in, is closed. Takes its reference of the inode. */
void fsd_standin_release_lock(struct fsd *fs, struct fsd_inode *inode);

/* For host.c; see struct wrep_host. */
bool fsd_standins_appears(struct fsd *fs, const char *name, struct wrep_file *file);
void fsd_standins_let_go(struct fsd *fs, const char *name);

#endif
