/* What a file handle holds, and the files that applications have open. */
#ifndef FUSEFS_HANDLE_H
#define FUSEFS_HANDLE_H

#include "ops/inode.h"
#include "ops/standin.h"

/* A file handle is the inode, with a reference, whether the applier opened it, and whether what is written
 * through it goes past the kernel's cache; of a stand-in, whether it is no application's (standin.h). */
#define FSD_FH_INTERNAL 1ull

#define FSD_FH_UNCACHED 2ull

#define FSD_FH_BITS (FSD_FH_INTERNAL | FSD_FH_UNCACHED | FSD_FH_LOCK | FSD_FH_UNCOUNTED)

static inline struct fsd_inode *fsd_fh_inode(uint64_t fh)
{
	return (struct fsd_inode *)(uintptr_t)(fh & ~FSD_FH_BITS);
}

static inline bool fsd_fh_internal(uint64_t fh)
{
	return fh & FSD_FH_INTERNAL;
}

/* ops_file.c */
void fsd_app_opens_sub(struct fsd *fs);
/* A descriptor of an application is closed. Takes its reference of the inode. */
void fsd_release_app(struct fsd *fs, struct fsd_inode *inode);

#endif
