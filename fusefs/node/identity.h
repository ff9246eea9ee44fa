/* The node's identity, DATA/.dqlitefs/node, and the lock that one daemon at a time holds on DATA. */
#ifndef FUSEFS_IDENTITY_H
#define FUSEFS_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "node/addr.h"
#include "walrepl.h"

#define FSD_STATE_DIR WREP_STATE_DIR /* within the data directory; 0700 */
#define FSD_NODE_FILE "node"
#define FSD_LOCK_FILE "lock"
#define FSD_LOG_DIR "raft"
#define FSD_CONTROL_SOCKET "control"
#define FSD_LOG_FILE "log"

enum fsd_identity_state {
	FSD_STARTING, /* chosen; its own new cluster may not exist yet */
	FSD_JOINING,  /* chosen; may or may not be a member of the cluster it asked */
	FSD_MEMBER,   /* its log exists */
	/* `cluster` is new, and the log may still be that of the old one: dqlitefs recover has to be
	 * run again */
	FSD_RECOVERING,
};

struct fsd_identity {
	uint32_t node;	  /* never 0 */
	uint64_t cluster; /* 0 while it joins and has not been told */
	enum fsd_identity_state state;
	char address[FSD_ADDRESS_SIZE];
};

/* Read it from the state directory. 0, -ENOENT, or -errno with one line. */
int fsd_identity_read(int state_fd, struct fsd_identity *out, char errmsg[FSD_ERRMSG_SIZE]);

/* Replace it; durable when this returns 0. Else -errno with one line. */
int fsd_identity_write(int state_fd, const struct fsd_identity *identity,
		       char errmsg[FSD_ERRMSG_SIZE]);

/* A random number that is not 0. */
uint32_t fsd_identity_random32(void);
uint64_t fsd_identity_random64(void);

/* Take the lock; with `create`, make its file. The descriptor holds it. -ENOENT without the file;
 * -EWOULDBLOCK when another daemon has it: its process id, or 0, is in `*owner`. */
int fsd_identity_lock(int state_fd, bool create, pid_t *owner);

/* Leave this process's id in the lock's file, for the next one's message. 0 or -errno. */
int fsd_identity_sign_lock(int lock_fd);

#endif
