/* Transactions of other nodes go into the files. raftlog's loop queues them; the applier's thread calls the rest,
 * without a lock held. */
#ifndef WALREPL_APPLY_APPLY_H
#define WALREPL_APPLY_APPLY_H

#include "base/work.h"
#include "db/db.h"
#include "db/spool.h"
#include "record/entry.h"
#include "sqlite/conn.h"

/* What raftlog's thread queues for the applier. [raftlog's thread] */
/* A part of a transaction came in the entry `buf`. */
void wrep_apply_queue_part(struct wrep_db *db, struct wrep_spool *spool, struct rlog_buf *buf);
/* Parts that will not be committed, or are no longer needed; takes them. NULL: nothing. No lock held. */
void wrep_apply_queue_drop(struct wrep *w, struct wrep_spool *spool);
/* A transaction of another node took effect; takes `spool`, which may be NULL. */
void wrep_apply_queue(struct wrep_db *db, uint64_t index, struct rlog_buf *buf,
		      struct wrep_spool *spool, bool changes_nothing);

/* ---- for apply_multi.c ---- */

/* A transaction, ready to be applied. */
struct wrep_gathered {
	struct wrep_conn_txn txn;
	struct wrep_spool *spool; /* where the images are, or NULL: in the entry */
	enum wrep_commit_mode mode;
	uint32_t *pgnos;
	const void **images;
	bool sets_wal_mode, wal_mode;
};

/* A transaction that keeps the applier waiting. */
struct wrep_retrying {
	uint64_t since, logged, logged_full;
};

/* Is the database where a transaction that was built on `base_version` can be applied to it? False: it is passed
 * over, and so is what is behind it. */
bool wrep_apply_takes(struct wrep_db *db, uint64_t base_version);
/* Keep the images that came with the COMMIT itself. False: it is not to be applied any more. */
bool wrep_apply_has_parts(struct wrep *w, struct wrep_db *db, struct wrep_spool *spool,
			  const struct wrep_entry *e);
int wrep_gather(const struct wrep_entry *e, struct wrep_spool *spool,
		struct wrep_gathered *g); /* 0, -ENOMEM */
void wrep_gathered_free(struct wrep_gathered *g);
/* Bring the database to where a transaction can be applied to it. 1: it is cold, wrep_apply_cold(); 0: it is
 * hot and its fence closed, wrep_apply_hot(); -EBUSY, -errno. */
int wrep_apply_make_ready(struct wrep_db *db, enum wrep_commit_mode mode);
int wrep_apply_cold(struct wrep_db *db, const struct wrep_gathered *g);
int wrep_apply_hot(struct wrep_db *db, const struct wrep_gathered *g);
/* After an attempt that ended with -EBUSY, or for want of space or descriptors, because of `db`. */
void wrep_wait_to_retry(struct wrep *w, struct wrep_db *db, int rc, struct wrep_retrying *t);
/* The files of `db` show the transaction `e` of entry `index`; */
void wrep_applied(struct wrep_db *db, const struct wrep_entry *e, const struct wrep_gathered *g,
		  struct wrep_spool *spool, uint64_t index);
/* or will not. */
void wrep_cannot_apply(struct wrep_db *db, int rc);

#endif
