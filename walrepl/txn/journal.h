/* An application's -journal and -wal. */
#ifndef WALREPL_TXN_JOURNAL_H
#define WALREPL_TXN_JOURNAL_H

#include "db/db.h"

/* Do to the journal what the application asked for. db->lock held. */
int wrep_commit_pull_trigger(struct wrep_db *db, const struct wrep_commit *c);
/* Is there anything in the -wal, old frames included? db->lock held. */
bool wrep_wal_has_frames(struct wrep_db *db);
/* Does the -journal hold what undoes the writes that come now? db->lock held. */
bool wrep_journal_is_hot(struct wrep_db *db);

#endif
