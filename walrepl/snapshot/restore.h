/* Files after a restart. */
#ifndef WALREPL_SNAPSHOT_RESTORE_H
#define WALREPL_SNAPSHOT_RESTORE_H

#include "db/db.h"
#include "record/manifest.h"

int wrep_restore(struct wrep *w, const struct wrep_manifest *m, uint64_t last_index);
/* Nothing is known of this node's files: remove what lies there. */
int wrep_restore_nothing(struct wrep *w);
/* Do the hashes of this database add up to its checksum, now that the tail is applied? */
bool wrep_verify(struct wrep_db *db); /* db->lock held */
void wrep_wal_aside_remove(struct wrep *w, uint64_t id);

#endif
