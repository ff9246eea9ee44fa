/* An application opens a database. */
#ifndef WALREPL_APPLY_OPENING_H
#define WALREPL_APPLY_OPENING_H

#include "base/work.h"
#include "db/db.h"

enum { WREP_OP_OPEN, WREP_OP_CREATE }; /* wrep_op.state: does a failure own op->file? */

/* The last steps of an open, on whatever thread: holds the database, and counts an application's, unless
 * it is refused. `op` tells who asks; NULL: `internal`. 0, as wrep_db_hold(), -EAGAIN: then
 * wrep_postpone_open(), or -errno. db->lock held. */
int wrep_file_opened(struct wrep_file *f, int flags, bool internal, struct wrep_op *op);
void wrep_op_drop_file(struct wrep_op *op);
void wrep_op_finish_open(struct wrep_op *op, int result);
/* 0 when this node has caught up; until then WREP_PENDING, and `*item`, taken, is queued when it has. */
int wrep_wait_caught_up(struct wrep *w, struct wrep_item **item);

/* All below: [applier] */
/* Has what this item asks for nothing to wait for? w->lock held. */
bool wrep_open_can_be_served(const struct wrep_item *item);
/* While a fetch is due an open waits for its end. Takes the item. */
void wrep_open_serve(struct wrep *w, struct wrep_item *item, bool may_fold);
void wrep_ready_run(struct wrep *w, struct wrep_item *item);

#endif
