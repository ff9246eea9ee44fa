/* Files that applications have open. */
#include "ops/handle.h"

#include "mount/stop.h"

void fsd_app_opens_sub(struct fsd *fs)
{
	/* The last one to go may be what an unmounted directory was waiting for. */
	if (atomic_fetch_sub(&fs->app_opens, 1) == 1)
		fsd_wake(fs);
}

void fsd_release_app(struct fsd *fs, struct fsd_inode *inode)
{
	if (!inode->standin || !fsd_standin_release(fs, inode))
		wrep_file_release(inode->file, false);
	fsd_inode_unref(fs, inode);
	fsd_app_opens_sub(fs);
}
