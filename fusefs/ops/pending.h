/* Requests that walrepl answers later. */
#ifndef FUSEFS_PENDING_H
#define FUSEFS_PENDING_H

#include "mount/fuse.h"
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

/* Enter with a request that changes something and that walrepl may answer later, by `done`. NULL: it has been
 * answered. */
struct fsd_pend *fsd_pend_enter(fuse_req_t req, void (*done)(struct wrep_op *op, int result));
/* As `done`, for what is answered with nothing but an error, or none. */
void fsd_plain_done(struct wrep_op *op, int result);

#endif
