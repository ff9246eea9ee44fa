/* Parses the addresses of nodes, opens the listening socket, and asks whether a peer is there. */
#include "node/addr.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "walrepl.h"

int fsd_addr_split(const char *address, char host[FSD_ADDRESS_SIZE], char port[FSD_ADDRESS_SIZE])
{
	size_t port_len;

	if (rlog_address_split(address, host, port))
		return -EINVAL;
	if (address[0] != '[' && strchr(host, ':'))
		return -EINVAL;
	/* Brackets that are left belong to no pair. */
	if (strpbrk(host, " \t/@,[]"))
		return -EINVAL;
	port_len = strlen(port);
	if (port_len > 5 || strspn(port, "0123456789") != port_len ||
	    strtoul(port, NULL, 10) > 65535)
		return -EINVAL;
	return 0;
}

static int resolve(const char *address, struct addrinfo **list, char errmsg[FSD_ERRMSG_SIZE])
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	char host[FSD_ADDRESS_SIZE], port[FSD_ADDRESS_SIZE];
	int rv;

	if (fsd_addr_split(address, host, port))
		return fsd_fail(
			errmsg, -EINVAL,
			"%s is not an address: give HOST:PORT, for example 127.0.0.1:4001 or "
			"[::1]:4001",
			address);
	rv = getaddrinfo(host, port, &hints, list);
	if (rv)
		return fsd_fail(errmsg, -EHOSTUNREACH, "cannot find the host %s: %s", host,
				rv == EAI_SYSTEM ? strerror(errno) : gai_strerror(rv));
	return 0;
}

static int is_wildcard(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET)
		return ((const struct sockaddr_in *)sa)->sin_addr.s_addr == htonl(INADDR_ANY);
	if (sa->sa_family == AF_INET6)
		return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)sa)->sin6_addr);
	return 0;
}

int fsd_addr_listen(const char *address, char *actual, char errmsg[FSD_ERRMSG_SIZE])
{
	struct addrinfo *list;
	struct sockaddr_storage sa;
	socklen_t sa_len = sizeof(sa);
	char service[NI_MAXSERV];
	int fd, one = 1;
	int rv = resolve(address, &list, errmsg);

	if (rv)
		return rv;
	if (is_wildcard(list->ai_addr)) {
		snprintf(errmsg, FSD_ERRMSG_SIZE,
			 "--listen %s is no address that other nodes can dial: give one of this "
			 "machine's own",
			 address);
		rv = -EINVAL;
		goto out;
	}
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		rv = -errno;
		snprintf(errmsg, FSD_ERRMSG_SIZE, "cannot make a socket: %s", strerror(-rv));
		goto out;
	}
	/* A restart must not wait for the connections of the last run to leave TIME_WAIT. */
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, list->ai_addr, list->ai_addrlen) || listen(fd, 128) ||
	    getsockname(fd, (struct sockaddr *)&sa, &sa_len)) {
		rv = -errno;
		if (rv == -EADDRINUSE)
			snprintf(errmsg, FSD_ERRMSG_SIZE,
				 "the address %s is in use: give another with --listen HOST:PORT, "
				 "or stop what uses it",
				 address);
		else if (rv == -EADDRNOTAVAIL)
			snprintf(errmsg, FSD_ERRMSG_SIZE,
				 "%s is not an address of this machine: give one of its own with "
				 "--listen HOST:PORT",
				 address);
		else
			snprintf(errmsg, FSD_ERRMSG_SIZE, "cannot listen at %s: %s", address,
				 strerror(-rv));
		close(fd);
		goto out;
	}
	if (getnameinfo((struct sockaddr *)&sa, sa_len, NULL, 0, service, sizeof(service),
			NI_NUMERICSERV)) {
		snprintf(errmsg, FSD_ERRMSG_SIZE, "cannot tell the port of %s", address);
		close(fd);
		rv = -EIO;
		goto out;
	}
	snprintf(actual, FSD_ADDRESS_SIZE, "%.*s:%s", (int)(strrchr(address, ':') - address),
		 address, service);
	rv = fd;
out:
	freeaddrinfo(list);
	return rv;
}

int fsd_addr_probe(const char *address, unsigned timeout_ms, char errmsg[FSD_ERRMSG_SIZE])
{
	struct addrinfo *list;
	int rv = resolve(address, &list, errmsg);

	if (rv)
		return rv;
	for (struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		int soerr = 0;
		socklen_t len = sizeof(soerr);
		struct pollfd pfd = {.fd = fd, .events = POLLOUT};

		if (fd < 0) {
			rv = -errno;
			continue;
		}
		rv = connect(fd, ai->ai_addr, ai->ai_addrlen) ? -errno : 0;
		if (rv == -EINPROGRESS) {
			if (poll(&pfd, 1, (int)timeout_ms) <= 0)
				rv = -ETIMEDOUT;
			else
				rv = getsockopt(fd, SOL_SOCKET, SO_ERROR, &soerr, &len) ? -errno
											: -soerr;
		}
		close(fd);
		if (!rv)
			break;
	}
	freeaddrinfo(list);
	if (rv)
		return fsd_fail(
			errmsg, rv,
			"no node answers at --join %s (%s): give the address of a running member",
			address, strerror(-rv));
	return 0;
}
