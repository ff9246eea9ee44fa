/* Entries at random, as nodes might submit them: built on a state, some of them on an outdated one. */
#ifndef STATE_ENTRIES_H
#define STATE_ENTRIES_H

#include "../sim/simnet.h"
#include "state_rig.h"

#define RIG_ENTRIES_MAX 8

struct rig_author {
	struct sim_random *random;
	uint64_t origin, sequence;
	unsigned large_percent; /* of the transactions: tens of pages */
	bool waits;		/* mostly makes no transaction where one of its own is on its way */
	bool leaves_parts; /* of a transaction that it gives up, now and then, without a DISCARD */
};

/* Entries that are to be submitted one behind the other: a change of names, or a transaction, perhaps one that is
 * given up. None only where the author waits. */
unsigned rig_entries(struct rig_author *a, struct state_rig *r,
		     struct rlog_buf *out[RIG_ENTRIES_MAX]);

#endif
