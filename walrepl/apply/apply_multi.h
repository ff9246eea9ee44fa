/* A transaction over several databases goes into the files. */
#ifndef WALREPL_APPLY_APPLY_MULTI_H
#define WALREPL_APPLY_APPLY_MULTI_H

#include "base/work.h"
#include "db/db.h"
#include "db/spool.h"
#include "record/entry.h"

struct wrep_commit;
struct wrep_multi_commit;

/* What it does to one of them. */
struct wrep_part {
	struct wrep_db *db;	    /* a reference */
	struct wrep_spool *spool;   /* a reference, or NULL */
	struct wrep_commit *commit; /* an application's own: the group's */
	struct wrep_entry entry;    /* another node's: the COMMIT, in `buf` */
	bool changes_nothing;	    /* another node's: but the version */
};

struct wrep_multi {
	struct wrep_work work; /* first */
	uint64_t index;
	struct rlog_buf *buf;		 /* another node's: the entry, a reference */
	struct wrep_multi_commit *group; /* an application's own */
	uint32_t count;
	struct wrep_part members[]; /* in order of the ids */
};

extern const struct wrep_work_ops wrep_apply_multi_ops; /* another node's; an own one: install.h */

/* With room for that many members, which the caller fills in. [raftlog's thread] */
struct wrep_multi *wrep_multi_new(const struct wrep_work_ops *ops, uint32_t members_max);
void wrep_multi_push(struct wrep *w, struct wrep_multi *m); /* takes it */
void wrep_multi_release(struct wrep_work *work);	    /* as wrep_work_ops says */

#endif
