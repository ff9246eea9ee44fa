/* A membership: what libraft has no function for. [any thread] */
#ifndef RAFTLOG_CONFIGURATION_H
#define RAFTLOG_CONFIGURATION_H

#include <raft.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "raftlog.h"

/* Check the bytes of a membership entry (libraft's encoding) before libraft reads them: it does not
 * look at bounds itself. 0 or -EPROTO. */
int rlog_configuration_check(const uint8_t *bytes, size_t len);

/* As bytes; NULL: out of memory. */
struct rlog_buf *rlog_configuration_encode(const struct raft_configuration *conf);
/* One whose only voter is `id`, as bytes; NULL: out of memory. */
struct rlog_buf *rlog_configuration_alone(uint64_t id, const char *address);

/* The member `id`, which is the configuration's; or NULL. */
struct raft_server *rlog_configuration_find(const struct raft_configuration *conf, uint64_t id);
bool rlog_configuration_sole_voter(const struct raft_configuration *conf, uint64_t id);
/* The members, without match_index and connected; returns their count. */
unsigned rlog_configuration_members(const struct raft_configuration *conf,
				    struct rlog_member out[RLOG_MEMBERS_MAX]);

#endif
