/* What delivery has for the floors below it. */
#ifndef WALREPL_REPLICA_H
#define WALREPL_REPLICA_H

#include "base/wrep.h"
#include "state/parts.h"

struct wrep_db;
struct wrep_item;

/* Index of the first entry of the oldest transaction in parts that is open, or committed but not in the
 * files yet; 0 when there is none. The log must keep what is there from it on, and a snapshot must lie
 * before it: a node that lacked a part would judge the COMMIT otherwise than the rest. db->lock held. */
uint64_t wrep_parts_first_index(const struct wrep_db *db);
/* The transaction of `parts` (NULL: it had none) is committed, and queued for the applier; later, it is
 * in the files. db->lock held. */
void wrep_parts_queued(struct wrep_db *db, struct wrep_parts *parts);
void wrep_parts_applied(struct wrep_db *db, struct wrep_parts *parts);
/* An entry of `term` was delivered: open transactions of older terms have no COMMIT to come. Takes
 * the locks it needs. [any thread] */
void wrep_parts_drop_dead(struct wrep *w, uint64_t term);

/* The same when the applier has done it. Fills in buf and what is the request's, which is freed. */
void wrep_meta_push(struct wrep *w, struct wrep_item *item, struct rlog_buf *buf,
		    struct rlog_request *req);
/* It is removed, as the log says: no entry finds it any more. */
void wrep_db_unlinked(struct wrep_db *db);

#endif
