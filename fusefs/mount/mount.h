/* One mounted directory: what the files of this folder share.
 *
 * Threads. Request threads (libfuse's, one per CPU or a pool) run ops.c and never wait. walrepl's
 * applier calls host.c; replies to requests that waited come from walrepl's and raftlog's threads.
 * The main thread starts and stops the mount and, between, runs the loop of serve.c.
 *
 * Lock order: `backing_lock` or `standins.lock`, then `inode_lock`; `opens_lock`, `up_lock` and `settle_lock`
 * by themselves. Nothing calls walrepl while holding one of them, except for reference counts, and
 * wrep_file_adopt().
 */
#ifndef FUSEFS_MOUNT_H
#define FUSEFS_MOUNT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "mount/guard.h"
#include "mount/kernel.h"
#include "mount/locktrace.h"
#include "node/addr.h"
#include "node/identity.h"
#include "walrepl.h"

struct fuse_session;
struct fuse_lowlevel_ops;
struct fsd_inode;
struct fsd_pend;
struct fsd_refusals;

#define FSD_INODE_BUCKETS 1024

/* Every write that SQLite makes fits in one request (its pages end at 64 KiB), and the kernel's
 * read-ahead is 128 KiB: larger requests would only make the rings' buffers larger. */
#define FSD_MAX_WRITE (128u << 10)

/* Requests in flight for each CPU's ring. A request that waits keeps its place, so opens, the only
 * ones that wait without an end in sight, may take half of the places only (see opens.c). */
#define FSD_RING_DEPTH 32
#define FSD_OPENS_MAX (FSD_RING_DEPTH / 2)

/* Whose open was given up, and when. */
#define FSD_GIVEN_UP 16
struct fsd_given_up {
	pid_t tid;
	uint64_t at_ms;
};

/* The stand-ins, see standin.c. */
struct fsd_standin;
struct fsd_standins {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct fsd_standin *first; /* lock, like the rest */
	pthread_t thread;
	bool running, stopped;
	_Atomic pid_t tid; /* the thread's */
};
void fsd_standins_init(struct fsd_standins *all);

/* Where the mount is in its life. Guard: up_lock. */
enum fsd_up { FSD_NOT_YET, FSD_INIT_DONE, FSD_UP, FSD_GONE };

/* Which requests may call walrepl. */
enum fsd_gate {
	FSD_GATE_OPEN,	  /* all */
	FSD_GATE_READING, /* the applier's own, and what changes nothing, while walrepl stops */
	FSD_GATE_SHUT,	  /* none: walrepl is closed */
};

struct fsd {
	/* set before the threads start, constant then */
	char *mountpoint, *data_path;
	int data_fd, state_fd, shm_fd, lock_fd;
	int wake_fd;   /* an eventfd that wakes serve.c's loop */
	int mounts_fd; /* serve.c: /proc/self/mountinfo, or -1 */
	bool uring;
	unsigned commit_timeout_ms;
	unsigned names_timeout_ms; /* without progress, names are told as of before */
	unsigned connection;	   /* minor number of the file system's device (its major is 0) */
	bool dead_mount;	   /* at the mount point, of a daemon that was killed */
	struct fsd_identity identity;
	struct fsd_guard guard;
	struct wrep *wrep;
	struct fuse_session *session;
	pthread_t session_thread;
	bool session_started;
	int mount_id;

	/* session.c */
	pthread_mutex_t up_lock;
	pthread_cond_t up_changed;
	enum fsd_up up;	  /* up_lock */
	int clone_fd;	  /* up_lock: a private clone of the mount */
	int clone_dir_fd; /* up_lock: its directory, opened: file handles want that */
	bool passthrough; /* up_lock: what INIT said */

	/* ops.c */
	_Atomic int gate;		  /* enum fsd_gate */
	_Atomic unsigned inside;	  /* requests that are past the gate */
	_Atomic unsigned inside_to_write; /* those of them that may change something */
	_Atomic pid_t applier;	 /* FSD_GATE_READING: the thread that may; walrepl may be gone */
	_Atomic long app_opens;	 /* files that applications have open, or are opening */
	_Atomic bool over_uring; /* the last request for the root's attributes came that way */

	/* inode.c */
	pthread_mutex_t inode_lock;
	_Atomic uint64_t next_id;
	struct fsd_inode *inodes[FSD_INODE_BUCKETS]; /* inode_lock */
	pthread_mutex_t backing_lock;

	/* opens.c */
	pthread_mutex_t opens_lock;
	struct fsd_pend *opens_first, *opens_last; /* opens_lock: waiting opens, oldest first */
	unsigned opens_count;			   /* opens_lock */
	uint64_t progress,
		progress_ms; /* opens_lock: wrep_progress(), and when it was last seen to change */
	struct fsd_given_up given_up[FSD_GIVEN_UP]; /* opens_lock: a ring, the last ones */
	unsigned given_up_count;		    /* opens_lock */

	/* settle.c */
	pthread_mutex_t settle_lock;
	pthread_cond_t settle_changed;

	/* refusals.c */
	struct fsd_refusals *refusals; /* set before the first request */
	_Atomic pid_t cleaner;

	struct fsd_standins standins;

	/* host.c */
	struct fsd_locktrace locktrace;
	struct rlog_view last_view; /* raftlog's thread only */
	_Atomic bool stopping;	    /* somebody asked serve.c's loop to end */
	_Atomic int exit_code;
};

#endif
