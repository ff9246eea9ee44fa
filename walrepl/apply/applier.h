/* The applier's thread. All functions of the applier are called by its thread, without a lock held, except where it
 * says otherwise.
 */
#ifndef WALREPL_APPLY_APPLIER_H
#define WALREPL_APPLY_APPLIER_H

#include "base/work.h"
#include "db/db.h"

#define WREP_FULL_RETRY_MS 250 /* between attempts at a full disk, or for want of descriptors */

int wrep_applier_start(struct wrep *w);
void wrep_applier_stop(struct wrep *w); /* the queue is closed */
void wrep_applier_end_rest(
	struct wrep *w); /* and once nobody pushes any more: what has come since */

/* What may be done while something is waited for: the opens that are queued. Applier only. */
void wrep_serve_opens(struct wrep *w);
/* Wait until an attempt that a shortage ended is worth another. `logged`: when a full disk was last told of. Applier only. */
void wrep_wait_for_space(struct wrep *w, const char *name, int rc, uint64_t *logged);

#endif
