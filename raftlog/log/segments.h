/* New segments, and what room there is. */
#ifndef RAFTLOG_SEGMENTS_H
#define RAFTLOG_SEGMENTS_H

#include "log/disk.h"
#include "log/log.h"
#include "log/segment.h"

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

/* ---- for the files of the log ---- */

/* Zeros from `from` to `to`, durable on return. */
int rlog_log_write_zeros(struct rlog_disk *d, int handle, uint64_t from, uint64_t to);
/* Write the header into the file `from`, give it its name, return its handle. `*renamed` says
 * whether the name may have changed. */
int rlog_log_segment_install(struct rlog_disk *d, const char *from,
			     const struct rlog_segment_header *h, bool *renamed);
/* Go on in a new segment with room for a record of `record_bytes`. All before is durable. 0,
 * -ENOSPC or -ENOMEM (nothing has changed), or -EIO (the log accepts no more writes). */
int rlog_log_next_segment(struct rlog_log *l, size_t record_bytes);
/* Note a file at the end of l->segments. 0 or -ENOMEM. */
int rlog_log_note_segment(struct rlog_log *l, uint64_t seq, uint64_t bytes);

#endif
