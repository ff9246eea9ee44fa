/* Requests that walrepl answers later, and the list of opens among them. */
#ifndef FUSEFS_OPENS_H
#define FUSEFS_OPENS_H

#include "ops/inode.h"

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
	struct wrep_attr attr; /* setattr: what is still to do once the size is changed */
	bool cuts;	       /* setattr: the size, too */

	/* write */
	uint64_t ino, off, size;
	bool cached;	   /* the kernel has put the bytes into its cache */
	bool written_back; /* they are of a dirty page of a mapping */
	/* and when it is refused (refusals.c; `next` is its list's) */
	int error;
	bool answered;
	uint64_t late_ns;
	bool spare; /* it is the one for when there is no memory */

	/* opens that wait */
	pid_t tid;
	bool for_name;	   /* what waits is a lookup, or the open of a directory ... */
	bool is_known;	   /* ... of which an answer of before is there */
	uint64_t since_ms; /* opens_lock */
	bool listed;	   /* opens_lock */
	_Atomic unsigned refs;
	struct fsd_pend *next, *prev; /* opens_lock; of a write, its guard is that of refusals.c */
};

struct fsd_pend *fsd_pend_new(struct fsd *fs, struct fuse_req *req);
void fsd_pend_unref(struct fsd_pend *pend);

/* Wait for a name until the node has caught up, interruptibly. 0, WREP_PENDING (then `ready` is called, once,
 * from another thread), -errno: -ETIMEDOUT when it makes no progress. */
int fsd_wait_ready(struct fsd_pend *pend, void (*ready)(struct wrep_op *op, int result));

/* An open begins (0, or -ETIMEDOUT where there is no sense in waiting), or has ended. Between the two it may be
 * interrupted, and given up: its op gets -ETIMEDOUT, of which its end logs a line. */
int fsd_opens_add(struct fsd_pend *pend);
void fsd_opens_remove(struct fsd_pend *pend, int result);

/* Interrupt the opens whose callers have a signal to handle, and give up those that have waited long enough.
 * Milliseconds until it wants to be called again, -1 when no open waits. [serve.c's loop] */
int fsd_opens_tick(struct fsd *fs);

/* Why this node cannot answer what it does not know, and what to do; NULL: it has caught up. */
const char *fsd_opens_reason(struct fsd *fs);

#endif
