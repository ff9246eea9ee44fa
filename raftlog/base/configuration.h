/* A membership as bytes. */
#ifndef RAFTLOG_CONFIGURATION_H
#define RAFTLOG_CONFIGURATION_H

#include <raft.h>
#include <stddef.h>
#include <stdint.h>

/* Check the bytes of a membership entry (libraft's encoding) before libraft reads them: it does not
 * look at bounds itself. 0 or -EPROTO. */
int rlog_configuration_check(const uint8_t *bytes, size_t len);

#endif
