/* Requests from submission to their outcome. */
#ifndef RAFTLOG_REQUESTS_H
#define RAFTLOG_REQUESTS_H

#include "server/base.h"

/* Those that wait go to libraft, or to whoever knows better, or stay until there is a leader. */
void rlog_server_submit_waiting(struct rlog_server *s);
void rlog_server_expire(struct rlog_server *s);
void rlog_server_end_all(struct rlog_server *s);
/* Entries up to `index` will not be delivered: whether they are those of requests nobody will tell. */
void rlog_server_end_passed_over(struct rlog_server *s, uint64_t index);
/* The request that made entry (index, term), unlinked, or NULL. `*behind` is where it was. */
struct rlog_request *rlog_server_take(struct rlog_server *s, uint64_t index, uint64_t term,
				      struct rlog_request **behind);
/* It stays in flight, where it was. */
void rlog_server_put_back(struct rlog_server *s, struct rlog_request *behind,
			  struct rlog_request *req);
/* Entry (index, term) is committed and delivered: end what can never commit any more. */
void rlog_server_refuse_dead(struct rlog_server *s, uint64_t index, uint64_t term);

#endif
