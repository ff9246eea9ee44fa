/* The checks before a node starts. Nothing on disk changes. [main thread] */
#ifndef FUSEFS_CHECKS_H
#define FUSEFS_CHECKS_H

#include <limits.h>
#include "daemon/start.h"

#define FSD_JOIN_TIMEOUT_MS 15000

/* The state of one start, on top of the mount that it makes. */
struct fsd_start {
	struct fsd *fs;
	const struct fsd_options *options;
	char *errmsg;
	char mountpoint[PATH_MAX], data[PATH_MAX], raft[PATH_MAX + 32];
	bool has_identity, has_raft;
	bool made_data, made_state; /* by this start */
	int listen_fd;
};

/* All checks. 0, or -errno with one line; nothing on disk was changed. */
int fsd_start_check(struct fsd_start *st);

#endif
