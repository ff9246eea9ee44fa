/* What the files of the simulator share: a node, and the run it is part of. */
#ifndef SIM_H
#define SIM_H

#include "../rig/state_entries.h"
#include "log/compact.h"
#include "log/open.h"
#include "log/segments.h"
#include "log/snapshot.h"
#include "memdisk.h"
#include "server/base.h"
#include "server/peers.h"
#include "simcheck.h"
#include "simnet.h"

#define ROUNDS_PER_MS 4
#define CLUSTER 0xc1u

struct sim;

/* The owner of a node's log (simowner.c). */
struct owner {
	bool keeps; /* much of its log behind a snapshot, in this run */

	/* durable: its state holds everything up to here */
	uint64_t durable;
	bool damaged; /* what it holds is of no use: it takes no entries before an install */

	uint64_t chain;		 /* over all that was applied; as simcheck_chain() */
	struct state_rig *state; /* and what that leads to: walrepl's rules, without its files */
	/* entries that were made on it, and are to be submitted in this order */
	struct rlog_buf *made[RIG_ENTRIES_MAX];
	unsigned made_count, made_at;
	/* a snapshot in the making: one database after the other is noted, while entries are applied */
	struct rig_snapshot noting;
	uint64_t note_round;
	/* a snapshot that is being taken; NULL: none */
	struct rlog_buf *image;
	uint64_t image_index;
	uint64_t store_round, keep_bytes;
	bool stored;
	bool wanted; /* a node that fetches waits for a newer one */
	/* a state that is being fetched */
	bool fetching;
	unsigned from;
	struct rlog_buf *fetched; /* its image, once that is here */
	uint64_t fetch_round;
};

struct node {
	struct sim *sim;
	unsigned number; /* from 0 on; its id is one more */
	char address[32];
	bool exists; /* it has a log: bootstrapped, or joined */
	struct memdisk *disk;
	struct rlog_log *log; /* NULL: down */
	struct rlog_server *server;
	uint64_t up_round; /* when it starts again */
	uint64_t write_round;
	bool writing;
	uint64_t last; /* index last applied since its start or install */
	bool caught_up;
	unsigned full_percent;
	bool power_fails; /* at some call to come */
	/* what the disk was said to hold, checked at the next start; 0: let go of */
	uint64_t *terms, term_count, snapshot_index;
	struct owner owner;
	bool former; /* its version knows no levels, neither its own nor those of others */
	unsigned reads, needs;	     /* levels: of its version; of its log when it stopped */
	bool greeted[SIM_NODES_MAX]; /* and been greeted by */
};

/* What happened in all runs together. */
struct sim_counts {
	uint64_t snapshots, compactions;  /* logs shortened by them */
	uint64_t kept, replaced;	  /* installs that left the log, and that began it anew */
	uint64_t too_old;		  /* images that a log did not reach back to */
	uint64_t cut;			  /* snapshots and installs in which the power failed */
	uint64_t effects, refusals, past; /* of entries, on all nodes */
	uint64_t multi,
		parts; /* of these that took effect, over several databases; parts of a transaction */
	/* of levels above the first, that were applied; and what was refused for its level */
	uint64_t newer_entries, refused_entries, refused_starts, refused_joins;
};

struct sim {
	struct sim_random random;
	struct simcheck *check;
	struct simnet *net;
	struct node nodes[SIM_NODES_MAX];
	unsigned count;
	uint64_t seed, round, now;
	size_t segment_bytes;
	bool verbose, quiet_time;
	bool mixed;	 /* nodes read different levels */
	uint8_t *levels; /* of submissions, by their number */
	size_t level_room;
	uint64_t trace;
	unsigned open;
	struct sim_counts *counts;
};

void sim_trace(struct sim *sim, uint64_t what, uint64_t a, uint64_t b);
void sim_say(const struct sim *sim, const struct node *n, const char *what);

/* The node has opened its log: takes up the snapshot's state. */
void owner_start(struct node *n);
/* Power fails. */
void owner_stop(struct node *n);
/* The entry in `buf` is applied. Returns the number of its submission. */
uint64_t owner_applied(struct node *n, struct wrep_log_position at, const struct rlog_buf *buf);
/* The next entry to be submitted, made on the node's state of now or of a while ago. NULL: there is none. */
struct rlog_buf *owner_entry(struct node *n, uint64_t submission);
/* Is it of what the one before was of? Then there may be time between the two. */
bool owner_has_more(const struct node *n);
void owner_needs_state(void *ctx, uint64_t leader_id, const char *leader_address);
/* Begin to fetch the state of some node; because its own is lost, if `damaged`. */
void owner_fetch(struct node *n, bool damaged);
void owner_round(struct node *n);
bool owner_quiet(const struct node *n); /* nothing is lost or under way */
void owner_verify(struct node *n);	/* when all is applied: the page sums add up */

#endif
