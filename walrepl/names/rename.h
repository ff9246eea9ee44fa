/* A database gets another name. */
#ifndef WALREPL_NAMES_RENAME_H
#define WALREPL_NAMES_RENAME_H

#include "base/work.h"
#include "db/db.h"
#include "record/entry.h"

void wrep_rename_delivered(struct wrep_db *db, uint64_t index, const struct wrep_entry *e,
			   struct rlog_buf *buf, struct rlog_request *req);
/* Give a database another name, when nobody has it open. As wrep_rename(). No lock held. */
int wrep_db_rename(struct wrep_db *db, const char *to, unsigned flags, struct wrep_op *op);

#endif
