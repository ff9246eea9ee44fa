/* Copied side files become part of the copy of their database. */
#ifndef WALREPL_TXN_STRAY_COPY_H
#define WALREPL_TXN_STRAY_COPY_H

#include "db/db.h"

/* Play those of the database into its overlay; `*some`: there is something in them. 0 or -errno, with a line. db->lock held. */
int wrep_strays_play(struct wrep_db *db, bool *some);
/* That is committed, with entry `index`. db->lock held. */
void wrep_strays_played(struct wrep_db *db, uint64_t index);

#endif
