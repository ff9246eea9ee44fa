/* The log on disk: segments of chained records, and the term and vote.
 *
 * Private to raftlog. One thread (the loop, or the simulator) owns a `struct rlog_log`; nothing here
 * locks. Nothing here waits for a write either: the owner takes a prepared write with
 * rlog_log_write_begin(), performs it as it likes (io_uring, the simulator's virtual disk) and tells
 * the result. Everything else (open, segment creation, term and vote) is synchronous through the
 * same `struct rlog_disk`, so that tests can make every call fail or lose what was not synced.
 */
#ifndef RAFTLOG_LOG_H
#define RAFTLOG_LOG_H

#include <sys/uio.h>
#include "raftlog.h"

/* ---- the disk beneath: one directory ---------------------------------------------------- */

/* All functions return 0 / a count / a handle, or -errno. Names are relative to the directory. */
struct rlog_disk {
	/* Open (or make, `create`, exclusively) a file for direct, synchronous-data I/O. The handle
	 * is >= 0; for the real disk it is a file descriptor with O_DIRECT. */
	int (*open)(struct rlog_disk *d, const char *name, bool create);
	int (*close)(struct rlog_disk *d, int handle);
	int64_t (*size)(struct rlog_disk *d, int handle);
	/* Buffers, offsets and lengths are multiples of RLOG_BLOCK. Short counts only at end of file
	 * (pread); pwritev is all or -errno, and durable when it returns (RWF_DSYNC). */
	int64_t (*pread)(struct rlog_disk *d, int handle, void *buf, size_t len, uint64_t off);
	int64_t (*pwritev)(struct rlog_disk *d, int handle, const struct iovec *iov, int iov_count,
			   uint64_t off);
	int (*rename)(struct rlog_disk *d, const char *from, const char *to);  /* -EEXIST */
	int (*replace)(struct rlog_disk *d, const char *from, const char *to); /* or in its place */
	int (*unlink)(struct rlog_disk *d, const char *name);
	int (*sync_dir)(struct rlog_disk *d);
	/* Bytes that are free, or NULL: not known. */
	uint64_t (*space)(struct rlog_disk *d);
	/* Calls `each` for every name; the order is not defined. */
	int (*list)(struct rlog_disk *d, void (*each)(void *arg, const char *name), void *arg);
};

#define RLOG_BLOCK 4096

/* The real thing: the directory `path`. */
int rlog_disk_open(struct rlog_disk **out, const char *path);
/* The same, where every call that would change something returns -EROFS. */
int rlog_disk_open_read_only(struct rlog_disk **out, const char *path);
void rlog_disk_close(struct rlog_disk *d);

/* ---- the log ------------------------------------------------------------------------------ */

struct rlog_log;

/* What raft calls an entry; `type` is libraft's (RAFT_COMMAND, RAFT_BARRIER, RAFT_CHANGE). */
struct rlog_record {
	uint64_t index, term;
	uint8_t type;
	struct rlog_buf *buf;
};

struct rlog_log_options {
	uint64_t cluster_id, node_id; /* stand in every segment's header and must match on open */
	size_t segment_bytes;	      /* 0: the default, 8 MiB */
	size_t cache_bytes;	      /* payloads kept in memory, 0: the default, 32 MiB */
	void (*log)(void *ctx, char level, const char *line);
	void *ctx;
};

/* Make the files of an empty log (term 0, or `first` as durable entry 1 with its term) in an empty directory. */
int rlog_log_create(struct rlog_disk *d, const struct rlog_log_options *opt,
		    const struct rlog_record *first, char errmsg[RLOG_ERRMSG_SIZE]);

/* Make the files of an empty log that begins at `first_index` (not 1: it wants a snapshot that ends in front
 * of it, or right there, before it is opened), in `term`. */
int rlog_log_create_at(struct rlog_disk *d, const struct rlog_log_options *opt,
		       uint64_t first_index, uint64_t term, uint64_t voted_for,
		       char errmsg[RLOG_ERRMSG_SIZE]);

/* Open and check everything. A torn tail is dropped (and made durable as dropped) only when it
 * belongs to the last write batch; damage anywhere else is -EBADMSG with the file and the offset in
 * `errmsg`. */
int rlog_log_open(struct rlog_log **out, struct rlog_disk *d, const struct rlog_log_options *opt,
		  char errmsg[RLOG_ERRMSG_SIZE]);
void rlog_log_close(struct rlog_log *l);

/* Term and vote: one block write, two checksummed slots used in turn, durable on return. */
void rlog_log_meta(const struct rlog_log *l, uint64_t *term, uint64_t *voted_for);
int rlog_log_set_meta(struct rlog_log *l, uint64_t term, uint64_t voted_for);

uint64_t rlog_log_first(const struct rlog_log *l);   /* 1 until segments were let go */
uint64_t rlog_log_last(const struct rlog_log *l);    /* staged or durable; first - 1 when empty */
uint64_t rlog_log_durable(const struct rlog_log *l); /* highest index on disk */
int rlog_log_describe(const struct rlog_log *l, uint64_t index, uint64_t *term, uint8_t *type,
		      size_t *len); /* -ENOENT outside [first, last] */

/* Stage records [last + 1 ...] for the next write, all or none. References to the buffers are taken.
 * 0, -ENOMEM, -EFBIG (an entry of 2 GiB or so), -EIO (a write failed before). */
int rlog_log_append(struct rlog_log *l, const struct rlog_record *records, size_t count);

/* Drop the entries from `index` on, staged, in flight or durable; they are gone for readers at once
 * and a truncation record goes ahead of the next append. */
int rlog_log_truncate(struct rlog_log *l, uint64_t index);

/* The next write, covering everything staged (bounded to a few MiB). At most one is out at a time.
 * Returns 1 and fills `w`, or 0 when nothing is staged, or -errno (no new segment: -ENOSPC). The memory stays
 * valid until rlog_log_write_end(). */
struct rlog_log_write {
	int handle;
	uint64_t offset;
	int iov_count;
	struct iovec iov[16];
	size_t bytes;
};
int rlog_log_write_begin(struct rlog_log *l, struct rlog_log_write *w);
/* `result` is w->bytes or -errno. After an error the log accepts no more writes (the state of the
 * disk is unknown); the owner stops the node. */
void rlog_log_write_end(struct rlog_log *l, int64_t result);

/* All writes that are due, one after the other: for whoever has nothing else to do. 0 or -errno. */
int rlog_log_flush(struct rlog_log *l);

/* Optional: make the next segment ahead, so that no write has to wait for one. spare_begin() returns
 * true and fills `s` when one is wanted; whoever has time calls spare_make() (any thread, if the
 * disk allows it: it only makes a file) and the owner of the log then reports its result. Without
 * this, and when it comes too late, rlog_log_write_begin() makes the segment itself. */
struct rlog_log_spare {
	char name[32];
	uint64_t bytes;
};
bool rlog_log_spare_begin(struct rlog_log *l, struct rlog_log_spare *s);
int rlog_log_spare_make(struct rlog_disk *d, const struct rlog_log_spare *s);
void rlog_log_spare_end(struct rlog_log *l, int result);
/* Have one now, so that a next segment cannot fail for lack of space. Not between the two. 0 or -errno. */
int rlog_log_spare_now(struct rlog_log *l);

/* After one could not be made: let spare_begin() try again. */
void rlog_log_spare_again(struct rlog_log *l);

/* What may still be staged so that rlog_log_write_begin() will not fail for lack of space. */
struct rlog_log_room {
	uint64_t bytes; /* of records, a reserve for what raft appends by itself left out */
	/* More than that: 0 (nothing is known against it), -EAGAIN (when what is staged is written, or the
	 * next attempt at a spare has ended), -ENOSPC (no spare could be made). */
	int beyond;
	bool idle;  /* nothing is staged */
	bool spare; /* one is there */
};
void rlog_log_room(struct rlog_log *l, struct rlog_log_room *room);
size_t rlog_log_record_bytes(size_t payload_bytes);

/* The entry at `index`, from memory or from the disk (checked); a reference the caller drops. */
int rlog_log_read(struct rlog_log *l, uint64_t index, struct rlog_record *out);

/* ---- the snapshot, and what it allows ---- */

struct rlog_snapshot;
/* NULL when there is none. */
const struct rlog_snapshot *rlog_log_snapshot(const struct rlog_log *l);
/* `image` has been stored (rlog_snapshot_store()) and is the snapshot from now on; a reference is taken.
 * 0, or -errno when it is not one of this cluster. */
int rlog_log_set_snapshot(struct rlog_log *l, struct rlog_buf *image);
/* Let go of segments from the front, of which the snapshot has all entries, as long as more than
 * `keep_bytes` of segments stay. A file that cannot be removed stays, with those behind it, until this is
 * called again. */
void rlog_log_compact(struct rlog_log *l, uint64_t keep_bytes);
/* Begin anew behind the snapshot: all entries, staged or durable, are gone. No write is in flight. 0, or
 * as rlog_log_write_begin(): then nothing has changed here, and opening does it. */
int rlog_log_replace(struct rlog_log *l);
uint64_t rlog_log_cluster(const struct rlog_log *l);	 /* its id */
uint64_t rlog_log_bytes(const struct rlog_log *l);	 /* of all segments */
uint64_t rlog_log_bytes_since(const struct rlog_log *l); /* of records behind the snapshot, about */

/* Entries up to `index` are applied: their payloads may leave memory, oldest first, when the cache
 * is over its bound. Others are always kept. */
void rlog_log_applied(struct rlog_log *l, uint64_t index);

#endif
