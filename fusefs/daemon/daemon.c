#include "daemon/daemon.h"

#include <stdlib.h>
#include "daemon/host.h"
#include "mount/clone.h"
#include "mount/place.h"
#include "mount/session.h"
#include "node/stop.h"
#include "ops/admission.h"
#include "ops/handle.h"
#include "ops/inode.h"
#include "ops/open_queue.h"
#include "ops/refusals.h"
#include "ops/settle.h"
#include "ops/standin.h"

struct fsd *fsd_new(void)
{
	struct fsd *fs = calloc(1, sizeof(*fs));

	if (!fs)
		return NULL;
	fs->data_fd = fs->state_fd = fs->shm_fd = fs->lock_fd = -1;
	fs->stop = fsd_stop_new();
	fs->place = fsd_place_new();
	fs->clone = fsd_clone_new();
	fs->admission = fsd_admission_new();
	fs->inodes = fsd_inodes_new();
	fs->handles = fsd_handles_new();
	fs->open_queue = fsd_open_queue_new();
	fs->settling = fsd_settling_new();
	fs->standins = fsd_standins_new();
	fs->host = fsd_host_new();
	if (fs->stop && fs->place && fs->clone && fs->admission && fs->inodes && fs->handles &&
	    fs->open_queue && fs->settling && fs->standins && fs->host)
		return fs;
	return NULL; /* and with it the process ends */
}

void fsd_end_session(struct fsd *fs)
{
	fsd_refusals_stop(fs); /* while the requests are served that it may wait for */
	fsd_clone_drop(fs->clone);
	fsd_session_stop(fs);
}
