/* Events into libraft, its effects out of it. */
#ifndef RAFTLOG_STEP_H
#define RAFTLOG_STEP_H

#include "server/base.h"

/* One event through libraft. `entries` and `records` run in parallel and are what the event carries.
 * Returns libraft's code; `*took_entries` says whether entries were staged. */
int rlog_server_step(struct rlog_server *s, struct raft_event *event,
		     const struct raft_entry *entries, const struct rlog_record *records,
		     bool *took_entries);
/* Submit records[0 .. count) of the scratch, whose type and buf are set. 0, or -EAGAIN when this
 * server may not append now. */
int rlog_server_submit_records(struct rlog_server *s, size_t count, uint64_t *first_index);
/* Make libraft's term and vote durable. */
void rlog_server_save_meta(struct rlog_server *s);

#endif
