#include "ops/passthrough.h"

#include <pthread.h>
#include "ops/inode.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* the inodes' `backing_` fields */

/* All opens of a -shm share one backing id: the kernel wants that. */
int fsd_backing_get(fuse_req_t req, struct fsd_inode *inode)
{
	int rv = 0;

	pthread_mutex_lock(&lock);
	if (!inode->backing_id)
		inode->backing_id = fuse_passthrough_open(req, wrep_file_fd(inode->file));
	if (inode->backing_id > 0) {
		rv = inode->backing_id;
		inode->backing_opens++;
	} else {
		inode->backing_id = 0;
	}
	pthread_mutex_unlock(&lock);
	return rv;
}

void fsd_backing_put(fuse_req_t req, struct fsd_inode *inode)
{
	pthread_mutex_lock(&lock);
	if (!--inode->backing_opens) {
		fuse_passthrough_close(req, inode->backing_id);
		inode->backing_id = 0;
	}
	pthread_mutex_unlock(&lock);
}
