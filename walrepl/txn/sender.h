/* The sender of a database: submits the entries of its transactions, in their order.
 *
 * Two sources may have entries for it: the undecided transaction (commit.c), and before there is one the
 * parts that leave ahead of it (streaming.c). The sender asks them and knows neither.
 */
#ifndef WALREPL_TXN_SENDER_H
#define WALREPL_TXN_SENDER_H

#include "db/db.h"
#include "guarded.h"
#include "state/parts.h"

struct wrep_source;

/* The PAGES entries of a transaction that leave this node. Guarded by the database's lock. They belong
 * to `source`, or, when `given_up`, to nobody: then they go with the last that is in flight. */
struct wrep_outgoing {
	const struct wrep_source *source;
	uint64_t sequence;
	uint32_t next_part; /* the next to be submitted */
	uint32_t in_flight; /* submitted, their end not told */
	uint64_t term;	    /* of the parts delivered, 0: none yet */
	int failed;	    /* -errno: given up, their COMMIT will not be submitted */
	bool given_up;
	struct wrep_outgoing *next; /* in db->to_discard */
};

/* Something that is to be done without a lock. */
struct wrep_due {
	void (*run)(struct wrep_due *due);
};

/* Where entries come from. All are called with db->lock held, and keep it. */
struct wrep_source {
	/* The next entry, to be submitted by the caller. NULL: there is none, or no room in the window. */
	struct rlog_request *(*next)(struct wrep_db *db);
	/* Its parts, as long as they may be given up; or NULL. */
	struct wrep_outgoing *(*outgoing)(struct wrep_db *db);
	/* One of its parts failed, or cannot be kept here. */
	void (*part_failed)(struct wrep_db *db, struct wrep_outgoing *out, int error);
	/* There is nothing to be submitted now: the sender runs what is returned, which may be NULL. */
	struct wrep_due *(*drained)(struct wrep_db *db);
};

/* Unlock db->lock, and submit what there is to be submitted of the database's transactions, in this thread or
 * in that which is at it. It stands where an unlock stands, behind whatever may have made something due. A
 * transaction may end meanwhile: its application is told before the return. */
void wrep_txn_unlock(struct wrep_db *db) RELEASES(db->lock);

struct wrep_outgoing *wrep_outgoing_new(struct wrep *w,
					const struct wrep_source *source); /* NULL: no memory */
/* Make `buf` (taken in any case) the next of them, to be submitted. db->lock held. NULL: no memory. */
struct rlog_request *wrep_outgoing_part(struct wrep_db *db, struct wrep_outgoing *out,
					struct rlog_buf *buf);
/* Their COMMIT will not be submitted. db->lock held. */
void wrep_outgoing_fail(struct wrep_db *db, struct wrep_outgoing *out, int error);
/* The same, and the owner lets go of them. Whoever calls this ends with wrep_txn_unlock(). db->lock held. */
void wrep_outgoing_give_up(struct wrep_db *db, struct wrep_outgoing *out, int error);
/* Their COMMIT will never commit: the images of the parts need not be kept here. The replicated state
 * goes on to count them, until the log says otherwise. db->lock held. */
void wrep_outgoing_forget(struct wrep_db *db, const struct wrep_outgoing *out);

/* A PAGES entry of this node that is on its way. */
struct wrep_part_request {
	struct rlog_request request; /* first */
	struct wrep_db *db;	     /* a reference */
	struct wrep_outgoing *out;
};
/* It was delivered, in `term`; `counts`: its database is there. Frees the request. No lock held. [loop] */
void wrep_part_delivered(struct rlog_request *req, uint64_t term, bool counts);
/* The parts cannot be kept here. False: too late, the COMMIT is on its way, or they are not those of
 * an undecided transaction of this node. No lock held. [applier] */
bool wrep_part_not_kept(struct wrep_db *db, const struct wrep_spool *spool, int error);

/* What the application is told of a request that raftlog has ended: -errno. */
int wrep_request_error(const struct rlog_request *req, enum rlog_outcome outcome);

/* Tell all nodes that these parts wait for nothing. Behind a COMMIT whose outcome is unknown it does no
 * harm: the log keeps the order in which the two were submitted. No lock held. */
void wrep_submit_discard(struct wrep *w, uint64_t db_id, uint64_t origin, uint64_t sequence);
/* Nothing is submitted any more: free what a DISCARD would have been submitted for. [the last reference] */
void wrep_sender_free(struct wrep_db *db);

#endif
