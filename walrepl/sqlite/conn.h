/* The daemon's own SQLite connection to one database: applying transactions of other nodes,
 * checkpointing, and the fence. Private to walrepl; used by the applier thread only, which may block
 * in system calls but never in a lock of SQLite's: what is busy returns -EBUSY and is tried again.
 *
 * It is an ordinary participant of SQLite's locking protocol whose locks (OFD locks) are taken on
 * files opened through the mount, where they meet those of applications, while it reads, writes and
 * maps the backing files. Every write to a backing file is invalidated in the kernel's cache before
 * SQLite goes on, so before the wal-index says that it is there.
 */
#ifndef WALREPL_SQLITE_CONN_H
#define WALREPL_SQLITE_CONN_H

#include <stdbool.h>
#include <stdint.h>
#include "sqlite/conn_host.h"

struct wrep_conn;

/* Register the VFS and set SQLite up; once per process, before any other call. */
int wrep_conn_init(void);

/* Attach to database `name`: opens the mounted file for its locks. No SQLite lock is taken yet. */
int wrep_conn_open(struct wrep_conn **out, const char *name, const struct wrep_conn_host *host);
/* Drops all locks. Leaves the -wal and -shm as they are (no checkpoint, no deletion). */
void wrep_conn_close(struct wrep_conn *c);

/* After a call that returned `rc`, what failed beneath it, to be appended to a log line: " sqlite=1802 call=..."; empty
 * where SQLite had no part in it. */
#define WREP_CONN_FAILURE_MAX 160
void wrep_conn_failure(const struct wrep_conn *c, int rc, char out[WREP_CONN_FAILURE_MAX]);

/* After -EBUSY: the kernel has yet to take in the size of a file. Else somebody holds a lock. */
bool wrep_conn_waits_for_size(const struct wrep_conn *c);

/* Close the fence: hold the lock that a writer needs, the WAL write lock (-shm byte 120) of a
 * database in WAL mode, or the RESERVED byte otherwise. For WAL mode this attaches to the -wal and
 * the -shm. 0 when held (also when held already), -EBUSY, -errno; -EINVAL when told of a WAL mode
 * that page 1 of the file does not show. `wal_mode`: what page 1 of the committed database says.
 *
 * In WAL mode every call also recovers the wal-index if it is invalid: behind a closed fence nobody
 * else can. From attached in WAL mode, `false` leaves WAL mode: needs EXCLUSIVE on the database, so
 * -EBUSY while an application has it open (PENDING stays held, which lets no more of them in, until
 * that is done or the fence is opened); then checkpoints, removes -wal and -shm, and keeps EXCLUSIVE
 * until the transaction that leaves WAL mode has been applied directly, or the fence is opened. */
int wrep_conn_fence_close(struct wrep_conn *c, bool wal_mode);
void wrep_conn_fence_open(struct wrep_conn *c);

/* Rollback mode: keep readers out, too, until wrep_conn_let_in(). 0, -EBUSY (then they are not),
 * -errno. In WAL mode this does nothing. */
int wrep_conn_keep_out(struct wrep_conn *c);
/* The same, but on -EBUSY no more readers are let in, so that it succeeds once those have ended. */
int wrep_conn_drain(struct wrep_conn *c);
void wrep_conn_let_in(struct wrep_conn *c);
bool wrep_conn_fence_closed(const struct wrep_conn *c);

struct wrep_conn_txn {
	uint32_t page_size, page_count;
	uint32_t image_count;
	/* Numbers, ascending, and contents of images [first, first + count), at most
	 * WREP_CONN_FETCH_MAX of them; the contents stay valid until the next call. Asked for in
	 * order, but for the first, which may be asked for again. 0 or -errno. */
	int (*fetch)(void *ctx, uint32_t first, uint32_t count, uint32_t *pgnos,
		     const void **images);
	void *ctx;
	/* In WAL mode: the frames go behind those that are there, even where all of them have been
	 * checkpointed and SQLite would start the -wal over. */
	bool keep_wal;
	/* Without `fetch`: all of them. */
	const uint32_t *pgnos;
	const void *const *images;
};

#define WREP_CONN_FETCH_MAX 64

/* Append the transaction to the -wal as one commit and publish the wal-index, through the patched
 * SQLite. The fence must be closed for WAL mode. Readers keep their snapshots and are never blocked.
 * 0, -EBUSY (readers see nothing of it), -errno (the caller stops the node). */
int wrep_conn_apply_wal(struct wrep_conn *c, const struct wrep_conn_txn *txn);

/* Write the transaction into the database file itself, under SQLite's EXCLUSIVE lock (PENDING keeps
 * new readers out while old ones finish: call again on -EBUSY; PENDING stays held meanwhile). The
 * fence must be closed for rollback mode. No journal: the Raft log redoes it after a crash. When
 * page 1 says WAL afterwards, the fence is closed for WAL mode on return. After an error other than
 * -EBUSY the EXCLUSIVE lock stays, so that nobody reads half a transaction. */
int wrep_conn_apply_direct(struct wrep_conn *c, const struct wrep_conn_txn *txn);

/* Copy frames into the database file. `all`: wait for nobody, but report -EBUSY unless every frame
 * was copied and the -wal truncated to 0 (SQLITE_CHECKPOINT_TRUNCATE), else PASSIVE. `*wal_frames`
 * (may be NULL): frames in the -wal afterwards; `*copied`: how many of them are in the database. */
int wrep_conn_checkpoint(struct wrep_conn *c, bool all, uint32_t *wal_frames, uint32_t *copied);

#endif
