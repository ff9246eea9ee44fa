/* Requests in walrepl's hands.
 *
 * A handler that may have to wait begins a `struct fsd_pend`, hands its op to walrepl, and returns. The op's `done`
 * replies, on the thread that learned the outcome or on the handler's own, and is the last to touch the pend.
 */
#ifndef FUSEFS_PENDING_H
#define FUSEFS_PENDING_H

#include <sys/queue.h>
#include "mount/fuse.h"
#include "mount/mount.h"

struct fsd_inode;

/* A request in walrepl's hands. */
struct fsd_pend {
	struct wrep_op op; /* first: walrepl hands this back */
	struct fsd *fs;
	fuse_req_t req;
	pid_t tid; /* the thread that asks */
	_Atomic unsigned refs;
	void (*unused)(
		struct fsd_pend *pend); /* instead of free(), with the last reference; or NULL */
	struct fsd_inode *inode;	/* a reference, or NULL */
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
	/* and when it is refused; refusals.c's alone */
	int error;
	bool answered;
	uint64_t late_ns;
	STAILQ_ENTRY(fsd_pend) refused;

	/* opens that wait */
	bool for_name; /* what waits is a lookup, or the open of a directory ... */
	bool is_known; /* ... of which an answer of before is there */
	/* open_queue.c's alone */
	uint64_t since_ms;
	bool listed;
	TAILQ_ENTRY(fsd_pend) waiting;

	/* creates that a stand-in holds back (standin.c's alone) */
	SLIST_ENTRY(fsd_pend) held;
};

/* With one reference; NULL: out of memory. */
struct fsd_pend *fsd_pend_new(struct fsd *fs, fuse_req_t req);
void fsd_pend_init(struct fsd_pend *pend, struct fsd *fs, fuse_req_t req);
void fsd_pend_unref(struct fsd_pend *pend);

static inline struct fsd_pend *fsd_pend_of(struct wrep_op *op)
{
	return (struct fsd_pend *)op;
}

/* The beginning and the end of a handler whose request walrepl may answer later, by `done`:
 *
 *	pend = fsd_pend_begin(req, done);
 *	if (!pend || !fsd_pend_find_inode(pend, ino))
 *		return;
 *	fsd_pend_end(fs, pend, wrep_...(..., &pend->op));
 *
 * The request has entered before. Where the beginning fails (NULL, false) it has been answered and has left, and
 * there is no pend. The end leaves, too; it calls `done`, unless `rv` is WREP_PENDING: then another thread does,
 * or already has. */
struct fsd_pend *fsd_pend_begin(fuse_req_t req, void (*done)(struct wrep_op *op, int result));
bool fsd_pend_find_inode(struct fsd_pend *pend, uint64_t number);
bool fsd_pend_set_name(struct fsd_pend *pend, const char *name);
void fsd_pend_end(struct fsd *fs, struct fsd_pend *pend, int rv);

/* fsd_enter_to_write() and fsd_pend_begin() in one. */
struct fsd_pend *fsd_pend_enter_to_write(fuse_req_t req,
					 void (*done)(struct wrep_op *op, int result));

/* As `done`, for what is answered with nothing but an error, or none. */
void fsd_plain_done(struct wrep_op *op, int result);

#endif
