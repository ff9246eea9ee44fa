/* One mounted directory: what is constant while it serves, and its rooms, each of them a struct that its own file
 * alone knows.
 *
 * Threads. Request threads (libfuse's, one per CPU or a pool) run ops/ and never wait. walrepl's applier calls
 * daemon/host.c; replies to requests that waited come from walrepl's and raftlog's threads. The main thread starts
 * and stops the mount and, between, runs the loop of daemon/serve.c.
 *
 * Lock order: the lock of passthrough.c or that of the stand-ins, then that of the inodes; all others by
 * themselves. Nothing calls walrepl while holding one of them, except for reference counts, and
 * wrep_file_adopt().
 */
#ifndef FUSEFS_MOUNT_H
#define FUSEFS_MOUNT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "node/identity.h"
#include "walrepl.h"

/* Every write that SQLite makes fits in one request (its pages end at 64 KiB), and the kernel's
 * read-ahead is 128 KiB: larger requests would only make the rings' buffers larger. */
#define FSD_MAX_WRITE (128u << 10)

/* Requests in flight for each CPU's ring. A request that waits keeps its place, so opens, the only
 * ones that wait without an end in sight, may take half of the places only (see open_queue.c). */
#define FSD_RING_DEPTH 32
#define FSD_OPENS_MAX (FSD_RING_DEPTH / 2)

struct fsd {
	/* set before the threads start, constant then */
	char *mountpoint, *data_path;
	int data_fd, state_fd, shm_fd, lock_fd;
	bool uring;
	unsigned commit_timeout_ms;
	unsigned names_timeout_ms; /* without progress, names are told as of before */
	struct fsd_identity identity;
	struct wrep *wrep;

	struct fsd_stop *stop; /* node/ */

	struct fsd_guard *guard; /* mount/ */
	struct fsd_session *session;
	struct fsd_place *place;
	struct fsd_clone *clone;

	struct fsd_admission *admission; /* ops/ */
	struct fsd_inodes *inodes;
	struct fsd_handles *handles;
	struct fsd_open_queue *open_queue;
	struct fsd_refusals *refusals;
	struct fsd_settling *settling;
	struct fsd_standins *standins;

	struct fsd_host *host; /* daemon/ */
};

#endif
