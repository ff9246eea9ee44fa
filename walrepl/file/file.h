/* Requests for files, and what they share. */
#ifndef WALREPL_FILE_FILE_H
#define WALREPL_FILE_FILE_H

#include "db/db.h"

/* A transaction is larger than it may be: a line that says so. Returns -ENOSPC. */
int wrep_refuse_large(struct wrep_db *db);
/* The last steps of an open, on whatever thread: holds the database, and counts an application's, unless
 * it is refused. `op` tells who asks; NULL: `internal`. 0, as wrep_db_hold(), -EAGAIN: then
 * wrep_departure_open(), or -errno. db->lock held. */
int wrep_file_opened(struct wrep_file *f, int flags, bool internal, struct wrep_op *op);
/* An open that had to wait: as wrep_file_open(), but what it returns is for wrep_op_finish_open(). */
int wrep_file_open_again(struct wrep_file *f, int flags, struct wrep_op *op);
/* The overlay of the database, empty where there was none. db->lock held. */
int wrep_overlay_begin(struct wrep_file *f);
/* Is there anything in the -wal, old frames included? db->lock held. */
bool wrep_wal_has_frames(struct wrep_db *db);
/* Does the -journal hold what undoes the writes that come now? db->lock held. */
bool wrep_journal_is_hot(struct wrep_db *db);
enum { WREP_OP_OPEN, WREP_OP_CREATE }; /* wrep_op.state: does a failure own op->file? */
void wrep_op_finish_open(struct wrep_op *op, int result);
/* Does the committed image say WAL? (bytes 18 and 19 of page 1, the file format versions) */
static inline bool wrep_page1_is_wal(const uint8_t *page1)
{
	return page1[18] == 2 && page1[19] == 2;
}

#endif
