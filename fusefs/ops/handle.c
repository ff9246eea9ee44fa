#include "ops/handle.h"

#include <stdatomic.h>
#include <stdlib.h>
#include "node/stop.h"
#include "ops/inode.h"
#include "ops/standin_file.h"

struct fsd_handles {
	_Atomic long of_apps;
};

struct fsd_handles *fsd_handles_new(void)
{
	return calloc(1, sizeof(struct fsd_handles));
}

void fsd_app_opens_add(struct fsd *fs)
{
	atomic_fetch_add(&fs->handles->of_apps, 1);
}

void fsd_app_opens_sub(struct fsd *fs)
{
	/* The last one to go may be what an unmounted directory was waiting for. */
	if (atomic_fetch_sub(&fs->handles->of_apps, 1) == 1)
		fsd_stop_wake(fs->stop);
}

long fsd_app_opens(struct fsd *fs)
{
	return atomic_load(&fs->handles->of_apps);
}

void fsd_release_app(struct fsd *fs, struct fsd_inode *inode)
{
	if (!inode->standin || !fsd_standin_release(fs, inode))
		wrep_file_release(inode->file, false);
	fsd_inode_unref(fs, inode);
	fsd_app_opens_sub(fs);
}
