/* A database of this node, and its files.
 *
 * A database has two states. The *replicated* state (version, checksum, page hashes) follows the Raft
 * log: raftlog's thread moves it, entry by entry, in the same way on every node. The *local* state is
 * what the backing files show: on the node whose application wrote a transaction the two move at
 * once; elsewhere the applier brings the files up to date a little later. An application's next
 * transaction is built on what the files show, so it names `local_version` as its base.
 */
#ifndef WALREPL_DB_DB_H
#define WALREPL_DB_DB_H

#include <pthread.h>
#include <stdatomic.h>
#include "base/wrep.h"
#include "pages/capture.h"
#include "pages/overlay.h"
#include "pages/pagesum.h"
#include "sqlite/conn.h"
#include "state/parts.h"
#include "state/version.h"

struct wrep_commit;
struct wrep_streaming;
struct wrep_outgoing;
struct wrep_source;
struct wrep_spool;
struct wrep_watched;

struct wrep_file {
	_Atomic unsigned refs;
	enum wrep_kind kind;
	struct wrep_db *db; /* a reference */
	/* db->lock: the backing file, open while the database is held (db/pin.c), else perhaps -1 */
	int fd;
	ino_t ino; /* of the backing file, known while it is closed */
	_Atomic(void *) host_data;
	/* Guarded by the database's lock: another incarnation has taken its place, maybe under another name, and
	 * who has this one open gets ESTALE. `lost`: what was written through it was thrown away. */
	bool revoked, lost;
	/* SUPER and STRAY, which have no db */
	struct wrep *w;
	struct wrep_stray *stray; /* owned */
	/* SUPER; guarded by w->lock */
	struct wrep_file *next_super;
	unsigned super_opens;
	uint64_t super_closed_ms; /* when the last of them was closed */
	bool super_gone;	  /* its name is */
	bool super_deciding;	  /* the commit that its removal is waits for Raft */
	char name[];
};

/* Names of a database that it has, or had: whoever reads one needs no lock for it. */
struct wrep_name {
	struct wrep_name *former;
	char text[];
};

/* Writes into the database file that no journal covers; txn/unjournaled.c. */
struct wrep_unjournaled {
	bool active; /* the overlay holds such */
	bool alone; /* the writer takes none of SQLite's locks: nobody else may have the file open */
	bool ending;	   /* the applier is about to take them back: opens go through its queue */
	bool written;	   /* since the file was opened with O_TRUNC, which began it */
	bool broken;	   /* a write of it failed: it will not be committed */
	bool strays;	   /* `alone`: what was copied beside it is in it */
	bool failed;	   /* the commit of the last one, whose writer still has its lock */
	bool undoes;	   /* the one before was such: this may be its rollback */
	pid_t process;	   /* the writer; until `written`, who opened the file */
	pid_t tid;	   /* `alone`: the thread that wrote last */
	uint64_t sequence; /* which of the database's sessions this is */
	struct wrep_attr times; /* set meanwhile, to be set again behind the commit */
};

struct wrep_db {
	_Atomic unsigned refs;
	struct wrep *w; /* may be gone before the last reference */
	const struct wrep_up *up;
	const char *_Atomic name;		   /* changed by the applier, w->lock held */
	struct wrep_name *names;		   /* guarded by w->lock */
	uint64_t id;				   /* index of the entry that created it */
	struct wrep_db *next_by_name, *next_by_id; /* guarded by w->lock */
	bool shown, known;			   /* guarded by w->lock: in by_name, in by_id */

	_Atomic uint64_t refusal_logged_ms;

	pthread_mutex_t lock; /* guards everything down to the next comment */
	/* replicated */
	struct wrep_version state;
	bool removed;
	unsigned renames_pending;     /* RENAME entries delivered that the applier has not got to */
	struct wrep_spool *unapplied; /* of committed ones that the files lag behind; references */
	/* local */
	uint64_t local_version, local_index;
	bool local_wal_mode;
	bool touched;  /* since the manifest last told of it */
	unsigned pins; /* db/pin.c: opens of its files, and others who use their descriptors */
	bool unsynced; /* its files were written to since they were synced */
	bool wal_held; /* the manifest counts on frames of the -wal: see snapshot/wal_hold.c */
	bool wal_moved_aside; /* restored: there may be a -wal that was moved aside (restore.c) */
	bool wal_resetting; /* the applier may be starting it over, or removing it: no manifest counts on it */
	pthread_cond_t wal_gone; /* it is done with that: wrep_fence_wal_gone() */
	bool retired; /* its file is being replaced by what a peer has: nobody may see it (fetch.c) */
	bool lost;    /* restored without its file */
	bool damaged;	   /* its file is, and no other node has a copy: nobody can open it */
	bool fenced;	   /* the applier holds the writers' lock: applications here cannot write */
	bool half_applied; /* part of a transaction is in its file: nobody reads it */
	bool left_behind; /* a transaction was passed over, as its file is gone: the next are, too */
	struct wrep_file *files[4];   /* by enum wrep_kind; the table's references */
	struct wrep_capture *capture; /* over files[WREP_WAL]->fd */
	struct wrep_overlay *overlay; /* while a rollback-journal transaction is being written */
	/* How a commit that changes nothing is told from a rollback (commit.c). Was anything in the overlay ever
	 * other than what the file holds; and was it not since the header of the -journal was written, by that
	 * thread? */
	bool differed, journaled;
	pid_t journal_tid;
	struct wrep_unjournaled unjournaled;
	struct wrep_watched *watched; /* exclusive.c: for the end of the session, or NULL */
	bool syncs;		      /* the last session ended by fsync */
	struct {
		uint64_t index; /* of the COMMIT of what was copied here over it */
		bool strays;	/* with what lay beside it */
		uint64_t at_ms;
	} copied;
	pid_t locker_tid; /* a thread of a process that takes SQLite's locks before it writes, or 0 */
	struct wrep_commit *pending; /* the undecided transaction of an application here */
	int wal_ended; /* how one in the -wal failed, if none has begun since: its rest may come */
	/* Where entries to be submitted come from: the undecided transaction, and what leaves before there is one */
	const struct wrep_source *commit_source, *stream_source;
	bool sending; /* a thread is submitting entries of transactions here */
	struct wrep_streaming
		*streaming; /* parts that leave before their transaction is complete */
	struct wrep_outgoing
		*to_discard; /* parts that wait for nothing: a DISCARD is to be submitted */
	unsigned opens;	     /* of the database file, by applications */
	bool conn_idle;	     /* the applier knows, or will, that nobody has it open */
	bool folding; /* the applier is about to fold it: opens go through its queue (apply/fold.c) */

	/* the applier's own */
	struct wrep_conn *conn;
	uint32_t frames_to_copy; /* in the -wal that the daemon wrote, not checkpointed yet */

	struct wrep_db *next_idle; /* guarded by w->idle_lock; the queue has a reference */
	bool idle_listed;
};

#endif
