/* Asking another node over a blocking socket, one question and its answer. [any thread but the loop] */
#ifndef RAFTLOG_DIAL_H
#define RAFTLOG_DIAL_H

#include "net/net.h"

/* rlog_dial() of the public header, as node `self`. */
int rlog_dial_stream(const struct rlog_self *self, uint64_t id, const char *address,
		     unsigned timeout_ms, char errmsg[RLOG_ERRMSG_SIZE]);

/* rlog_join() is here, too. */

#endif
