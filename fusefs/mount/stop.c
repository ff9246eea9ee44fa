/* The end of the daemon is asked for. */
#include "mount/stop.h"

#include <unistd.h>

void fsd_wake(struct fsd *fs)
{
	uint64_t one = 1;

	/* Fails only when it is more than awake already. */
	if (write(fs->wake_fd, &one, sizeof(one)) < 0)
		return;
}

void fsd_stop(struct fsd *fs, int exit_code)
{
	if (exit_code)
		atomic_store(&fs->exit_code, exit_code);
	atomic_store(&fs->stopping, true);
	fsd_wake(fs);
}
