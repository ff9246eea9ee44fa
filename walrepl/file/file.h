/* Requests for files, and what they share. */
#ifndef WALREPL_FILE_FILE_H
#define WALREPL_FILE_FILE_H

#include "db/db.h"

/* The last steps of an open, on whatever thread: holds the database, and counts an application's, unless
 * it is refused. `op` tells who asks; NULL: `internal`. 0, as wrep_db_hold(), -EAGAIN: then
 * wrep_departure_open(), or -errno. db->lock held. */
int wrep_file_opened(struct wrep_file *f, int flags, bool internal, struct wrep_op *op);
/* An open that had to wait: as wrep_file_open(), but what it returns is for wrep_op_finish_open(). */
int wrep_file_open_again(struct wrep_file *f, int flags, struct wrep_op *op);
enum { WREP_OP_OPEN, WREP_OP_CREATE }; /* wrep_op.state: does a failure own op->file? */
void wrep_op_finish_open(struct wrep_op *op, int result);

#endif
