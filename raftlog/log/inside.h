/* A log, as the files of this folder see it; nobody else includes this. The thread that owns the log owns it
 * all. */
#ifndef RAFTLOG_LOG_INSIDE_H
#define RAFTLOG_LOG_INSIDE_H

#include "log/index.h"
#include "log/meta.h"
#include "log/open.h"
#include "log/segments.h"
#include "log/snapshot.h"

struct rlog_log {
	struct rlog_disk *d;
	struct rlog_log_options opt;
	bool failed; /* a write failed: what the disk holds is unknown */

	struct rlog_meta meta;
	int meta_handle;

	struct rlog_snapshot snapshot;
	uint64_t bytes_since; /* of records behind it */
	/* The files, in order; the last one is the tail. */
	struct rlog_log_segment {
		uint64_t seq, bytes;
	} * segments;
	size_t segment_count, segment_room;

	struct rlog_index index;
	uint64_t durable, placed, applied;
	uint64_t truncate_from; /* of the truncation that is staged; 0: none */

	/* Payloads of [cache_first, last], at their index modulo the room. */
	struct rlog_buf **cache;
	size_t cache_room, cache_bytes;
	uint64_t cache_first;

	/* The end of the log, including the write in flight. */
	struct {
		uint64_t seq, bytes, offset;
		int handle;
		uint64_t durable_offset;
	} tail;
	uint64_t chain, batch;
	bool replacing;	     /* the next segment begins the log anew */
	uint64_t next_index; /* that the next entry has as long as no truncation is written */

	/* The block in which the log ends (from offset & ~4095 on), then the write in flight. */
	uint8_t *stage;
	size_t stage_room;
	size_t write_bytes;   /* 0: none in flight */
	bool write_truncates; /* a truncation is part of it */
	uint64_t write_base, write_last;

	/* A window of a segment, for reading. */
	struct {
		uint64_t seq, offset;
		int handle; /* -1: the tail's */
		uint8_t *bytes;
		size_t len, room;
	} window;

	enum { SPARE_NONE, SPARE_MAKING, SPARE_READY, SPARE_FAILED } spare_state;
	struct rlog_log_spare spare;
	int spare_error;  /* of the last one, or 0 */
	bool spare_again; /* FAILED: another attempt may be made */
	uint64_t spare_count;
};

#endif
