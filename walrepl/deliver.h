/* Committed entries, as raftlog hands them over. [loop, unless it says otherwise] */
#ifndef WALREPL_DELIVER_H
#define WALREPL_DELIVER_H

#include "base/wrep.h"

/* As struct rlog_callbacks' `apply`; `ctx` is a struct wrep. Takes w->delivery. */
int wrep_deliver(void *ctx, uint64_t index, uint64_t term, struct rlog_buf *buf,
		 struct rlog_request *req);
/* If this node leads, and everything before its barrier is delivered: what is open of older terms has no
 * COMMIT to come, and a DISCARD is submitted. The other nodes cannot tell before they see an entry of this
 * term. No lock held. */
void wrep_deliver_discard_dead(struct wrep *w);
/* An entry of `term` was delivered: open transactions of older terms have no COMMIT to come. Takes
 * the locks it needs. [any thread] */
void wrep_parts_drop_dead(struct wrep *w, uint64_t term);

#endif
