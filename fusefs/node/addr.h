/* HOST:PORT addresses of nodes: a name or an IPv4 address, or an IPv6 address in brackets. */
#ifndef FUSEFS_ADDR_H
#define FUSEFS_ADDR_H

#include "node/errmsg.h"
#include "walrepl.h"

#define FSD_ADDRESS_SIZE RLOG_ADDRESS_MAX

/* Split `address`. The brackets of an IPv6 address go. A port is a number up to 65535. 0 or -EINVAL. */
int fsd_addr_split(const char *address, char host[FSD_ADDRESS_SIZE], char port[FSD_ADDRESS_SIZE]);

/* A socket listening at `address`; port 0 lets the kernel choose. `actual` (FSD_ADDRESS_SIZE bytes)
 * gets the address as given with the port that it became. The descriptor, or -errno with one line
 * that names the remedy. */
int fsd_addr_listen(const char *address, char *actual, char errmsg[FSD_ERRMSG_SIZE]);

/* Does somebody listen at `address`? Connects and hangs up. 0, or -errno with `errmsg`. */
int fsd_addr_probe(const char *address, unsigned timeout_ms, char errmsg[FSD_ERRMSG_SIZE]);

#endif
