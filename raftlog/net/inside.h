/* The connections between nodes, as the files of this folder see them; nobody else includes this. */
#ifndef RAFTLOG_NET_INSIDE_H
#define RAFTLOG_NET_INSIDE_H

#include "net/conn.h"
#include "net/net.h"

#define GREETING_MS 3000 /* from connect or accept to the end of the greeting */

/* The outgoing side to one other node. */
struct rlog_link {
	SLIST_ENTRY(rlog_link) entry;
	struct rlog_net *net;
	uint64_t id;
	char address[RLOG_ADDRESS_MAX];
	struct rlog_conn *conn; /* NULL: none now */
	bool up;		/* greeted: messages flow */
	bool starved;		/* the owner was told that there is no room */
	bool resolving;
	bool dropped; /* to be freed */
	uint64_t dial_ms;
	unsigned backoff_ms;
	uint64_t logged_ms;
};

struct rlog_net {
	struct rlog_net_config config;
	uint64_t now;
	SLIST_HEAD(, rlog_link) links;
	struct rlog_conns conns;

	/* accepting */
	struct rlog_op accept_op, stop_op;
	bool accepting, stopping;
	uint64_t accept_ms; /* no connection is being accepted before; 0: one is */
	uint64_t shortage_logged_ms;
	uint64_t logged_ms;	  /* refusals of strangers */
	uint64_t older_logged_ms; /* refusals of nodes of older versions, or of this one */

	/* as last told */
	uint64_t members[RLOG_MEMBERS_MAX];
	unsigned member_count;
};

#endif
