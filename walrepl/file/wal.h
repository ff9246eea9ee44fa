/* What an application may do to a -wal, and to the database by a checkpoint. db->lock held. */
#ifndef WALREPL_FILE_WAL_H
#define WALREPL_FILE_WAL_H

#include "db/db.h"

/* The capture of the -wal, should there be one. db->lock held. */
struct wrep_capture *wrep_wal_capture(struct wrep_db *db);
/* The capture looks at the -wal again, if that may hold more by now: behind a closed fence the daemon
 * writes it, and tells the capture when it is done. An application's checkpoint may be quicker.
 * db->lock held. */
bool wrep_wal_look_again(struct wrep_db *db);
/* A checkpoint copies committed pages into the database file; so nothing else is let through, and
 * nothing that the log does not hold can get there. db->lock held. */
int wrep_wal_check_checkpoint(struct wrep_db *db, const uint8_t *buf, size_t len, uint64_t off);
/* May the -wal be removed, cut to nothing or started over? SQLite does that only after a checkpoint of
 * all of it. Anything else (somebody's `rm`) would let this node's files fall back to former pages,
 * on which the next transactions are then built. db->lock held. */
bool wrep_wal_may_go(struct wrep_db *db);
/* Does a -wal of `size` bytes lack committed frames? (One that is only cut behind them,
 * PRAGMA journal_size_limit, does not.) db->lock held. */
bool wrep_wal_is_cut(struct wrep_db *db, uint64_t size);
/* Does the write replace the header of a -wal by another, so that its frames count no more? */
bool wrep_wal_starts_over(struct wrep_file *f, const uint8_t *buf, size_t len, uint64_t off);
/* When a transaction took no effect, its writer may not have written all of it yet: of a write that the kernel
 * split it was told that the first piece went well, and SQLite goes on behind that. It would complete
 * the transaction a second time, and wait for Raft as long again. So all is refused up to the write that
 * begins another one: with the frame behind the committed end, or a header. That is no other place if Raft
 * commits the former after all; then the end has moved, and the wal-index told the writer. The error is
 * that of the transaction: for SQLite a full disk is none of I/O. db->lock held. */
int wrep_wal_goes_on_with_ended(struct wrep_db *db, uint64_t off);

#endif
