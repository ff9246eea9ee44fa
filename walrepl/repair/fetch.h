/* This node's files are replaced by what a peer has. */
#ifndef WALREPL_REPAIR_FETCH_H
#define WALREPL_REPAIR_FETCH_H

#include "base/wrep.h"

struct wrep_db;

/* This node's files are unfit, for the reason given: no entry is delivered any more, and the applier
 * gets them from the leader. `db`: whose file is damaged, or NULL. Where no other node has a copy, that
 * database alone is taken out of service. No lock held. [any thread] */
void wrep_fetch_wanted(struct wrep *w, const char *reason, struct wrep_db *db);
void wrep_fetch_stop(struct wrep *w); /* the node is closing: ends it, and waits */
bool wrep_fetch_marked(struct wrep *w);

#endif
