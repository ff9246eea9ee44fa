/* Logs on the lossy disk (sim/memdisk.h) with small segments, and the images of snapshots. */
#ifndef LOG_RIG_H
#define LOG_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../sim/memdisk.h"
#include "log/open.h"
#include "log/snapshot.h"

#define SEGMENT_1 "segment-0000000000000001.log"
#define SEGMENT_2 "segment-0000000000000002.log"
#define SEGMENT_3 "segment-0000000000000003.log"

enum { SMALL_SEGMENT = 16384, CLUSTER = 77, NODE = 3 };

extern const struct rlog_log_options options;
/* What logs with these options said last, and what they warned of. */
extern char last_line[512], last_warning[512];

/* A disk with a log without entries. */
struct memdisk *disk_with_log(uint64_t seed);
struct rlog_log *open_log(struct memdisk *m);
/* Power off and on again, without an orderly close. */
struct rlog_log *crash(struct memdisk *m, struct rlog_log *l);
/* All that was appended. 0, or -errno of the disk. */
int try_write_all(struct memdisk *m, struct rlog_log *l);
void write_all(struct memdisk *m, struct rlog_log *l);

/* A membership of the voters `first` to `last`, as libraft encodes it. */
struct rlog_buf *voters(unsigned first, unsigned last);
/* The bytes of the snapshot `s`, with that membership and that payload. */
struct rlog_buf *snapshot_image(struct rlog_snapshot s, const struct rlog_buf *conf,
				const void *payload, size_t payload_len);
/* One of the node alone, as of its own term, with the payload "state". */
struct rlog_buf *own_image(uint64_t index, uint64_t term);
/* Stores it and makes it the log's. 0, or -errno of the disk. */
int take_snapshot(struct memdisk *m, struct rlog_log *l, uint64_t index, uint64_t term);

#endif
