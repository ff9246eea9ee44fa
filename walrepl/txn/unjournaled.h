/* A database file written without a journal. */
#ifndef WALREPL_TXN_UNJOURNALED_H
#define WALREPL_TXN_UNJOURNALED_H

#include "base/work.h"
#include "db/db.h"
#include "guarded.h"
#include "txn/commit.h"

/* May the thread that asks write to the database file, and are the writes under a journal or do they begin a
 * session of their own? 0, -EBUSY, -EROFS; with a log line. WREP_PENDING: something comes first,
 * wrep_unjournaled_put_off(). -EAGAIN: others have it open, wrep_departure_...(). db->lock held. */
int wrep_unjournaled_admit(struct wrep_file *f, struct wrep_op *op);
/* The same, with O_TRUNC, for who is about to open the file. */
int wrep_unjournaled_admit_open(struct wrep_file *f, int flags, struct wrep_op *op);
/* Does this node lead, and is the fence open? db->lock held. */
bool wrep_db_may_write(const struct wrep_db *db);
/* A write, or cut, that was admitted has failed, or one was not. db->lock held. */
void wrep_unjournaled_failed(struct wrep_db *db);
/* The database file was written, or cut: commit it at once, whoever did it. db->lock held, released.
 * As wrep_file_sync(). */
int wrep_unjournaled_commit(struct wrep_db *db, enum wrep_trigger trigger, struct wrep_op *op)
	RELEASES(db->lock);
/* Commit the session that is there, on which `op` would build, or have watched for the end of the one that
 * `op` would begin; then `op` is to be tried again: -EINTR, or -EIO. db->lock held, released. */
int wrep_unjournaled_put_off(struct wrep_db *db, struct wrep_op *op) RELEASES(db->lock);
/* As exclusive.h wants it. No lock held. */
bool wrep_unjournaled_tick(struct wrep_db *db);
/* Is what waits for Raft a session that nobody's call waits for? db->lock held. */
bool wrep_unjournaled_is_ending(const struct wrep_db *db);
/* A process closes the database file, which it, or another that left it the descriptor, may have
 * written. db->lock held, released. As wrep_file_flush(). */
int wrep_unjournaled_flush(struct wrep_file *f, struct wrep_op *op);
/* A descriptor of the database file is gone. What is to be pushed to the applier once the lock is free, or
 * NULL. db->lock held. */
struct wrep_work *wrep_unjournaled_released(struct wrep_db *db);
/* A file was copied beside the database, which is a copy as well, and which nobody has open: commit what it says.
 * db->lock held, released. As wrep_file_flush(). */
int wrep_unjournaled_take_strays(struct wrep_db *db, struct wrep_op *op) RELEASES(db->lock);
/* Is it what was copied here a short time ago, and nothing else since? Alone; or with what was played at
 * `played_index`, which has been appended to. db->lock held. */
bool wrep_unjournaled_is_copy(const struct wrep_db *db, uint64_t played_index);
/* A copy over the database is committed, `strays`: with what lay beside it. db->lock held. */
void wrep_unjournaled_copied(struct wrep_db *db, uint64_t index, bool strays);
/* The daemon ends: take back what is written without a journal, of which nothing else tells a reader that it is
 * not committed. */
void wrep_unjournaled_end_all(struct wrep *w);
/* Before the fence closes: nobody writes without locks any more, nor is about to leave WAL mode, in which
 * the fence will be. Applier only. */
void wrep_unjournaled_shut_out(struct wrep_db *db);

#endif
