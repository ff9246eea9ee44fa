/* An entry in memory. */
#ifndef RAFTLOG_RECORD_H
#define RAFTLOG_RECORD_H

#include <stdint.h>
#include "raftlog.h"

/* What raft calls an entry; `type` is libraft's (RAFT_COMMAND, RAFT_BARRIER, RAFT_CHANGE). */
struct rlog_record {
	uint64_t index, term;
	uint8_t type;
	struct rlog_buf *buf;
};

#endif
