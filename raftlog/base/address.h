/* HOST:PORT as text, and as what connect() wants. [any thread] */
#ifndef RAFTLOG_ADDRESS_H
#define RAFTLOG_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>
#include "raftlog.h"

/* Resolve HOST:PORT or [HOST]:PORT; only literal addresses unless `names`. 0, -EINVAL, -ENOENT. */
int rlog_address_resolve(const char *address, bool names, struct sockaddr_storage *out,
			 socklen_t *len);

#endif
