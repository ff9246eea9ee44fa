/* The data directory of a node that does not run: found and locked, so that no daemon starts meanwhile. */
#ifndef FUSEFS_STOPPED_H
#define FUSEFS_STOPPED_H

#include <limits.h>
#include "node/identity.h"

struct fsd_stopped {
	char data[PATH_MAX];	  /* absolute */
	char raft[PATH_MAX + 32]; /* the log's directory */
	int state_fd;
	int lock_fd; /* -1: there is no lock to take, or nothing can be written there */
};

/* `given`: as with --data. 0, or -errno after a complaint. */
int fsd_stopped_open(const char *given, struct fsd_stopped *node);
void fsd_stopped_close(struct fsd_stopped *node);

/* 0, or after a complaint -ENOENT: the node has no log yet; -EINPROGRESS: a recovery of it was begun and
 * not finished, so that its log may be that of one cluster or the other. */
int fsd_stopped_has_log(const struct fsd_stopped *node, const struct fsd_identity *identity);

#endif
