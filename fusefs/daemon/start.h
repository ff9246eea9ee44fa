/* From options to a running mount. */
#ifndef FUSEFS_START_H
#define FUSEFS_START_H

#include "mount/kernel.h"
#include "mount/mount.h"

#define FSD_MATCH_MAX 64

struct fsd_options {
	const char *mountpoint;
	const char *data, *listen, *join, *log, *mount_options; /* NULL: not given */
	const char *match[FSD_MATCH_MAX + 1];			/* NULL-terminated */
	bool foreground;
	enum fsd_uring uring;
	uint64_t log_bytes, scrub_rate;			 /* 0: walrepl's default */
	unsigned commit_timeout_ms, election_timeout_ms; /* 0: raftlog's default */
	uint64_t max_transaction_bytes;			 /* 0: walrepl's default */
};

/* Check everything, then make what is missing, then mount. 0: serve.c may run, with `*control_fd`.
 * -errno with one line that names the remedy: nothing is mounted, and if a check failed nothing was
 * changed on disk. */
int fsd_start(struct fsd *fs, const struct fsd_options *options, int *control_fd,
	      char errmsg[FSD_ERRMSG_SIZE]);

#endif
