/* Levels of formats: what the members read, what the log needs. */
#ifndef RAFTLOG_SERVER_FORMAT_H
#define RAFTLOG_SERVER_FORMAT_H

#include "server/base.h"

/* May an entry of this level be appended, as far as is known of the members? On the leader. */
bool rlog_server_format_allowed(const struct rlog_server *s, unsigned level);
/* The log gets an entry of this level: it needs the level from now on, durably. False: it could not be noted,
 * and the server has failed. */
bool rlog_server_format_raise(struct rlog_server *s, unsigned level);
/* Put this node's levels into a message. */
void rlog_server_format_stamp(const struct rlog_server *s, struct rlog_message *m);
/* Can this peer be sent entries? */
bool rlog_server_format_may_send(const struct rlog_server *s, const struct peer *p);
/* A message of `p` has come. False: this node must not look at it. */
bool rlog_server_format_receive(struct rlog_server *s, struct peer *p,
				const struct rlog_message *m);

#endif
