/* The other side of a fetch: what a peer gets. */
#ifndef WALREPL_REPAIR_PAGE_SERVER_H
#define WALREPL_REPAIR_PAGE_SERVER_H

#include "base/wrep.h"

void wrep_page_server_start(struct wrep *w, int fd, uint64_t from_id);
void wrep_page_servers_stop(
	struct wrep *w); /* the node stops, or is about to fetch: ends them, and waits */

#endif
