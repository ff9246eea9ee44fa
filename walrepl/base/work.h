/* The applier's queue. */
#ifndef WALREPL_BASE_WORK_H
#define WALREPL_BASE_WORK_H

#include "db/db.h"
#include "txn/commit.h"

/* Work for the applier, in order. */
enum wrep_item_type {
	WREP_ITEM_CREATE,
	WREP_ITEM_UNLINK,
	WREP_ITEM_SETATTR,
	WREP_ITEM_PAGES, /* a part of a transaction: keep its images */
	WREP_ITEM_DROP,	 /* the parts of a transaction are not needed any more */
	WREP_ITEM_APPLY, /* a transaction from elsewhere */
	WREP_ITEM_INSTALL, /* a rollback-journal transaction of an application here, or one in WAL mode
			      whose last write found the disk full */
	WREP_ITEM_REVERT, /* what was written without a journal is not committed: take it back */
	WREP_ITEM_APPLY_GROUP,	 /* as APPLY, one over several databases */
	WREP_ITEM_INSTALL_GROUP, /* as INSTALL */
	WREP_ITEM_OPEN,		 /* an application opens the database: catch up, close the fence */
	WREP_ITEM_READY,	 /* somebody waits until this node has caught up */
	WREP_ITEM_VIEW,		 /* leadership changed */
	WREP_ITEM_TAKE_BACK,	 /* what is written under journals that nobody sees */
	WREP_ITEM_CAUGHT_UP,
	WREP_ITEM_POINT, /* the keeper waits until what is queued so far is in the files */
	WREP_ITEM_IDLE,	 /* the last application closed a database that has a fence */
	WREP_ITEM_FOLD,	 /* and one that left something in its -wal or -journal */
	WREP_ITEM_MKDIR,
	WREP_ITEM_RMDIR,
	WREP_ITEM_DIRATTR,
	WREP_ITEM_RENAME,
	WREP_ITEM_FETCH, /* this node's files are unfit: get them from a peer */
};

struct wrep_item {
	struct wrep_item *next;
	enum wrep_item_type type;
	struct wrep_db *db;	  /* a reference, or NULL */
	struct wrep_db *replaced; /* RENAME: what has the name; a reference, or NULL */
	struct wrep_dir *dir;	  /* MKDIR, RMDIR, DIRATTR: a reference */
	struct wrep_file *file; /* OPEN: the one meant, a reference; NULL: whatever has the name */
	struct rlog_buf *buf;	/* the entry, or NULL */
	struct wrep_parts *parts;   /* PAGES, DROP, APPLY: a reference, or NULL */
	struct wrep_commit *commit; /* INSTALL */
	struct wrep_group *group;   /* INSTALL_GROUP */
	struct wrep_part *members;  /* APPLY_GROUP, INSTALL_GROUP: in order of the ids; malloc'd */
	uint32_t member_count;
	struct wrep_op *op;	  /* to be finished, or NULL */
	int open_flags;		  /* CREATE with op, OPEN */
	uint64_t view_sequence;	  /* VIEW */
	bool changes_nothing;	  /* APPLY: but the version */
	uint64_t direct_sequence; /* REVERT: of which session, what ended it, and what is told */
	enum wrep_trigger direct_trigger;
	int result;
	uint64_t index; /* of the entry: APPLY, and what changes names */
	size_t bytes;
};

/* What a transaction over several databases does to one of them. */
struct wrep_part {
	struct wrep_db *db;	    /* a reference */
	struct wrep_parts *parts;   /* a reference, or NULL */
	struct wrep_commit *commit; /* INSTALL_GROUP: the group's */
	struct wrep_entry entry;    /* APPLY_GROUP: the COMMIT, in the item's `buf` */
	bool changes_nothing;	    /* APPLY_GROUP: but the version */
};

/* Append to the queue; takes the item and what it references. Never fails. */
void wrep_applier_push(struct wrep *w, struct wrep_item *item);
struct wrep_item *wrep_item_new(enum wrep_item_type type, struct wrep_db *db);
void wrep_item_free(struct wrep_item *item);

#endif
