/* Becoming a member: the side of the one that is asked. */
#ifndef RAFTLOG_JOIN_H
#define RAFTLOG_JOIN_H

#include "net/conn.h"

/* JOIN has come. */
void rlog_join_request(struct rlog_conn *c, const struct rlog_message *m);
/* Answer it, if it is known by now what became of the change. */
void rlog_join_look(struct rlog_conn *c);

#endif
