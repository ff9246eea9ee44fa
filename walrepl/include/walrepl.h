/* walrepl: turns what SQLite writes into replicated transactions, and back.
 *
 * The only header of this folder that fusefs includes. A mount owns one `struct wrep`; it owns the
 * databases' backing files, their replicated state and the raftlog beneath. It knows pages and
 * transactions, not FUSE: the kernel's cache and the mounted names are reached through `struct
 * wrep_host`.
 *
 * Threads. File functions are called by request threads, any number at once; they never wait for
 * Raft or for a lock of SQLite's. What must wait takes a `struct wrep_op` and returns WREP_PENDING;
 * its `done` is called later, once, from another thread. The applier thread (one per wrep) is the
 * only one that calls the host's `mounted_open` and `invalidate`.
 *
 * Lock order: the snapshotter's point_lock, or wrep->delivery; then wrep->lock (the table of databases), then a
 * database's lock. Who needs those of several databases at once takes them in ascending order of their
 * ids. The snapshotter takes `delivery` behind its point_lock. Nobody calls the host, an op's `done` or raftlog's
 * blocking functions while holding wrep->lock or a database's.
 */
#ifndef WALREPL_H
#define WALREPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include "raftlog.h"

struct wrep;
struct wrep_file;
struct wrep_dir;

/* Names are paths relative to the mount, of at most so many bytes (those of side files end with a suffix
 * more), each part of at most 255. */
#define WREP_PATH_MAX 1000
#define WREP_STATE_DIR ".dqlitefs" /* nothing at the top is called so, or begins like it */

/* The four files of a database; the super-journals of transactions over several (txn/super_journal.c), any
 * number, each called after one of them; and what is called like a side file, or is rsync's copy of one, and is
 * no database's (db/stray.h). */
enum wrep_kind { WREP_DB, WREP_WAL, WREP_SHM, WREP_JOURNAL, WREP_SUPER, WREP_STRAY };

/* ---- what walrepl needs from the mount ------------------------------------------------------ */

/* A POSIX lock call on a file of the mount, as fcntl(F_SETLK) made it, or the end of a process. */
struct wrep_lock_call {
	uint64_t number;      /* of the file, as wrep_host's number_of */
	uint64_t first, last; /* the bytes */
	int type;	      /* F_RDLCK, F_WRLCK, F_UNLCK */
	pid_t pid;	      /* of the process; 0: of another pid namespace, or it has ended */
	int result;	      /* 0: done; -EAGAIN: another one's is in the way; -errno */
};

struct wrep_host {
	/* Open `name` through the mount (the private clone): locks taken on this descriptor meet those
	 * of applications. A file descriptor or -errno. [applier] */
	int (*mounted_open)(void *ctx, const char *name, int flags);
	/* Drop `len` bytes at `off` (len 0: everything) of `file`, and its attributes, from the
	 * kernel's cache; no read that starts after the return sees what was cached. [applier] */
	void (*invalidate)(void *ctx, struct wrep_file *file, uint64_t off, uint64_t len);
	/* `file`, of which `fd` is a descriptor of `mounted_open`, was made longer. When this returns, no answer that
	 * names a former size can make the kernel take that for the file's any more. 0 or -errno. [applier] */
	int (*settle)(void *ctx, struct wrep_file *file, int fd);
	/* `file`, of a database that was just created, is about to be found as `name`. True: applications have it
	 * open already, since the mount gave them something in its place, and were counted by
	 * wrep_file_adopt(); they cannot write to it until `let_go` is called, nor as long as `mounted_open`'s next
	 * descriptor of it lives, if that comes first: it has RESERVED locked. Both may be NULL. [applier] */
	bool (*appears)(void *ctx, const char *name, struct wrep_file *file);
	void (*let_go)(void *ctx, const char *name);
	/* The process that thread `tid` belongs to. [any, even under a database's lock: asks the kernel] */
	pid_t (*process_of)(void *ctx, pid_t tid);
	/* The process that holds a POSIX write lock on byte `byte` of the mounted file; 0: nobody; -1: one
	 * of another pid namespace. [as process_of] */
	pid_t (*lock_holder)(void *ctx, struct wrep_file *file, uint64_t byte);
	/* May process `pid` hold it? False only if it is certain that it does not. [as process_of] */
	bool (*may_hold_lock)(void *ctx, pid_t pid, struct wrep_file *file, uint64_t byte);
	/* The number by which the kernel knows the file, never another's. [any, even under a database's lock] */
	uint64_t (*number_of)(void *ctx, struct wrep_file *file);
	/* Tell wrep_lock_called() of all lock calls that touch byte `byte` of any file of the mount, from now on,
	 * or no more. 0, or -errno: that is not to be had. This and wait_lock_calls are one thread's. */
	int (*watch_locks)(void *ctx, uint64_t byte, bool on);
	/* While they are watched: those that had returned when this was called have been told when it
	 * returns. [any, even under a database's lock] */
	void (*read_lock_calls)(void *ctx);
	/* The same, but waits for one so long. */
	void (*wait_lock_calls)(void *ctx, int timeout_ms);
	/* Has that process a descriptor of the mounted file? [as process_of] */
	bool (*has_open)(void *ctx, pid_t tid, struct wrep_file *file);
	/* Does a signal end that thread, or has it? [as process_of] */
	bool (*is_killed)(void *ctx, pid_t tid);
	/* The node cannot go on; `msg` names the remedy. The daemon unmounts and exits. [any] */
	void (*fatal)(void *ctx, const char *msg);
	/* One log line. [any] */
	void (*log)(void *ctx, char level, const char *line);
	/* This node's place changed (for status and logs). [raftlog's thread] */
	void (*view)(void *ctx, const struct rlog_view *view);
};

#define WREP_TRANSACTION_BYTES_DEFAULT (4ull << 30)

struct wrep_config {
	int data_fd; /* directory of the backing files of *.db, -wal, -journal; stays the caller's */
	int state_fd; /* directory of what walrepl keeps about them; stays the caller's */
	int shm_fd;   /* directory, on a tmpfs, of the backing files of -shm; stays the caller's */
	/* Bytes that a transaction may write; 0: WREP_TRANSACTION_BYTES_DEFAULT. What goes beyond it
	 * gets -ENOSPC (SQLite: "database or disk is full", and rolls back). */
	uint64_t max_transaction_bytes;
	const char *const *match; /* further globs that name databases, NULL-terminated, or NULL */
	uint64_t scrub_rate;	  /* bytes of databases read per second to find damage; 0: 8 MiB */
	uint64_t log_bytes;	/* the Raft log is kept about this small; 0: the default, 64 MiB */
	struct rlog_config log; /* without cb and ctx, which walrepl fills */
	struct wrep_host host;
	void *host_ctx;
};

/* Open the log, take up the databases as its snapshot left them, and start to apply what came after;
 * opens wait until that has happened. 0 or -errno with `errmsg`. */
int wrep_open(struct wrep **out, const struct wrep_config *config, char errmsg[RLOG_ERRMSG_SIZE]);

/* The mount that applications see is gone, and some have files open. SQLite finds a -journal by its path, so from
 * now on nobody can finish a transaction in rollback mode that was under way, and readers do not see that it is:
 * such a one is taken back, and all lose the database. [any thread] */
void wrep_unmounted(struct wrep *w);

/* Stop the applier and the log. Pending ops end with -EIO (opens, and what waits until the node has caught up, with
 * -ENOTCONN). Applications change nothing any more, but may look names up, open and read, as long as this runs: the
 * mount must answer that, and the applier's own requests. Afterwards nothing that is not committed is in the
 * kernel's cache. */
void wrep_stop(struct wrep *w);
/* Stops, unless that is done, and frees. Nobody else is inside. */
void wrep_close(struct wrep *w);

struct rlog *wrep_log(struct wrep *w); /* for status and transfer */

/* ---- names ------------------------------------------------------------------------------------ */

/* Is `name` a file of a database by the naming rule (*.db, *.sqlite, *.sqlite3, *.db3, the
 * configured globs, each with -wal, -shm, -journal, -mjXXXXXX9XX)? Fills `kind`, STRAY for rsync's copy of a side
 * file; false when it is none. */
bool wrep_name_kind(const struct wrep *w, const char *name, enum wrep_kind *kind);
/* Why it is none: -ENAMETOOLONG where a shorter one would be, else -EPERM. [any thread] */
int wrep_name_refusal(const struct wrep *w, const char *name);

/* One line for a refused name, naming the rule. */
#define WREP_NAME_RULE                                                                              \
	"only databases (*.db *.sqlite *.sqlite3 *.db3, more with --match GLOB), their -wal, -shm " \
	"-journal and -mj... files, rsync's .NAME.XXXXXX of a database, and directories live here"

/* ---- operations that may wait -------------------------------------------------------------------- */

#define WREP_PENDING 1

struct wrep_op {
	/* `result` is 0 or -errno. After it walrepl does not touch the op again. */
	void (*done)(struct wrep_op *op, int result);
	struct wrep_file *file; /* out, of wrep_create(): a reference */
	pid_t tid;		/* in: the thread that asks; 0: not known */
	bool hasty; /* in, of a write: it is refused rather than wait until others close the file */
	struct wrep_op *next; /* private */
	int state;	      /* private */
	uint64_t until_ms;    /* private; 0 at first */
};

/* Give up waiting, for an op of wrep_file_open() or wrep_wait_ready() only (the caller was
 * interrupted): its `done` gets -EINTR. Any other op ignores this: the outcome of a commit is waited for. */
void wrep_op_interrupt(struct wrep *w, struct wrep_op *op);
/* The same with -ETIMEDOUT, as long as the op waits for this node to catch up, and for nothing else. */
void wrep_op_time_out(struct wrep *w, struct wrep_op *op);

/* ---- files ------------------------------------------------------------------------------------ */

/* One incarnation of a file: unlinking a name and making it again gives another wrep_file, and the
 * old one lives until its last reference goes. `host_data` is the mount's to use. */
struct wrep_file *wrep_file_ref(struct wrep_file *f);
void wrep_file_unref(struct wrep_file *f);
enum wrep_kind wrep_file_kind(const struct wrep_file *f);
const char *wrep_file_name(const struct wrep_file *f);
_Atomic(void *) *wrep_file_host_data(struct wrep_file *f);

/* Has this node caught up? Before, it knows neither all names nor their content. */
bool wrep_is_ready(struct wrep *w);
/* 0 when it has, else WREP_PENDING: `done` once it has (interruptible, see wrep_op_interrupt()). */
int wrep_wait_ready(struct wrep *w, struct wrep_op *op);

/* Does it know names from an earlier time at least? They may have changed since; that is noticed when they are
 * used: opens wait. */
bool wrep_knows_names(struct wrep *w);
/* A number that changes while this node gets nearer to having caught up: it hears of a leader, entries come and
 * are applied, databases are compared and fetched. */
uint64_t wrep_progress(struct wrep *w);

/* The file now called `name`, with a reference; -ENOENT; -EAGAIN: this node has not caught up, and knows of no
 * database to which it would belong. */
int wrep_lookup(struct wrep *w, const char *name, struct wrep_file **out);

/* Calls `each` for every name in the directory `path` ("": the top), without what is in front of it.
 * Returns 0, or what `each` returned when not 0. */
int wrep_list(struct wrep *w, const char *path, int (*each)(void *arg, const char *name),
	      void *arg);

/* Attributes as the applications shall see them (size with uncommitted pages of a rollback-journal
 * transaction). st_ino is not filled in. 0 or -errno; -ESTALE when
 * a database or -wal is no longer called so and nobody has it open. */
int wrep_file_stat(struct wrep_file *f, struct stat *st);

/* What a new file, or directory, is to be. */
struct wrep_new_file {
	mode_t mode;
	uid_t uid;
	gid_t gid;
	int flags; /* of the open that makes a file */
};

/* Make `name` and open it. A database is created on every node (EROFS where this node may not
 * write); side files are local. -EEXIST with O_EXCL, else an existing file is opened. A side file that is copied
 * here is no database's until that is copied, too (db/stray.h): EROFS where this node may not write, -EBUSY while an
 * application has the database open.
 * `internal`: the caller is the applier itself (its thread id: wrep_applier_tid()). 0, WREP_PENDING, -errno; the file
 * comes in op->file. */
int wrep_create(struct wrep *w, const char *name, const struct wrep_new_file *as, bool internal,
		struct wrep_op *op);

/* An application opens the file: -ESTALE when it is no longer called so; waits until this node has
 * caught up and, on a node that may not write, until the fence of the database is closed. -EBUSY while
 * the database is being replaced (txn/unjournaled.c), and with O_TRUNC where somebody has it open; -EMFILE, -ENFILE,
 * and a line in the log, where the daemon has no descriptors left. */
int wrep_file_open(struct wrep_file *f, int flags, bool internal, struct wrep_op *op);
/* The same for who had it open before it was there; waits for nothing. From the host's `appears` only. */
int wrep_file_adopt(struct wrep_file *f);
/* May applications write here, as far as is known? */
bool wrep_may_write(const struct wrep *w);
/* The counterpart, per open, adopt and create; not after wrep_close(). */
void wrep_file_release(struct wrep_file *f, bool internal);

/* The host tells of a lock call; NULL: of some it cannot tell. [any thread, even under a database's lock] */
void wrep_lock_called(struct wrep *w, const struct wrep_lock_call *call);

pid_t wrep_applier_tid(const struct wrep *w);

/* Backing descriptor of a -shm (for passthrough) or a -wal that is open; owned by the file. */
int wrep_file_fd(struct wrep_file *f);

ssize_t wrep_file_read(struct wrep_file *f, void *buf, size_t len, uint64_t off);

/* All of `buf` or nothing. A write that completes a transaction is held back: WREP_PENDING, and
 * `done` once Raft has decided: 0 when committed; -EIO when refused or unknown; -ENOSPC. The bytes
 * are copied where they are needed later. Not for -shm. */
int wrep_file_write(struct wrep_file *f, const void *buf, size_t len, uint64_t off,
		    struct wrep_op *op);
/* `opened`: by a descriptor, else by its name (truncate(2)): of a database then a transaction of its own. */
int wrep_file_truncate(struct wrep_file *f, uint64_t size, bool opened, struct wrep_op *op);

/* fsync. A database that is written without a journal is committed by it (txn/unjournaled.c): as
 * wrep_file_write(). */
int wrep_file_sync(struct wrep_file *f, struct wrep_op *op);

/* Mode, owner, times: of a database on every node, of side files locally. `valid` says which. */
#define WREP_ATTR_MODE 1u
#define WREP_ATTR_UID 2u
#define WREP_ATTR_GID 4u
#define WREP_ATTR_TIMES 8u
struct wrep_attr {
	unsigned valid;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	struct timespec atime, mtime; /* tv_nsec may be UTIME_OMIT; never UTIME_NOW */
};
int wrep_file_setattr(struct wrep_file *f, const struct wrep_attr *attr, struct wrep_op *op);

/* Remove a name. Of a -journal that holds a transaction: its commit. Of a super-journal: the commit of all
 * whose -journals name it. */
int wrep_unlink(struct wrep *w, const char *name, struct wrep_op *op);

/* Give a database another name; a database that has it is removed with that. `flags`: RENAME_NOREPLACE
 * or 0. While an application has it open, which a moment later it may not any more, this waits a little.
 * -EBUSY when it stays open, -EEXIST, -EISDIR, -EXDEV (a directory), -EPERM (a database's side file, or no name
 * for what it is), -EROFS (this node may not write), WREP_PENDING. What is no database's is renamed here alone. */
int wrep_rename(struct wrep *w, const char *from, const char *to, unsigned flags,
		struct wrep_op *op);

/* ---- directories -------------------------------------------------------------------------------- */

/* One incarnation of a directory: removing it and making it again gives another. The top has none.
 * `host_data` is the mount's to use. */
struct wrep_dir *wrep_dir_ref(struct wrep_dir *d);
void wrep_dir_unref(struct wrep_dir *d);
const char *wrep_dir_path(const struct wrep_dir *d);
_Atomic(void *) *wrep_dir_host_data(struct wrep_dir *d);

/* The directory now called `path`, with a reference; -ENOENT. */
int wrep_dir_lookup(struct wrep *w, const char *path, struct wrep_dir **out);
bool wrep_dir_is_gone(struct wrep_dir *d); /* removed, also if its name is another's by now */
/* Attributes; st_ino is not filled in. 0; -ESTALE when it is gone; -errno. */
int wrep_dir_stat(struct wrep_dir *d, struct stat *st);
/* How many directories are in the directory `path` ("": the top). */
unsigned wrep_dir_count(struct wrep *w, const char *path);

/* On every node, in order with all else; -EROFS where this node may not write. 0, WREP_PENDING, -errno:
 * -EEXIST, -ENOENT, -ENOTEMPTY, -EPERM (a directory may not be called like a database's file). */
int wrep_mkdir(struct wrep *w, const char *path, const struct wrep_new_file *as,
	       struct wrep_op *op);
int wrep_rmdir(struct wrep *w, const char *path, struct wrep_op *op);
int wrep_dir_setattr(struct wrep_dir *d, const struct wrep_attr *attr, struct wrep_op *op);

/* A descriptor of the file was closed by a process (FUSE's FLUSH, which comes before the kernel drops
 * the process's locks). Of a -shm: repairs the wal-index after a writer that died between its commit
 * and its update of the wal-index. Of a database that was written without a journal: commits, as
 * wrep_file_sync(). */
int wrep_file_flush(struct wrep_file *f, struct wrep_op *op);

/* ---- status ------------------------------------------------------------------------------------ */

#define WREP_DAMAGE_SIZE (2 * WREP_PATH_MAX)

struct wrep_db_status {
	char name[WREP_PATH_MAX + 1];
	uint64_t version, checksum;
	uint32_t page_size, page_count;
	const char *mode; /* "wal", "delete" (any rollback journal), "empty" */
	bool damaged;	  /* its file is, no other node has a copy, and nobody can open it */
	bool uncommitted; /* holds what an application wrote without journal and fsync: here alone */
};

/* All databases, as of the last committed entry handed over. `*out` is free()d by the caller. */
int wrep_databases(struct wrep *w, struct wrep_db_status **out, size_t *count);

enum wrep_state {
	WREP_CATCHING_UP, /* opens wait until what the cluster had committed at the start is applied */
	WREP_FETCHING,	  /* opens wait until the databases have come from the leader */
	WREP_SERVING,
};

struct wrep_health {
	enum wrep_state state;
	uint64_t leader_id; /* 0: none known */
	/* Of the fetch that goes on, or of the last one; of all databases. */
	uint64_t compared_bytes, fetched_bytes;
	unsigned damages;		    /* found since the start */
	char last_damage[WREP_DAMAGE_SIZE]; /* one line, or ""; names in it are as they are */
	int64_t last_damage_at;		    /* seconds since 1970 */
};
void wrep_health(struct wrep *w, struct wrep_health *out); /* [any thread] */

/* ---- looking at the log of a node that does not run --------------------------------------------- */

/* Are the files in the data directory not what the log's snapshot says, because getting them from a leader
 * was not finished? `state_fd` as in wrep_config. */
bool wrep_is_unfit(int state_fd);

enum wrep_description_kind {
	WREP_DESCRIBES_CREATE,
	WREP_DESCRIBES_UNLINK,
	WREP_DESCRIBES_SETATTR,
	WREP_DESCRIBES_PAGES, /* a part of a transaction that one entry cannot hold */
	WREP_DESCRIBES_COMMIT,
	WREP_DESCRIBES_DISCARD, /* the parts before it have no COMMIT */
	WREP_DESCRIBES_GROUP,	/* the COMMITs of several databases, all or none */
	WREP_DESCRIBES_MKDIR,
	WREP_DESCRIBES_RMDIR,
	WREP_DESCRIBES_RENAME,
};

/* What an entry says, without its page images. */
struct wrep_description {
	enum wrep_description_kind kind;
	/* Index of the database's CREATE entry, or the directory's MKDIR; in these themselves 0. */
	uint64_t db_id;
	/* CREATE, MKDIR; of others "" unless wrep_history_add() knows it */
	char name[WREP_PATH_MAX + 1];
	bool is_dir;		    /* as wrep_history_add() knows it; RMDIR */
	char to[WREP_PATH_MAX + 1]; /* RENAME */
	bool keep;		    /* RENAME: not if the name is taken */
	uint64_t replaced; /* RENAME: by wrep_history_add(), the id of the database that goes */
	/* CREATE, MKDIR, SETATTR */
	unsigned attr_valid; /* WREP_ATTR_* */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	/* PAGES, COMMIT, DISCARD */
	uint64_t origin, sequence; /* of the transaction */
	/* PAGES, COMMIT */
	uint32_t part; /* PAGES: 0, 1, ...; COMMIT: how many PAGES came before */
	uint32_t page_size;
	uint32_t pages; /* in this entry */
	/* COMMIT */
	uint64_t base_version;	/* leads from it to base_version + 1 */
	uint64_t checksum;	/* of the whole database afterwards */
	uint32_t total_pages;	/* that count, in all parts */
	uint32_t dropped_pages; /* of the parts, that do not */
	uint32_t page_count;	/* of the database afterwards */
	bool wal;		/* else written with a rollback journal */
	/* GROUP: the COMMITs */
	struct wrep_description *members; /* NULL for other kinds */
	uint32_t member_count;
};

/* 0; -EBADMSG: damaged, or of a later version; -ENOMEM. */
int wrep_describe(const struct rlog_buf *buf, struct wrep_description *out);
void wrep_description_clear(struct wrep_description *d);

/* A database as the snapshot and the entries so far leave it. */
struct wrep_history_db {
	uint64_t id;
	const char *name;
	uint64_t version, checksum;
	uint32_t page_size, page_count;
	/* From the snapshot, 0 without: the entry that led to the version in the files, and how many
	 * frames of its -wal the database file needs. */
	uint64_t index;
	uint32_t wal_frames;
};

/* The replicated state without the files: which databases there are and at which versions, from a
 * log's snapshot and entries alone, by the rules of state/. Memory for the names of the databases
 * that live. */
struct wrep_history;
struct wrep_history *wrep_history_new(void); /* NULL when out of memory */
void wrep_history_free(struct wrep_history *h);

/* Begin with the log's snapshot, at `index`, before the first entry. Checksums and sizes may be
 * of a later version until the entries have been added. 0; -EBADMSG: the payload is damaged or of a later version; -ENOMEM. */
int wrep_history_start(struct wrep_history *h, uint64_t index, const struct rlog_buf *payload);

/* Up to which entry the log has to reach for the files to be whole: they may hold pages that a leader sent
 * which are newer than the snapshot. 0: no matter. */
uint64_t wrep_history_wants(const struct wrep_history *h);

/* The next entry, of `term`, in the order of the log, without those that were dropped. Fills in `d->db_id` and
 * `d->name` where they are known (those of a group's members, too). WREP_HISTORY_*, or -ENOMEM. */
enum {
	/* Every node passes it over: built on another version, an incomplete transaction, a database
	 * that is gone or is there already. */
	WREP_HISTORY_PASSED_OVER,
	WREP_HISTORY_TAKES_EFFECT,
	WREP_HISTORY_IN_SNAPSHOT, /* what the snapshot says was after it: it does not count again */
};
int wrep_history_add(struct wrep_history *h, uint64_t index, uint64_t term,
		     struct wrep_description *d);

/* Calls `each` for every directory, in no order. */
int wrep_history_directories(const struct wrep_history *h,
			     int (*each)(void *arg, uint64_t id, const char *path), void *arg);

/* Calls `each` for every database that lives, oldest first. Returns 0, or what `each` returned. */
int wrep_history_databases(const struct wrep_history *h,
			   int (*each)(void *arg, const struct wrep_history_db *db), void *arg);

#endif
