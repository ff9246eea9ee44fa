/* The manifest in force: published, adopted, renamed in. */
#ifndef WALREPL_SNAPSHOT_CURRENT_MANIFEST_H
#define WALREPL_SNAPSHOT_CURRENT_MANIFEST_H

#include "db/db.h"
#include "record/manifest.h"

/* Make `m` the manifest, at `index`. On success its content is the snapshotter's. point_lock held. */
int wrep_current_manifest_publish(struct wrep_snapshotter *k, struct wrep_manifest *m,
				  uint64_t index);
/* All names, as of one entry, which is not before `index`; `*all`: references of the databases in `m`, in
 * the same order. 0 or -ENOMEM. */
int wrep_current_manifest_names(struct wrep *w, uint64_t index, struct wrep_manifest *m,
				struct wrep_db ***all);
/* For names that change at once with the manifest: between lock and unlock no manifest is written.
 * wrep_snapshotter_rename() writes one that says what the last one says, but calls `db` by its new name, says
 * that it needs no -wal, and has all other names as they are, without `replaced`. 0, -EBUSY (none is
 * written any more), -errno. [applier] */
void wrep_snapshotter_lock(struct wrep *w);
void wrep_snapshotter_unlock(struct wrep *w);
int wrep_snapshotter_rename(struct wrep_db *db, const char *name, const struct wrep_db *replaced,
			    uint64_t index);
/* What the manifest says from now on (after a restart, or a fetch). Takes `m`'s content. */
void wrep_snapshotter_adopt(struct wrep *w, struct wrep_manifest *m, uint64_t index);

#endif
