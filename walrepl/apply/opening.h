/* An application opens a database. */
#ifndef WALREPL_APPLY_OPENING_H
#define WALREPL_APPLY_OPENING_H

#include "base/work.h"
#include "db/db.h"

enum { WREP_OP_OPEN, WREP_OP_CREATE }; /* wrep_op.state: does a failure own op->file? */

/* The last steps of an open, on whatever thread: holds the database, and counts an application's, unless
 * it is refused. `op` tells who asks; NULL: `internal`. 0, as wrep_db_pin(), -EAGAIN: then
 * it is to be put off, or -errno. db->lock held. */
int wrep_file_opened(struct wrep_file *f, int flags, bool internal, struct wrep_op *op);
void wrep_op_drop_file(struct wrep_op *op);
void wrep_op_finish_open(struct wrep_op *op, int result);
/* An open of `f` that met others (-EAGAIN) waits until they are gone. WREP_PENDING or -errno. No lock held. */
typedef int wrep_put_off_fn(struct wrep_file *f, int flags, struct wrep_op *op);
/* An open of `f`, or of whatever has the name of `db`: for wrep_open_park() or wrep_open_push(), else to be dropped.
 * It can be interrupted from then on. */
struct wrep_work *wrep_open_new(struct wrep_db *db, struct wrep_file *f, int flags,
				wrep_put_off_fn *put_off, struct wrep_op *op);
/* 0 when this node has caught up; until then WREP_PENDING, and `*work`, taken, is queued when it has. -ENOTCONN: the
 * node stops. */
int wrep_open_park(struct wrep *w, struct wrep_work **work);
void wrep_open_push(struct wrep_work *work); /* into the applier's queue */
/* This node has caught up: those that are parked go into the queue. */
void wrep_opens_resume(struct wrep *w);
void wrep_opens_end(struct wrep *w); /* the node is closing: end them */

#endif
