/* Clients of the daemon: the connections of the control socket.
 *
 * serve.c's loop owns them and calls everything here. None waits for another: the loop reads requests from
 * all of them, and each request is answered (control.c) by a thread of its own, so one that takes long, or a
 * client that says nothing, delays nobody. There are FSD_CLIENTS_MAX at most: for one more, the one that has
 * been silent for longest goes.
 *
 * A descriptor is kept back, so that `status` answers when there are none left.
 */
#ifndef FUSEFS_CLIENTS_H
#define FUSEFS_CLIENTS_H

#include <poll.h>

struct fsd;
struct fsd_clients;

#define FSD_CLIENTS_MAX 32
#define FSD_CLIENTS_POLLED (1 + FSD_CLIENTS_MAX)

/* `listen_fd` passes to it. NULL: out of memory. */
struct fsd_clients *fsd_clients_new(struct fsd *fs, int listen_fd);

/* Fill in what is to be polled, FSD_CLIENTS_POLLED at most; returns how many. (poll(2) wants no more of them
 * than the process may have descriptors.) `*ms`: when fsd_clients_turn() wants to be called at the latest,
 * from now, or -1. A thread that has an answer calls fsd_stop_wake(). */
unsigned fsd_clients_watch(struct fsd_clients *c, struct pollfd *fds, int *ms);
/* Do what poll() found in them. */
void fsd_clients_turn(struct fsd_clients *c, const struct pollfd *fds);

/* Wait for the answers that threads are at, send them, hang up. */
void fsd_clients_free(struct fsd_clients *c);

#endif
