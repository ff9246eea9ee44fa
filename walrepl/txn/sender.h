/* Submits the entries of a database. */
#ifndef WALREPL_TXN_SENDER_H
#define WALREPL_TXN_SENDER_H

#include "db/db.h"
#include "state/parts.h"

/* What the application is told of a request that raftlog has ended: -errno. */
int wrep_request_error(const struct rlog_request *req, enum rlog_outcome outcome);
/* The PAGES entries of a transaction that leave this node. Guarded by the database's lock. They belong
 * to the commit, or before there is one to db->ahead, or, when `given_up`, to nobody: then they go with
 * the last that is in flight. */
struct wrep_outgoing {
	uint64_t sequence;
	uint32_t next_part; /* the next to be submitted */
	uint32_t in_flight; /* submitted, their end not told */
	uint64_t term;	    /* of the parts delivered, 0: none yet */
	int failed;	    /* -errno: given up, their COMMIT will not be submitted */
	bool given_up;
	struct wrep_outgoing *next; /* in db->spent */
};

struct wrep_outgoing *wrep_outgoing_new(struct wrep *w); /* NULL: no memory */
/* Make `buf` (taken in any case) the next of them, to be submitted. db->lock held. NULL: no memory. */
struct rlog_request *wrep_outgoing_part(struct wrep_db *db, struct wrep_outgoing *out,
					struct rlog_buf *buf);
/* The owner lets go of them. Whoever calls this ends with wrep_commit_feed(). db->lock held. */
void wrep_outgoing_give_up(struct wrep_db *db, struct wrep_outgoing *out, int error);
/* Give them up before their COMMIT is submitted. db->lock held. */
void wrep_outgoing_fail(struct wrep_db *db, struct wrep_outgoing *out, int error);
/* Their COMMIT will never commit: the images of the parts need not be kept here. The replicated state
 * goes on to count them, until the log says otherwise. db->lock held. */
void wrep_outgoing_forget(struct wrep_db *db, const struct wrep_outgoing *out);

/* A PAGES entry of this node that is on its way. */
struct wrep_part_request {
	struct rlog_request request; /* first */
	struct wrep_db *db;	     /* a reference */
	struct wrep_outgoing *out;
};
/* It was delivered, in `term`; `counts`: its database is there. Frees the request. */
void wrep_commit_part_delivered(struct rlog_request *req, uint64_t term, bool counts);
/* The parts cannot be kept here. False: too late, the COMMIT is on its way, or they are not those of
 * an undecided transaction of this node. */
bool wrep_commit_give_up(struct wrep_db *db, const struct wrep_parts *parts, int error);
/* Submit what there is to be submitted of the database's transactions. db->lock held, released. */
void wrep_commit_feed(struct wrep_db *db);
/* Tell all nodes that these parts wait for nothing. Behind a COMMIT whose outcome is unknown it does no
 * harm: the log keeps the order in which the two were submitted. No lock held. */
void wrep_submit_discard(struct wrep *w, uint64_t db_id, uint64_t origin, uint64_t sequence);

#endif
