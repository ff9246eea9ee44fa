/* A database gets another name. */
#ifndef WALREPL_NAMES_RENAME_H
#define WALREPL_NAMES_RENAME_H

#include "base/work.h"
#include "db/db.h"
#include "record/entry.h"

void wrep_rename_delivered(struct wrep *w, struct wrep_db *db, uint64_t index,
			   const struct wrep_entry *e, struct rlog_buf *buf,
			   struct rlog_request *req);
/* Where a database's file lies while it has no name: to where it belongs. After a crash. 0 or -errno. */
int wrep_moved_place(struct wrep *w, uint64_t id, const char *name);
int wrep_moved_tidy(struct wrep *w); /* remove what is left of them */

#endif
