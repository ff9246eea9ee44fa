/* The other side of a fetch: what a peer gets. */
#ifndef WALREPL_REPAIR_PAGE_SERVER_H
#define WALREPL_REPAIR_PAGE_SERVER_H

#include "base/wrep.h"

void wrep_offer(struct wrep *w, int fd, uint64_t from_id);
void wrep_offers_stop(
	struct wrep *w); /* the node stops, or is about to fetch: ends them, and waits */

#endif
