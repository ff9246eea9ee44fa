/* Whole sends and receives over a socket, by whoever waits for them. [any thread] */
#ifndef RAFTLOG_WHOLE_H
#define RAFTLOG_WHOLE_H

#include <stddef.h>

/* How a caller waits: until `fd` is ready for `events` of poll(), or no longer. 0 (perhaps it is), or -errno, with
 * which the send or receive ends. */
struct rlog_waiter {
	int (*wait)(void *arg, int fd, short events);
	void *arg;
};

/* All of it: 0, or -errno; -ECONNRESET where the other side has closed. The socket may be a blocking one. */
int rlog_send_whole(int fd, const void *bytes, size_t len, const struct rlog_waiter *waiter);
int rlog_receive_whole(int fd, void *bytes, size_t len, const struct rlog_waiter *waiter);

#endif
