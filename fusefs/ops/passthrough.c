/* The backing files of -shm files, which the kernel reads and maps by itself. */
#include "ops/passthrough.h"

#include "ops/inode.h"

/* All opens of a -shm share one backing id: the kernel wants that. */
int fsd_backing_get(struct fsd *fs, fuse_req_t req, struct fsd_inode *inode)
{
	int rv = 0;

	pthread_mutex_lock(&fs->backing_lock);
	if (!inode->backing_id)
		inode->backing_id = fuse_passthrough_open(req, wrep_file_fd(inode->file));
	if (inode->backing_id > 0) {
		rv = inode->backing_id;
		inode->backing_opens++;
	} else {
		inode->backing_id = 0;
	}
	pthread_mutex_unlock(&fs->backing_lock);
	return rv;
}

void fsd_backing_put(struct fsd *fs, fuse_req_t req, struct fsd_inode *inode)
{
	pthread_mutex_lock(&fs->backing_lock);
	if (!--inode->backing_opens) {
		fuse_passthrough_close(req, inode->backing_id);
		inode->backing_id = 0;
	}
	pthread_mutex_unlock(&fs->backing_lock);
}
