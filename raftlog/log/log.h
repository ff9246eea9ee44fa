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
#include "base/record.h"

struct rlog_log;

/* Term and vote: one block write, two checksummed slots used in turn, durable on return. */
void rlog_log_meta(const struct rlog_log *l, uint64_t *term, uint64_t *voted_for);
int rlog_log_set_meta(struct rlog_log *l, uint64_t term, uint64_t voted_for);

/* The format level that whoever reads this log has to know (format.h); 1 or more. */
unsigned rlog_log_format(const struct rlog_log *l);
/* Raise it, ahead of the first entry of that level; a lower one changes nothing. Durable on return, in both
 * slots. 0 or -errno. */
int rlog_log_raise_format(struct rlog_log *l, unsigned level);

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

/* Entries up to `index` are applied: their payloads may leave memory, oldest first, when the cache
 * is over its bound. Others are always kept. */
void rlog_log_applied(struct rlog_log *l, uint64_t index);

/* For the files of the log: memory to stage `need` bytes. 0 or -ENOMEM. */
int rlog_log_stage_reserve(struct rlog_log *l, size_t need);

#endif
