/* The stand-ins, as standin.c, standin_file.c and standin_thread.c share them. */
#ifndef FUSEFS_STANDIN_INTERNAL_H
#define FUSEFS_STANDIN_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/queue.h>
#include <time.h>
#include "guarded.h"
#include "mount/mount.h"

struct fsd_inode;
struct fsd_pend;

SLIST_HEAD(held_pends, fsd_pend);

/* How it ends. Open -> created or taken. */
enum standin_state { STANDIN_OPEN, STANDIN_CREATED, STANDIN_TAKEN };

struct fsd_standin {
	SLIST_ENTRY(fsd_standin) entry; /* lock, like all down to the next comment */
	struct held_pends held;		/* creates that are not answered */
	unsigned opens;			/* those, and the descriptors of applications */
	int lock_fd;			/* through the mount, RESERVED held; -1 */
	enum standin_state state;
	bool submitted; /* the entry that creates it is on its way from here */
	bool handed;	/* lock_fd went to the applier */
	/* the thread's own */
	uint64_t not_before_ms;
	/* constant */
	struct fsd *fs;
	struct fsd_inode *inode; /* a reference, while it is in the list */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	struct timespec made;
	char path[];
};

struct fsd_standins {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	SLIST_HEAD(, fsd_standin) list GUARDED_BY(lock);
	pthread_t thread;
	bool is_running GUARDED_BY(lock), is_stopped GUARDED_BY(lock);
	_Atomic pid_t tid; /* the thread's */
};

#endif
