/* What the files of walrepl share: the replica, its databases, their files, the applier's queue.
 *
 * A database has two states. The *replicated* state (version, checksum, page hashes) follows the Raft
 * log: raftlog's thread moves it, entry by entry, in the same way on every node. The *local* state is
 * what the backing files show: on the node whose application wrote a transaction the two move at
 * once; elsewhere the applier brings the files up to date a little later. An application's next
 * transaction is built on what the files show, so it names `local_version` as its base.
 */
#ifndef WALREPL_INTERNAL_H
#define WALREPL_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include "pages/capture.h"
#include "pages/overlay.h"
#include "pages/pagesum.h"
#include "record/entry.h"
#include "record/manifest.h"
#include "sqlite/conn.h"
#include "state/name_tree.h"
#include "state/parts.h"
#include "walrepl.h"

struct wrep_db;

struct wrep_file {
	_Atomic unsigned refs;
	enum wrep_kind kind;
	struct wrep_db *db; /* a reference */
	/* db->lock: the backing file, open while the database is held (idle.c), else perhaps -1 */
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

/* Writes into the database file that no journal covers; direct.c. */
struct wrep_direct {
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
	struct wrep *w;
	const char *_Atomic name;		   /* changed by the applier, w->lock held */
	struct wrep_name *names;		   /* guarded by w->lock */
	uint64_t id;				   /* index of the entry that created it */
	struct wrep_db *next_by_name, *next_by_id; /* guarded by w->lock */
	bool shown, known;			   /* guarded by w->lock: in by_name, in by_id */

	_Atomic uint64_t refusal_logged_ms;

	pthread_mutex_t lock; /* guards everything down to the next comment */
	/* replicated */
	bool removed;
	unsigned moving;	 /* RENAME entries delivered that the applier has not got to */
	bool wal_mode;		 /* page 1 says so */
	uint64_t version, index; /* of the entry that led to it */
	struct wrep_pagesum sum;
	bool unproven; /* restored, and what the log's tail holds is not all applied again yet */
	struct wrep_parts *parts;     /* of the open transaction; a reference, or NULL */
	struct wrep_parts *unapplied; /* of committed ones that the files lag behind; references */
	/* local */
	uint64_t local_version, local_index;
	bool local_wal_mode;
	bool touched;	/* since the manifest last told of it */
	unsigned holds; /* idle.c: opens of its files, and others who use their descriptors */
	bool unsynced;	/* its files were written to since they were synced */
	bool wal_held;	/* the manifest counts on frames of the -wal: see keeper.c */
	bool wal_aside; /* restored: there may be a -wal that was moved aside (restore.c) */
	bool wal_going; /* the applier may be starting it over, or removing it: no manifest counts on it */
	pthread_cond_t wal_gone; /* it is done with that: wrep_gate_wal_gone() */
	bool retired; /* its file is being replaced by what a peer has: nobody may see it (fetch.c) */
	bool lost;    /* restored without its file */
	bool damaged;	   /* its file is, and no other node has a copy: nobody can open it */
	bool gated;	   /* the applier holds the writers' lock: applications here cannot write */
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
	struct wrep_direct direct;
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
	bool feeding;  /* a thread is submitting entries of transactions here */
	struct wrep_ahead *ahead;    /* parts that leave before their transaction is complete */
	struct wrep_outgoing *spent; /* parts that wait for nothing: a DISCARD is to be submitted */
	unsigned opens;		     /* of the database file, by applications */
	bool conn_idle;		     /* the applier knows, or will, that nobody has it open */
	bool folding; /* the applier is about to fold it: opens go through its queue (fold.c) */

	/* the applier's own */
	struct wrep_conn *conn;
	uint32_t frames_to_copy; /* in the -wal that the daemon wrote, not checkpointed yet */

	struct wrep_db *next_idle; /* guarded by w->idle_lock; the queue has a reference */
	bool idle_listed;
};

/* What the application waits for in rollback mode. */
enum wrep_trigger {
	WREP_TRIGGER_NONE,
	WREP_TRIGGER_UNLINK,
	WREP_TRIGGER_TRUNCATE,
	WREP_TRIGGER_WRITE,
	/* without a journal */
	WREP_TRIGGER_SYNC,
	WREP_TRIGGER_CLOSE,
};

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
	WREP_ITEM_OPEN,		 /* an application opens the database: catch up, close the gate */
	WREP_ITEM_READY,	 /* somebody waits until this node has caught up */
	WREP_ITEM_VIEW,		 /* leadership changed */
	WREP_ITEM_TAKE_BACK,	 /* what is written under journals that nobody sees */
	WREP_ITEM_CAUGHT_UP,
	WREP_ITEM_POINT, /* the keeper waits until what is queued so far is in the files */
	WREP_ITEM_IDLE,	 /* the last application closed a database that has a gate */
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

#define WREP_BUCKETS 1024

struct wrep {
	struct wrep_config config;
	struct rlog *log;
	uint64_t node_id;
	uint64_t origin;	   /* of this process's transactions */
	_Atomic uint64_t sequence; /* of the next one */
	uint64_t commit_timeout_ms;

	pthread_mutex_t lock; /* the tables, the queue, the waiting opens, the view */
	/* by_id follows the log, as `tree` does. by_name and dirs are what applications see: the applier
	 * moves them, and `names_index` with them: the entry that these are as of. */
	struct wrep_db *by_name[WREP_BUCKETS];
	struct wrep_db *by_id[WREP_BUCKETS];
	struct wrep_file *supers; /* super.c: references */
	struct wrep_dir *dirs[WREP_BUCKETS];
	struct wrep_dir *retired_dirs; /* while a fetch goes on */
	unsigned top_dirs;	       /* directories at the top */
	uint64_t names_index;
	struct wrep_departure *departures; /* that wait until a database is closed */
	pthread_mutex_t stray_lock;	   /* stray.c; a leaf */
	struct wrep_stray *strays;	   /* stray_lock */
	uint64_t stray_next;		   /* stray_lock */
	/* All names as the log says them; who deals with entries owns it. */
	struct wrep_tree *tree;
	uint64_t names_skip; /* restored as of this entry: those up to it change no names */
	struct rlog_view view;
	uint64_t view_sequence;
	uint64_t led_term; /* the last in which a leader was known */
	_Atomic bool
		caught_up; /* everything up to the leader's commit index at first contact is local */
	bool closing, failed;
	bool stopped;		   /* who closes it: the applier and the log are gone */
	struct wrep_item *waiting; /* opens that wait for caught_up */
	struct wrep_item *queue_head, **queue_tail;
	size_t queue_bytes;
	bool queue_full;	 /* raftlog was told -EAGAIN */
	uint64_t delivered_term; /* of the newest entry; raftlog's thread's own */
	bool resumable;		 /* `log` is set: rlog_resume() may be called */
	pthread_cond_t queue_wake;

	/* Entries handed over by raftlog, barriers aside: the last one that is dealt with, and that which
	 * is being dealt with. */
	_Atomic uint64_t delivered, delivering;
	_Atomic uint64_t taken;		  /* items, but for views, that the applier has come to */
	_Atomic uint64_t delivered_bytes; /* of all entries, since the start */
	_Atomic unsigned aheads; /* databases with parts of an incomplete transaction out */
	uint64_t redo_until;	 /* restored files may hold what entries up to here wrote */
	uint64_t
		prove_from; /* a peer's files were as of entries up to here: no proof before; lock */
	_Atomic bool prove_waits; /* raftlog has told that this node caught up, but for that */
	bool restored;		  /* from a snapshot; const after rlog_open() */
	/* raftlog's thread holds it while it deals with an entry, and looks at `fetching` inside. */
	pthread_mutex_t delivery;
	/* GROUP entries behind the snapshot that took effect, and up to which entry the manifest says so: see
	 * group.c. Guarded by `delivery`. */
	struct wrep_manifest groups; /* without databases */
	bool fetching;	    /* lock: nothing is delivered until the files are whole again */
	bool fetch_running; /* lock: the applier is at it; it uses `log` */
	int fetch_fd;	    /* lock: its connection, or -1 */
	_Atomic uint64_t compared_bytes, fetched_bytes;
	unsigned damages; /* lock: this and the next two are for wrep_health() */
	char last_damage[WREP_DAMAGE_SIZE];
	int64_t last_damage_at;
	struct wrep_keeper *keeper;
	struct wrep_scrub *scrub;
	struct wrep_exclusive *exclusive;
	pthread_mutex_t idle_lock; /* a leaf: the databases that are idle and not synced (idle.c) */
	struct wrep_db *idle, **idle_tail;
	unsigned idle_count;
	int fd_limit,
		fd_spare; /* of the process; those from fd_spare on are for the daemon alone */
	_Atomic uint64_t short_logged_ms;
	struct offer *offers; /* lock: peers that fetch */
	unsigned offer_count;
	pthread_cond_t peers_gone; /* an offer ended, or a fetch */
	bool opened;		   /* lock: wrep_open() has put everything in its place */

	_Atomic bool unmounted;	  /* see wrep_unmounted() */
	_Atomic bool taking_back; /* a TAKE_BACK item is queued */
	/* This node leads, or led last and knows of no other leader: applications may write. */
	_Atomic bool may_write;
	pthread_t applier;
	bool applier_running;
	/* The applier's own: databases whose connection it keeps although they are idle, oldest first,
	 * and whether it lacks descriptors for more. */
	struct wrep_item *idle_conns, **idle_conns_tail;
	unsigned idle_conn_count, closed_conns;
	uint64_t gates_not_before_ms;
	_Atomic pid_t applier_tid;
};

/* replica.c */
void wrep_logf(struct wrep *w, char level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* A line that says what is damaged here; wrep_health() tells of it, too. */
void wrep_damagef(struct wrep *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void wrep_fatalf(struct wrep *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Index of the first entry of the oldest transaction in parts that is open, or committed but not in the
 * files yet; 0 when there is none. The log must keep what is there from it on, and a snapshot must lie
 * before it: a node that lacked a part would judge the COMMIT otherwise than the rest. db->lock held. */
uint64_t wrep_parts_first_index(const struct wrep_db *db);
/* The transaction of `parts` (NULL: it had none) is committed, and queued for the applier; later, it is
 * in the files. db->lock held. */
void wrep_parts_queued(struct wrep_db *db, struct wrep_parts *parts);
void wrep_parts_applied(struct wrep_db *db, struct wrep_parts *parts);
/* An entry of `term` was delivered: open transactions of older terms have no COMMIT to come. Takes
 * the locks it needs. [any thread] */
void wrep_parts_drop_dead(struct wrep *w, uint64_t term);

/* End the request of a CREATE, UNLINK, SETATTR, MKDIR, RMDIR or RENAME; NULL: it was another node's. */
void wrep_meta_finish(struct rlog_request *req, int result);
/* The same when the applier has done it. Fills in buf and what is the request's, which is freed. */
void wrep_meta_push(struct wrep *w, struct wrep_item *item, struct rlog_buf *buf,
		    struct rlog_request *req);
/* It is removed, as the log says: no entry finds it any more. */
void wrep_db_unlinked(struct wrep_db *db);

/* db.c */
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
/* The database's file of `kind`, with a reference: the current incarnation, which is opened from the
 * backing directory if it is there; NULL if not. db->lock held. */
struct wrep_file *wrep_db_file(struct wrep_db *db, enum wrep_kind kind);
/* Forget the current incarnation of a file (its name went). db->lock held. */
void wrep_db_forget_file(struct wrep_db *db, enum wrep_kind kind);
void wrep_db_backing_name(const struct wrep_db *db, enum wrep_kind kind,
			  char name[WREP_NAME_MAX + 16]);
/* An incarnation over the open backing file `fd`, which it owns from then on; -1: opened with the next
 * hold, `ino` is its inode then. db->lock held. */
int wrep_file_make(struct wrep_db *db, enum wrep_kind kind, int fd, ino_t ino,
		   struct wrep_file **out);
/* Forget what was written and not committed; wrep_commit_feed() tells the other nodes. db->lock held. */
void wrep_db_drop_overlay(struct wrep_db *db);
/* All who have the database open lose it: the name leads to a new incarnation of its file, and those of
 * its -wal and -shm are forgotten. `lost`: they are to learn that what they wrote is (they learn it anyway
 * where that was not committed yet). False, and nothing happens, while a transaction is undecided, or when the
 * database was removed, so that its names may be another's. The connection of the applier is closed before.
 * Applier only; no lock held. */
bool wrep_db_revoke(struct wrep_db *db, bool lost);
/* The undecided transaction is decided: if the database was removed meanwhile, let its files go.
 * db->lock held. */
void wrep_db_settled(struct wrep_db *db);
int wrep_dir_fd(const struct wrep *w, enum wrep_kind kind);

/* idle.c: whose files are open. */
void wrep_idle_init(struct wrep *w);
void wrep_idle_destroy(struct wrep *w);
/* Until the counterpart the descriptors of all incarnations in db->files are there. 0; -ENOENT: the
 * database's own is gone from the data directory (wrep_db_missing()); -EMFILE; -errno. `internal`: not
 * for an application. db->lock held. */
int wrep_db_hold(struct wrep_db *db, bool internal);
void wrep_db_unhold(struct wrep_db *db);
/* The counterpart of the hold that an open of `f` took. db->lock held. */
void wrep_file_let_go(struct wrep_file *f);
/* Something that kept the files open has ended: close them if it was the last. db->lock held. */
void wrep_db_rest(struct wrep_db *db);
/* A hold found the database file missing: repair it. No lock held. */
void wrep_db_missing(struct wrep_db *db);
/* Does `error` say that there are no descriptors left? Then a line says so, now and then. */
bool wrep_out_of_descriptors(struct wrep *w, int error, const char *name);
/* Is this descriptor one of the last, which applications may not use up? */
bool wrep_descriptor_is_spare(const struct wrep *w, int fd);
/* Sync and close some of those that are idle, if they are many. Keeper only. */
bool wrep_idle_many(struct wrep *w);
void wrep_idle_trim(struct wrep *w);
void wrep_idle_clear(struct wrep *w); /* nothing is enlisted any more */

/* commit.c: an application's transaction on its way through Raft. */

/* The PAGES entries of a transaction that leave this node. Guarded by the database's lock. They belong
 * to the commit, or before there is one to db->ahead, or, when `given_up`, to nobody: then they go with
 * the last that is in flight. */
struct wrep_outgoing {
	uint64_t sequence;
	uint32_t next_part; /* the next to be submitted */
	uint32_t in_flight; /* submitted, their end not told */
	uint64_t term;	    /* of the parts delivered, 0: none yet */
	int failed;	    /* -errno: given up, their COMMIT will not be submitted */
	bool given_up;
	struct wrep_outgoing *next; /* in db->spent */
};
struct wrep_outgoing *wrep_outgoing_new(struct wrep *w); /* NULL: no memory */
/* Make `buf` (taken in any case) the next of them, to be submitted. db->lock held. NULL: no memory. */
struct rlog_request *wrep_outgoing_part(struct wrep_db *db, struct wrep_outgoing *out,
					struct rlog_buf *buf);
/* The owner lets go of them. Whoever calls this ends with wrep_commit_feed(). db->lock held. */
void wrep_outgoing_give_up(struct wrep_db *db, struct wrep_outgoing *out, int error);

struct wrep_commit {
	struct rlog_request request; /* first */
	struct wrep_db *db;
	struct wrep_op *op;
	struct wrep_group *group; /* whose entry its COMMIT becomes a part of, or NULL */
	enum wrep_commit_mode mode;
	enum wrep_trigger trigger;
	uint64_t journal_size;	/* TRUNCATE: the journal's size to be */
	uint8_t *journal_bytes; /* WRITE: what is written to the journal ... */
	size_t journal_len;
	uint64_t journal_off;	  /* ... and where */
	uint64_t direct_sequence; /* SYNC, CLOSE: of which session */
	bool strays;		  /* which has what lay beside it */
	struct wrep_attr times;	  /* to be set behind it; valid 0: none */
	struct wrep_op *sharers;  /* more ops, linked by `next`, that end as `op` does */
	struct wrep_op *writers;  /* and of processes that write: they shall try again */
	uint64_t base_version;
	uint64_t index; /* of its COMMIT, once that is committed */
	uint64_t checksum;
	uint32_t page_size, page_count;
	bool sets_wal_mode, wal_mode; /* page 1 is among the pages */
	struct wrep_page_change *changes;
	uint32_t change_count;
	bool reserved; /* ROLLBACK: room behind the end of the database file */

	/* How far it is. Guarded by db->lock. */
	const struct wrep_wal_txn *txn; /* WAL: where its images are; the capture's */
	struct wrep_outgoing *out;
	uint32_t guessed;    /* parts that left before it was complete */
	uint32_t *unsent;    /* which of the images are not in them (NULL: all) ... */
	uint32_t send_count; /* ... and how many these are */
	uint32_t *dropped;   /* pages that are in them and not of the transaction */
	uint32_t dropped_count;
	uint32_t parts; /* PAGES entries before the COMMIT */
	bool sent;	/* so is the COMMIT: what becomes of it decides */
	/* Of a group: its turn to have its parts submitted has come; it is over. */
	bool started, arrived;
};
void wrep_commit_free(struct wrep_commit *c);
/* Tell all who wait for it; the caller frees it. No lock held. */
void wrep_commit_tell(struct wrep_commit *c, int result);
/* It is not decided any more (`db->pending` is cleared), and its application's files show the state
 * before, or, with `result` 0, what others made of it. Tells, and frees, at once or later. No lock held. */
void wrep_commit_end(struct wrep_commit *c, int result);

/* A PAGES entry of this node that is on its way. */
struct wrep_part_request {
	struct rlog_request request; /* first */
	struct wrep_db *db;	     /* a reference */
	struct wrep_outgoing *out;
};
/* It was delivered, in `term`; `counts`: its database is there. Frees the request. */
void wrep_commit_part_delivered(struct rlog_request *req, uint64_t term, bool counts);
/* The parts cannot be kept here. False: too late, the COMMIT is on its way, or they are not those of
 * an undecided transaction of this node. */
bool wrep_commit_give_up(struct wrep_db *db, const struct wrep_parts *parts, int error);

/* A write completed `txn`; db->lock held on entry, released before the return. */
int wrep_commit_wal(struct wrep_db *db, const struct wrep_wal_txn *txn, struct wrep_op *op);
/* A journal is being removed, truncated or zeroed by the application: agree on what the overlay
 * holds. db->lock held on entry; released when WREP_PENDING or an error is returned, still held
 * when 0 is returned: then nothing was to be agreed on, and the caller does what was asked. */
int wrep_commit_rollback(struct wrep_db *db, struct wrep_commit *shape);
/* The same for a member of `c->group`: 1: it is the undecided transaction, but nothing is submitted yet;
 * 0: nothing is to be agreed on, or -errno; then `c` is freed. db->lock held. */
int wrep_commit_prepare(struct wrep_db *db, struct wrep_commit *c);
/* The COMMIT of a member whose parts are delivered, and then its images, in the place that was made. The
 * latter from now on cannot be given up any more; -errno when it has been. db->lock held. */
void wrep_commit_describe(const struct wrep_commit *c, struct wrep_entry *e);
int wrep_commit_fill(struct wrep_commit *c, struct wrep_entry *e);
/* It is undecided no more, and took no effect on the files here; `refused`: nor will it, so its parts need
 * not be kept. Frees it. No lock held. */
void wrep_commit_dismiss(struct wrep_commit *c, bool refused);
/* The shape that the overlay leaves behind, from the header of page 1; false: no database. Both 0: an
 * empty one. `whole`: all pages that the header speaks of are there. db->lock held. */
bool wrep_overlay_shape(struct wrep_db *db, uint32_t *page_size, uint32_t *page_count, bool *whole);
/* Submit what there is to be submitted of the database's transactions. db->lock held, released. */
void wrep_commit_feed(struct wrep_db *db);
/* Do to the journal what the application asked for. db->lock held. */
int wrep_commit_pull_trigger(struct wrep_db *db, const struct wrep_commit *c);

/* A commit was refused for certain: a line says why, now and then. [any thread, any lock] */
#define WREP_REFUSED_NO_LEADER "this node does not lead, or does not any more"
#define WREP_REFUSED_TOO_LATE "the database has changed since it began"
void wrep_commit_log_refused(struct wrep_db *db, const char *why);

/* Tell all nodes that these parts wait for nothing. Behind a COMMIT whose outcome is unknown it does no
 * harm: the log keeps the order in which the two were submitted. No lock held. */
void wrep_submit_discard(struct wrep *w, uint64_t db_id, uint64_t origin, uint64_t sequence);

/* What a SETATTR of a database or directory says. */
void wrep_setattr_entry(uint64_t id, const struct wrep_attr *attr, struct wrep_entry *e);
/* Submit a SETATTR entry: as wrep_submit_meta(). */
int wrep_submit_attr(struct wrep_db *db, const struct wrep_attr *attr, struct wrep_op *op);
/* Submit an entry of CREATE, UNLINK, SETATTR, MKDIR, RMDIR or RENAME; `op` is finished by the applier. */
int wrep_submit_meta(struct wrep *w, struct wrep_db *db, const struct wrep_entry *e, int open_flags,
		     struct wrep_op *op);

/* A request as it comes back to replica.c's apply: the kind is told by which struct it heads. */
struct wrep_meta_request {
	struct rlog_request request; /* first */
	struct wrep *w;
	int open_flags;
	struct wrep_op *op;
};

/* ahead.c: what is sent of a transaction before it is complete. db->lock held, but for
 * wrep_ahead_look(). Where something may be to be submitted afterwards, wrep_commit_feed() does it. */
/* An ordinary write of the application's is in the -wal: to be fed. */
void wrep_ahead_wrote_wal(struct wrep_db *db);
/* One is in the overlay, where there was nothing yet: to be fed. */
void wrep_ahead_wrote_overlay(struct wrep_db *db, size_t len, uint64_t off);
/* The next part, if there is enough for one and room for it; NULL. */
struct rlog_request *wrep_ahead_next(struct wrep_db *db);
/* Their owner from now on is `c`, the commit of what they are parts of: fills in which images are left to
 * be sent. NULL: there are none, or none of use, and all images are. */
struct wrep_outgoing *wrep_ahead_take(struct wrep_db *db, struct wrep_commit *c);
/* Those that are out now, or NULL. */
struct wrep_outgoing *wrep_ahead_outgoing(struct wrep_db *db);
/* Send no more of the transaction that the application is at, and have discarded what was: to be fed. */
void wrep_ahead_stop(struct wrep_db *db);
void wrep_ahead_forget(struct wrep_db *db); /* and that transaction is over: to be fed */
/* Stop those that lead nowhere, or all. No lock held. */
void wrep_ahead_look(struct wrep *w, bool all);

/* applier.c */
int wrep_applier_start(struct wrep *w);
void wrep_applier_stop(struct wrep *w);	 /* w->closing is set */
void wrep_journals_look(struct wrep *w); /* the keeper: see wrep_unmounted() */
void wrep_applier_end_rest(
	struct wrep *w); /* and once nobody pushes any more: what has come since */
/* Append to the queue; takes the item and what it references. Never fails. */
void wrep_applier_push(struct wrep *w, struct wrep_item *item);
struct wrep_item *wrep_item_new(enum wrep_item_type type, struct wrep_db *db);
void wrep_item_free(struct wrep_item *item);

bool wrep_stopping(struct wrep *w);
bool wrep_fetching(
	struct wrep *w); /* everything is about to be replaced: what is queued comes again */
/* What may be done while something is waited for: the opens that are queued. Applier only. */
void wrep_serve_opens(struct wrep *w);
/* Is it space, or descriptors, that an attempt lacked? Then it is worth another one, */
bool wrep_is_shortage(int rc);
/* after a while. `logged`: when a full disk was last told of. Applier only. */
void wrep_wait_for_space(struct wrep *w, const char *name, int rc, uint64_t *logged);
struct timespec wrep_to_timespec(int64_t ns, bool omit);
/* Let the writers of a database in; its connection goes. Applier only. */
void wrep_gate_open(struct wrep_db *db);

/* direct.c: a database file written without a journal. */

/* May the thread that asks write to the database file, and are the writes under a journal or do they begin a
 * session of their own? 0, -EBUSY, -EROFS; with a log line. WREP_PENDING: something comes first,
 * wrep_direct_put_off(). -EAGAIN: others have it open, wrep_departure_...(). db->lock held. */
int wrep_direct_admit(struct wrep_file *f, struct wrep_op *op);
/* The same, with O_TRUNC, for who is about to open the file. */
int wrep_direct_admit_open(struct wrep_file *f, int flags, struct wrep_op *op);
/* Does this node lead, and is the gate open? db->lock held. */
bool wrep_direct_may_write(const struct wrep_db *db);
/* A write, or cut, that was admitted has failed, or one was not. db->lock held. */
void wrep_direct_failed(struct wrep_db *db);
/* The database file was written, or cut: commit it at once, whoever did it. db->lock held, released.
 * As wrep_file_sync(). */
int wrep_direct_commit(struct wrep_db *db, enum wrep_trigger trigger, struct wrep_op *op);
/* Commit the session that is there, on which `op` would build, or have watched for the end of the one that
 * `op` would begin; then `op` is to be tried again: -EINTR, or -EIO. db->lock held, released. */
int wrep_direct_put_off(struct wrep_db *db, struct wrep_op *op);
/* As exclusive.h wants it. No lock held. */
bool wrep_direct_look(struct wrep_db *db);
/* Is what waits for Raft a session that nobody's call waits for? db->lock held. */
bool wrep_direct_is_ending(const struct wrep_db *db);
/* A process closes the database file, which it, or another that left it the descriptor, may have
 * written. db->lock held, released. As wrep_file_flush(). */
int wrep_direct_flush(struct wrep_file *f, struct wrep_op *op);
/* A descriptor of the database file is gone. What is to be pushed to the applier once the lock is free, or
 * NULL. db->lock held. */
struct wrep_item *wrep_direct_released(struct wrep_db *db);
/* A file was copied beside the database, which is a copy as well, and which nobody has open: commit what it says.
 * db->lock held, released. As wrep_file_flush(). */
int wrep_direct_take_strays(struct wrep_db *db, struct wrep_op *op);
/* Is it what was copied here a short time ago, and nothing else since? Alone; or with what was played at
 * `played_index`, which has been appended to. db->lock held. */
bool wrep_direct_is_copy(const struct wrep_db *db, uint64_t played_index);
/* A copy over the database is committed, `strays`: with what lay beside it. db->lock held. */
void wrep_direct_copied(struct wrep_db *db, uint64_t index, bool strays);
/* The commit of a session took no effect: take it back, and then tell `result`. Takes `c`. No lock held. */
void wrep_direct_refused(struct wrep_commit *c, int result);
/* The daemon ends: take back what is written without a journal, of which nothing else tells a reader that it is
 * not committed. */
void wrep_direct_end_all(struct wrep *w);
/* Applier only. */
void wrep_direct_revert(struct wrep *w, struct wrep_item *item);
/* Before the gate closes: nobody writes without locks any more, nor is about to leave WAL mode, in which
 * the gate will be. Applier only. */
void wrep_direct_shut_out(struct wrep_db *db);

/* keeper.c: the durable point. */
uint64_t wrep_log_bytes(const struct wrep *w); /* what the log is kept about as small as */
int wrep_keeper_new(struct wrep *w);	       /* before raftlog opens */
int wrep_keeper_start(struct wrep *w);	       /* and after */
void wrep_keeper_stop(struct wrep *w);	       /* no manifest is written after it */
void wrep_keeper_free(struct wrep *w);
void wrep_keeper_wake(
	struct wrep *w); /* to trim the idle ones; any lock but the keeper's may be held */
/* An entry of that many bytes has been delivered. */
void wrep_keeper_delivered(struct wrep *w, size_t bytes);
/* The files of a database that are to be synced. */
struct wrep_synced {
	struct wrep_file *files[2]; /* the database's, and its -wal or NULL; references */
};
/* Of a database that is held; the hold passes to `s`. db->lock held. */
void wrep_synced_take(struct wrep_db *db, struct wrep_synced *s, bool wal);
void wrep_synced_drop(struct wrep_db *db, struct wrep_synced *s); /* no lock held */
/* Make them durable. 0, or -errno: the node stops. No lock held. */
int wrep_keeper_sync(struct wrep_db *db, const struct wrep_synced *s);
/* The manifest no longer counts on the -wal of `db`, and its file is durable with all that the -wal
 * held. 0, -EBUSY (the file does not hold all of it), -errno. Blocks on the disk. db->lock not held;
 * not on raftlog's thread nor on one that serves requests. */
int wrep_keeper_release(struct wrep_db *db);
/* What an application asked for must wait until the -wal may go; then it is done and `op` finished. */
enum wrep_deferral { WREP_DEFER_WRITE, WREP_DEFER_TRUNCATE, WREP_DEFER_UNLINK };
int wrep_keeper_defer(struct wrep_file *f, enum wrep_deferral what, const void *buf, size_t len,
		      uint64_t off, struct wrep_op *op); /* WREP_PENDING or -ENOMEM */
/* Take a durable point now; waits until it is taken. 0, -EAGAIN (this node is not whole itself),
 * -ETIMEDOUT, -errno. */
int wrep_keeper_point(struct wrep *w, unsigned timeout_ms);
/* A peer is about to be given the snapshot, which from now on stays the newest, but for points asked for,
 * until wrep_keeper_unhold(), whatever is returned. A fresh one is taken for it, so that little is to be
 * applied again; but where another peer is at it, or was until shortly, that one needs the log from its
 * own on, so both get the same. Waits, and returns, as wrep_keeper_point(). */
int wrep_keeper_hold(struct wrep *w, unsigned timeout_ms);
void wrep_keeper_unhold(struct wrep *w);
/* The databases are about to be replaced: a point that is under way is dropped. */
void wrep_keeper_void(struct wrep *w);
/* The same for names that change at once with the manifest: between the two no manifest is written.
 * wrep_keeper_rename() writes one that says what the last one says, but calls `db` by its new name, says
 * that it needs no -wal, and has all other names as they are, without `replaced`. 0, -EBUSY (none is
 * written any more), -errno. [applier] */
void wrep_keeper_lock(struct wrep *w);
void wrep_keeper_unlock(struct wrep *w);
int wrep_keeper_rename(struct wrep_db *db, const char *name, const struct wrep_db *replaced,
		       uint64_t index);
/* What the manifest says from now on (after a restart, or a fetch). Takes `m`'s content. */
void wrep_keeper_adopt(struct wrep *w, struct wrep_manifest *m, uint64_t index);

/* restore.c */
int wrep_restore(struct wrep *w, const struct wrep_manifest *m, uint64_t last_index);
/* Nothing is known of this node's files: remove what lies there. */
int wrep_restore_nothing(struct wrep *w);
/* Do the hashes of this database add up to its checksum, now that the tail is applied? */
bool wrep_prove(struct wrep_db *db); /* db->lock held */
void wrep_wal_aside_remove(struct wrep *w, uint64_t id);

/* dir.c: directories. */
struct wrep_dir {
	_Atomic unsigned refs;
	struct wrep *w;
	uint64_t id;
	bool shown;	       /* w->lock: in w->dirs */
	bool retired;	       /* w->lock: what the log says of it comes again, after a fetch */
	bool changed;	       /* w->lock: the directory itself is not synced */
	unsigned subdirs;      /* w->lock: directories in it that are shown */
	struct wrep_dir *next; /* w->lock: in w->dirs, or w->retired_dirs */
	_Atomic(void *) host_data;
	char path[];
};
/* Committed entries. [raftlog's thread] */
void wrep_mkdir_delivered(struct wrep *w, uint64_t index, const struct wrep_entry *e,
			  struct rlog_buf *buf, struct rlog_request *req);
/* SETATTR and RMDIR of what is no database. */
void wrep_dir_delivered(struct wrep *w, uint64_t index, const struct wrep_entry *e,
			struct rlog_buf *buf, struct rlog_request *req);
/* And their local halves. [applier] */
void wrep_dir_make(struct wrep *w, struct wrep_item *item);
void wrep_dir_remove(struct wrep *w, struct wrep_item *item);
void wrep_dir_set_attributes(struct wrep *w, struct wrep_item *item);
/* The directory that `path` is in has changed. [applier, keeper] */
void wrep_dir_touch(struct wrep *w, const char *path);
/* Sync the directories that have changed; the top always. 0 or -errno. [keeper, applier] */
int wrep_dirs_sync(struct wrep *w);
/* Enter all of them into the manifest; w->lock held. 0 or -ENOMEM. Then say what they look like. */
int wrep_dirs_note(struct wrep *w, struct wrep_manifest *m);
void wrep_dirs_describe(struct wrep *w, struct wrep_manifest *m);
/* Make those of the manifest on the disk, with `attributes` as it says, and let them be found. */
int wrep_dirs_prepare(struct wrep *w, const struct wrep_manifest *m, bool attributes);
int wrep_dirs_restore(struct wrep *w, const struct wrep_manifest *m);
/* Nobody sees a directory any more, and the tree is empty. Nothing is delivered meanwhile. */
void wrep_dirs_retire(struct wrep *w);
void wrep_dirs_release(
	struct wrep *w); /* at the end, or after a restore those that did not return */

/* fold.c: a database that nobody has open is complete in its file. */
/* Has the last who had it open left something? db->lock held. */
bool wrep_fold_is_due(struct wrep_db *db);
/* See to that; `db->folding` ends. Applier only, no lock held, not the keeper's either. */
void wrep_fold(struct wrep_db *db);

/* departure.c: requests that want a database to themselves wait until nobody else has it open. */
struct wrep_departure {
	struct wrep_departure *next; /* w->lock */
	struct wrep_db *db;	     /* the list has a reference */
	unsigned own;		     /* so many opens of it are those of who asks */
	uint64_t until_ms;
	/* Try again, which is refused when time is up, or, `closing`, end it with -EIO. Takes `d`. No lock
	 * held. [any thread] */
	void (*go_on)(struct wrep_departure *d, bool closing);
};
/* How long a request may wait, from its first attempt on; and has it? */
uint64_t wrep_departure_deadline(struct wrep_op *op);
bool wrep_departure_late(struct wrep_op *op);
/* Takes `d`, with WREP_PENDING; else -EIO. No lock held. */
int wrep_departure_wait(struct wrep_departure *d);
/* The same for what was asked for with `op`: WREP_PENDING or -errno. No lock held. */
int wrep_departure_open(struct wrep_file *f, int flags, struct wrep_op *op);
int wrep_departure_write(struct wrep_file *f, const void *buf, size_t len, uint64_t off,
			 struct wrep_op *op);
int wrep_departure_truncate(struct wrep_file *f, uint64_t size, bool opened, struct wrep_op *op);
int wrep_departure_create(struct wrep_db *db, const char *name, mode_t mode, uid_t uid, gid_t gid,
			  int flags, struct wrep_op *op);
/* A stray is closed, and wants `db`. */
int wrep_departure_flush(struct wrep_file *stray, struct wrep_db *db, struct wrep_op *op);
/* A database was closed, or some time has passed: those that wait go on, or end. No lock held. */
void wrep_departures_look(struct wrep *w);

/* rename.c */
void wrep_rename_delivered(struct wrep *w, struct wrep_db *db, uint64_t index,
			   const struct wrep_entry *e, struct rlog_buf *buf,
			   struct rlog_request *req);
void wrep_rename_run(struct wrep *w, struct wrep_item *item); /* applier */
/* Where a database's file lies while it has no name: to where it belongs. After a crash. 0 or -errno. */
int wrep_moved_place(struct wrep *w, uint64_t id, const char *name);
int wrep_moved_tidy(struct wrep *w); /* remove what is left of them */

/* fetch.c */
/* This node's files are unfit, for the reason given: no entry is delivered any more, and the applier
 * gets them from the leader. `db`: whose file is damaged, or NULL. Where no other node has a copy, that
 * database alone is taken out of service. No lock held. [any thread] */
void wrep_fetch_wanted(struct wrep *w, const char *reason, struct wrep_db *db);
void wrep_fetch_stop(struct wrep *w); /* w->closing is set: ends it, and waits */
void wrep_fetch_run(struct wrep *w);  /* applier */
bool wrep_fetch_marked(struct wrep *w);

/* offer.c: the other side of it. */
void wrep_offer(struct wrep *w, int fd, uint64_t from_id);
void wrep_offers_stop(struct wrep *w); /* w->closing or w->fetching is set: ends them, and waits */

/* scrub.c */
int wrep_scrub_start(struct wrep *w);
void wrep_scrub_stop(struct wrep *w);
/* `len` bytes were asked for of the database file at `off`, and `got` were read: are the pages in there
 * what was committed? If not, this node's copy is on its way to be repaired, and nobody shall get what
 * was read. */
bool wrep_pages_are_sound(struct wrep_file *f, const uint8_t *buf, size_t got, size_t len,
			  uint64_t off);
/* Is this the newest content of the page, as far as that can be said now? db->lock held. */
bool wrep_page_is_newest(const struct wrep_db *db, uint32_t pgno, const uint8_t *page);
void wrep_page_damaged(struct wrep_db *db, uint32_t pgno); /* say so, and repair; no lock held */

/* file.c */
/* A transaction is larger than it may be: a line that says so. Returns -ENOSPC. */
int wrep_refuse_large(struct wrep_db *db);
/* The last steps of an open, on whatever thread: holds the database, and counts an application's, unless
 * it is refused. `op` tells who asks; NULL: `internal`. 0, as wrep_db_hold(), -EAGAIN: then
 * wrep_departure_open(), or -errno. db->lock held. */
int wrep_file_opened(struct wrep_file *f, int flags, bool internal, struct wrep_op *op);
/* An open that had to wait: as wrep_file_open(), but what it returns is for wrep_op_finish_open(). */
int wrep_file_open_again(struct wrep_file *f, int flags, struct wrep_op *op);
/* The overlay of the database, empty where there was none. db->lock held. */
int wrep_overlay_begin(struct wrep_file *f);
/* Is there anything in the -wal, old frames included? db->lock held. */
bool wrep_wal_has_frames(struct wrep_db *db);
/* Does the -journal hold what undoes the writes that come now? db->lock held. */
bool wrep_journal_is_hot(struct wrep_db *db);
enum { WREP_OP_OPEN, WREP_OP_CREATE }; /* wrep_op.state: does a failure own op->file? */
void wrep_op_finish_open(struct wrep_op *op, int result);
/* Does the committed image say WAL? (bytes 18 and 19 of page 1, the file format versions) */
static inline bool wrep_page1_is_wal(const uint8_t *page1)
{
	return page1[18] == 2 && page1[19] == 2;
}

#endif
