/* Directories are made, removed, and get other attributes. */
#ifndef WALREPL_NAMES_DIRECTORY_H
#define WALREPL_NAMES_DIRECTORY_H

#include "base/work.h"
#include "record/entry.h"

/* Committed entries. [raftlog's thread] */
void wrep_mkdir_delivered(struct wrep *w, uint64_t index, const struct wrep_entry *e,
			  struct rlog_buf *buf, struct rlog_request *req);
/* SETATTR and RMDIR of what is no database. */
void wrep_dir_delivered(struct wrep *w, uint64_t index, const struct wrep_entry *e,
			struct rlog_buf *buf, struct rlog_request *req);

#endif
