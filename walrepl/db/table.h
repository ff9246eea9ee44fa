/* The databases of this node, by name and by id, and their files. */
#ifndef WALREPL_DB_TABLE_H
#define WALREPL_DB_TABLE_H

#include "db/db.h"

struct wrep_db *wrep_db_ref(struct wrep_db *db);
void wrep_db_unref(struct wrep_db *db);
struct wrep_db *wrep_db_by_name(struct wrep *w, const char *name); /* a reference, or NULL */
struct wrep_db *wrep_db_by_id(struct wrep *w, uint64_t id);
/* Enter a database into the table of ids, or take it out (no entry finds it then). */
struct wrep_db *wrep_db_new(struct wrep *w, const char *name, uint64_t id); /* NULL: no memory */
void wrep_db_remove(struct wrep_db *db);
/* Let its name be found, or not; as of entry `index`. Nothing where it is so already. [applier] */
void wrep_db_show(struct wrep_db *db, uint64_t index);
void wrep_db_hide(struct wrep_db *db, uint64_t index);
void wrep_db_show_locked(struct wrep_db *db); /* w->lock held */
void wrep_db_hide_locked(struct wrep_db *db);
/* Give it another name. w->lock held. 0 or -ENOMEM. [applier] */
int wrep_db_set_name(struct wrep_db *db, const char *name);
/* Snapshot of all databases, also of removed ones whose name is still there: references in a malloc'd
 * array. */
int wrep_db_all(struct wrep *w, struct wrep_db ***out, size_t *count);
bool wrep_db_is_removed(struct wrep_db *db);
/* What the log says of it comes again: its names are another's. */
void wrep_db_retire(struct wrep_db *db);

#endif
