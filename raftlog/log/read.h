/* Entries of the log, from memory or from its segments. */
#ifndef RAFTLOG_READ_H
#define RAFTLOG_READ_H

#include "base/record.h"
#include "log/log.h"

/* The entry at `index`, from memory or from the disk (checked); a reference the caller drops. */
int rlog_log_read(struct rlog_log *l, uint64_t index, struct rlog_record *out);

#endif
