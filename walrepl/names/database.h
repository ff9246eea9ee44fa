/* A database is created, removed, or gets other attributes. */
#ifndef WALREPL_NAMES_DATABASE_H
#define WALREPL_NAMES_DATABASE_H

#include "db/db.h"

/* Committed entries `buf`: the applier does to the files what they say, and ends the request of the application that
 * asked for it; takes `req`, which may be NULL. `parent` is the directory that the name is in; 0: the top.
 * [raftlog's thread] */
void wrep_create_queue(struct wrep_db *db, uint64_t parent, struct rlog_buf *buf,
		       struct rlog_request *req);
void wrep_unlink_queue(struct wrep_db *db, uint64_t index, uint64_t parent, struct rlog_buf *buf,
		       struct rlog_request *req);
void wrep_setattr_queue(struct wrep_db *db, uint64_t index, struct rlog_buf *buf,
			struct rlog_request *req);
/* It is removed, as the log says: no entry finds it any more. [raftlog's thread] */
void wrep_db_unlinked(struct wrep_db *db);

#endif
