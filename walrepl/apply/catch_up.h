/* This node catches up. [raftlog's thread] */
#ifndef WALREPL_APPLY_CATCH_UP_H
#define WALREPL_APPLY_CATCH_UP_H

#include "base/wrep.h"

/* Leadership changed, for the `sequence`-th time: takes effect when all that was queued before is in the files. */
void wrep_view_queue(struct wrep *w, uint64_t sequence);
/* Everything up to the leader's commit index at first contact has been queued. */
void wrep_caught_up_queue(struct wrep *w);
/* The same once more, if the proof had to wait for entry `index`, which has been dealt with. */
void wrep_caught_up_delivered(struct wrep *w, uint64_t index);

#endif
