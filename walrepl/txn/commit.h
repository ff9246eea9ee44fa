/* An application's transaction on its way through Raft. */
#ifndef WALREPL_TXN_COMMIT_H
#define WALREPL_TXN_COMMIT_H

#include "db/db.h"
#include "txn/sender.h"

struct wrep_multi_commit;

/* What the application waits for in rollback mode. */
enum wrep_trigger {
	WREP_TRIGGER_NONE,
	WREP_TRIGGER_UNLINK,
	WREP_TRIGGER_TRUNCATE,
	WREP_TRIGGER_WRITE,
	/* without a journal */
	WREP_TRIGGER_SYNC,
	WREP_TRIGGER_CLOSE,
};

struct wrep_commit {
	struct rlog_request request; /* first */
	struct wrep_db *db;
	struct wrep_op *op;
	/* Set by who made it. A member of a multi-commit: of how many (0: it is none), whose entry its COMMIT
	 * becomes a part of; its parts are delivered, or failed. No lock held. [any thread] */
	uint32_t member_count;
	struct wrep_multi_commit *group;
	void (*parts_done)(struct wrep_commit *c);
	/* It took no effect: tells those who wait, and takes `c`. NULL: wrep_commit_tell(). No lock held. */
	void (*refused)(struct wrep_commit *c, int result);
	enum wrep_commit_mode mode;
	enum wrep_trigger trigger;
	uint64_t journal_size;	/* TRUNCATE: the journal's size to be */
	uint8_t *journal_bytes; /* WRITE: what is written to the journal ... */
	size_t journal_len;
	uint64_t journal_off;	 /* ... and where */
	uint64_t session;	 /* SYNC, CLOSE: of which session */
	bool strays;		 /* which has what lay beside it */
	struct wrep_attr times;	 /* to be set behind it; valid 0: none */
	struct wrep_op *sharers; /* more ops, linked by `next`, that end as `op` does */
	struct wrep_op *writers; /* and of processes that write: they shall try again */
	uint64_t base_version;
	uint64_t index; /* of its COMMIT, once that is committed */
	uint64_t checksum;
	uint32_t page_size, page_count;
	bool sets_wal_mode, wal_mode; /* page 1 is among the pages */
	struct wrep_page_change *changes;
	uint32_t change_count;
	bool reserved; /* ROLLBACK: room behind the end of the database file */

	/* How far it is. Guarded by db->lock. */
	const struct wrep_wal_txn *txn; /* WAL: where its images are; the capture's */
	struct wrep_outgoing *out;
	uint32_t guessed;    /* parts that left before it was complete */
	uint32_t *unsent;    /* which of the images are not in them (NULL: all) ... */
	uint32_t send_count; /* ... and how many these are */
	uint32_t *dropped;   /* pages that are in them and not of the transaction */
	uint32_t dropped_count;
	uint32_t parts; /* PAGES entries before the COMMIT */
	bool sent;	/* so is the COMMIT: what becomes of it decides */
	/* Of a member: its turn to have its parts submitted has come; it is over. */
	bool started, arrived;
	struct wrep_due due;
};
void wrep_commit_free(struct wrep_commit *c);
/* Tell all who wait for it; the caller frees it. No lock held. */
void wrep_commit_tell(struct wrep_commit *c, int result);
/* Tell the processes that write, before the others. No lock held. */
void wrep_commit_tell_writers(struct wrep_commit *c, int result);
/* It is not decided any more (`db->pending` is cleared), and its application's files show the state
 * before, or, with `result` 0, what others made of it. Tells, and frees, at once or later. No lock held. */
void wrep_commit_end(struct wrep_commit *c, int result);

/* A write completed `txn`: WREP_PENDING, or -errno. db->lock held; wrep_txn_unlock() is to follow. */
int wrep_commit_wal(struct wrep_db *db, const struct wrep_wal_txn *txn, struct wrep_op *op);
/* A journal is being removed, truncated or zeroed by the application: agree on what the overlay
 * holds. db->lock held on entry; released when WREP_PENDING or an error is returned, still held
 * when 0 is returned: then nothing was to be agreed on, and the caller does what was asked. */
int wrep_commit_overlay(struct wrep_db *db, struct wrep_commit *shape);
/* The same, which keeps the lock: 1: it is the undecided transaction, but nothing is submitted before
 * wrep_txn_unlock(); 0: nothing is to be agreed on, or -errno; then `c` is freed. db->lock held. */
int wrep_commit_prepare(struct wrep_db *db, struct wrep_commit *c);
/* The COMMIT of a member whose parts are delivered, and then its images, in the place that was made. The
 * latter from now on cannot be given up any more; -errno when it has been. db->lock held. */
void wrep_commit_describe(const struct wrep_commit *c, struct wrep_entry *e);
int wrep_commit_fill(struct wrep_commit *c, struct wrep_entry *e);
/* It is undecided no more, and took no effect on the files here; `refused`: nor will it, so its parts need
 * not be kept. Frees it. No lock held. */
void wrep_commit_dismiss(struct wrep_commit *c, bool refused);

/* `db` has no undecided transaction any more. db->lock held. */
void wrep_commit_detach(struct wrep_db *db);

/* A commit was refused for certain: a line says why, now and then. [any thread, any lock] */
#define WREP_REFUSED_NO_LEADER "this node does not lead, or does not any more"
#define WREP_REFUSED_TOO_LATE "the database has changed since it began"
void wrep_commit_log_refused(struct wrep_db *db, const char *why);

/* A transaction is larger than it may be: a line that says so. Returns -ENOSPC. */
int wrep_refuse_large(struct wrep_db *db);

#endif
