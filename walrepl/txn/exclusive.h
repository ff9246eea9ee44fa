/* When does a writer without a journal let go of its EXCLUSIVE lock? See txn/unjournaled.c for what that is for.
 *
 * A database whose session is not committed is watched. A thread looks after those: when the host tells that
 * the lock was released, and now and then without, it asks whoever started it whether the session has ended.
 */
#ifndef WALREPL_EXCLUSIVE_H
#define WALREPL_EXCLUSIVE_H

#include <stdbool.h>
#include <stdint.h>

struct wrep;
struct wrep_db;
struct wrep_op;

/* Looks at a session, and commits it if it is time to. True: it is there and goes on. No lock held. */
typedef bool wrep_exclusive_tick(struct wrep_db *db);

int wrep_exclusive_start(struct wrep *w, wrep_exclusive_tick *look); /* 0 or -errno */
void wrep_exclusive_stop(struct wrep *w);

/* Is the host not told yet of lock calls, though it should be before a session of this database begins? Then
 * `op`, which would begin it, waits: WREP_PENDING, and it is told -EINTR, to try again; or that, or -EIO, at
 * once. */
bool wrep_exclusive_must_wait(struct wrep_db *db);
int wrep_exclusive_wait(struct wrep_db *db, struct wrep_op *op);

/* A session begins, by a write that follows. db->lock held. */
void wrep_exclusive_begin(struct wrep_db *db);
/* Has anybody taken the lock since the session's last write, as far as the host tells? Then all that was
 * written until now is whole transactions. Asked before each write; says so once. db->lock held. */
bool wrep_exclusive_retaken(struct wrep_db *db);

#endif
