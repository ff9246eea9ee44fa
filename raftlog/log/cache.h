/* Payloads in memory: those of [cache_first, last]. */
#ifndef RAFTLOG_CACHE_H
#define RAFTLOG_CACHE_H

#include "log/log.h"

size_t rlog_cache_cost(const struct rlog_buf *buf); /* the memory that it takes */
/* Room for `count` more. 0 or -ENOMEM. */
int rlog_cache_reserve(struct rlog_log *l, size_t count);
/* Where the payload of `index`, which is in memory, is held. */
struct rlog_buf **rlog_cache_at(struct rlog_log *l, uint64_t index);
void rlog_cache_drop(struct rlog_log *l, uint64_t index);
/* Drop those that are on disk and applied, oldest first, while there are more than cache_bytes. */
void rlog_cache_trim(struct rlog_log *l);

#endif
