/* Whole sends and receives over a socket. */
#include "whole.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <sys/socket.h>

int rlog_send_whole(int fd, const void *bytes, size_t len, const struct rlog_waiter *waiter)
{
	const uint8_t *at = bytes;

	while (len > 0) {
		ssize_t n = send(fd, at, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		int rv;

		if (n > 0) {
			at += n;
			len -= (size_t)n;
			continue;
		}
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		rv = waiter->wait(waiter->arg, fd, POLLOUT);
		if (rv != 0)
			return rv;
	}
	return 0;
}

int rlog_receive_whole(int fd, void *bytes, size_t len, const struct rlog_waiter *waiter)
{
	uint8_t *at = bytes;

	while (len > 0) {
		ssize_t n = recv(fd, at, len, MSG_DONTWAIT);
		int rv;

		if (n > 0) {
			at += n;
			len -= (size_t)n;
			continue;
		}
		if (n == 0)
			return -ECONNRESET;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		rv = waiter->wait(waiter->arg, fd, POLLIN);
		if (rv != 0)
			return rv;
	}
	return 0;
}
