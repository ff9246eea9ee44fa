/* File handles, and how many files applications have open. */
#ifndef FUSEFS_HANDLE_H
#define FUSEFS_HANDLE_H

#include "mount/mount.h"

struct fsd_handles;
struct fsd_inode;

/* A file handle is the inode, with a reference, whether the applier opened it, and whether what is written
 * through it goes past the kernel's cache. */
#define FSD_FH_INTERNAL 1ull
#define FSD_FH_UNCACHED 2ull
/* The handle of a stand-in (standin.h) may be that by which the daemon locks it, or another one of the daemon's own,
 * which counts for nothing. */
#define FSD_FH_LOCK 4ull
#define FSD_FH_UNCOUNTED 8ull
#define FSD_FH_BITS (FSD_FH_INTERNAL | FSD_FH_UNCACHED | FSD_FH_LOCK | FSD_FH_UNCOUNTED)

static inline struct fsd_inode *fsd_fh_inode(uint64_t fh)
{
	return (struct fsd_inode *)(uintptr_t)(fh & ~FSD_FH_BITS);
}

static inline bool fsd_fh_internal(uint64_t fh)
{
	return fh & FSD_FH_INTERNAL;
}

/* NULL: out of memory. */
struct fsd_handles *fsd_handles_new(void);

/* Files that applications have open, or are opening. When there are none left the main loop is woken. [any
 * thread] */
void fsd_app_opens_add(struct fsd *fs);
void fsd_app_opens_sub(struct fsd *fs);
long fsd_app_opens(struct fsd *fs);

/* A descriptor of an application is closed. Takes its reference of the inode. [any thread] */
void fsd_release_app(struct fsd *fs, struct fsd_inode *inode);

#endif
