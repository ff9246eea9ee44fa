/* Requests that walrepl answers later, and the list of opens among them. */
#ifndef FUSEFS_OPENS_H
#define FUSEFS_OPENS_H

#include "inode.h"

struct fuse_req;

/* A request in walrepl's hands. */
struct fsd_pend {
	struct wrep_op op; /* first: walrepl hands this back */
	struct fsd *fs;
	struct fuse_req *req;
	struct fsd_inode *inode; /* a reference, or NULL */
	bool internal;
	int flags;	       /* open and create: O_... */
	uint64_t parent;       /* lookup */
	char *name;	       /* lookup; owned */
	size_t size;	       /* write: bytes */
	struct wrep_attr attr; /* setattr: what is still to do once the size is changed */

	/* opens that wait */
	pid_t tid;
	bool listed; /* opens_lock */
	_Atomic unsigned refs;
	struct fsd_pend *next, *prev; /* opens_lock */
};

struct fsd_pend *fsd_pend_new(struct fsd *fs, struct fuse_req *req);
void fsd_pend_unref(struct fsd_pend *pend);

/* Wait until the node has caught up, interruptibly. 0, WREP_PENDING (then `ready` is called, once,
 * from another thread), -errno. */
int fsd_wait_ready(struct fsd_pend *pend, void (*ready)(struct wrep_op *op, int result));

/* An open begins, or has ended. Between the two it may be interrupted. */
void fsd_opens_add(struct fsd_pend *pend);
void fsd_opens_remove(struct fsd_pend *pend);

/* Interrupt the opens whose callers have a signal to handle. Milliseconds until it wants to be
 * called again, -1 when no open waits. [serve.c's loop] */
int fsd_opens_tick(struct fsd *fs);

#endif
