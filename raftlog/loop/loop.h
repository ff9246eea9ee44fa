/* The loop thread and what it owns; shared by loop.c, net.c, join.c and rlog.c.
 *
 * One thread owns libraft, the log, the ring and the sockets. Other threads come in by one inbox:
 * rlog_submit() pushes on a lock-free stack, the rarer rest goes through `commands`; then they wake
 * the loop if it sleeps. Lock order: there is one lock, `mutex`, and nobody calls out holding it.
 */
#ifndef RAFTLOG_LOOP_H
#define RAFTLOG_LOOP_H

#include <liburing.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include "base/address.h"
#include "server/server.h"

/* Something the kernel was asked to do; its completion calls `done` on the loop thread. */
struct rlog_op {
	void (*done)(struct rlog *l, struct rlog_op *op, int result);
};

/* Something slow, for the helper thread: `run` there, then `done` on the loop thread. */
struct rlog_job {
	struct rlog_job *next;
	void (*run)(struct rlog_job *job);
	void (*done)(struct rlog *l, struct rlog_job *job);
};

/* A thread that waits in rlog_transfer(). */
struct rlog_command {
	struct rlog_command *next;
	uint64_t id;
	unsigned timeout_ms;
	uint64_t until_ms;
	bool begun, finished;
	int result;
};

/* A thread that waits for something that only the loop can do. `turn` is called there once a turn, until
 * it returns something other than RLOG_CALL_AGAIN. */
#define RLOG_CALL_AGAIN 1
struct rlog_call {
	struct rlog_call *next;
	int (*turn)(struct rlog *l, struct rlog_call *call);
	bool finished;
	int result;
};

struct rlog_conn;

/* The outgoing side to one other node. */
struct rlog_link {
	struct rlog_link *next;
	uint64_t id;
	char address[RLOG_ADDRESS_MAX];
	struct rlog_conn *conn; /* NULL: none now */
	bool up;		/* greeted: messages flow */
	bool starved;		/* the server was told that there is no room */
	bool resolving;
	bool dropped; /* to be freed */
	uint64_t dial_ms;
	unsigned backoff_ms;
	uint64_t logged_ms;
};

struct rlog_net {
	int listen_fd;
	struct rlog_op accept_op;
	bool accepting, stopping;
	uint64_t accept_ms; /* no connection is being accepted before; 0: one is */
	uint64_t shortage_logged_ms;
	struct rlog_link *links;
	struct rlog_conn *conns;
	unsigned accepted_count;
	uint64_t logged_ms; /* refusals of strangers */
};

struct rlog {
	/* const after rlog_open() */
	uint64_t id, cluster_id;
	char address[RLOG_ADDRESS_MAX];
	unsigned election_timeout_ms;
	struct rlog_callbacks cb;
	void *ctx;
	struct rlog_server_config server_config;
	pthread_t thread, helper;
	int event_fd;

	/* the loop thread's */
	struct rlog_server *server;
	struct rlog_log *log;
	struct rlog_disk *disk;
	struct io_uring ring;
	uint64_t now;
	struct rlog_op event_op, write_op;
	uint64_t event_value;
	struct rlog_log_write write;
	size_t write_done;
	int write_first;
	unsigned prepared; /* entries put into the ring and not yet submitted */
	struct rlog_net net;
	struct rlog_command *transfers;
	struct rlog_call *calls, **calls_tail;
	bool storing; /* a thread is storing a snapshot */
	uint64_t status_key;
	bool status_due;
	bool spare_out;
	uint64_t spare_retry_ms;

	/* the inbox */
	_Atomic(struct rlog_request *) submitted; /* newest first */
	_Atomic bool sleeping;
	_Atomic bool stop;
	_Atomic bool resume;
	_Atomic bool dead; /* the loop has ended */

	/* guarded by mutex */
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	struct rlog_command *commands;
	struct rlog_call *new_calls, **new_calls_tail;
	bool started;
	int start_result;
	char start_errmsg[RLOG_ERRMSG_SIZE];
	struct rlog_job *jobs, **jobs_tail, *jobs_done;
	bool helper_stop;
	struct rlog_status status;
};

void rlog_loop_log(struct rlog *l, char level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* loop.c */
void *rlog_loop_main(void *arg);
void *rlog_helper_main(void *arg);
void rlog_loop_wake(struct rlog *l);
struct io_uring_sqe *rlog_loop_sqe(struct rlog *l, struct rlog_op *op);
void rlog_loop_job(struct rlog *l, struct rlog_job *job);

/* net.c */
void rlog_net_start(struct rlog *l);
void rlog_net_stop(struct rlog *l);
bool rlog_net_idle(const struct rlog *l); /* nothing in the kernel any more */
void rlog_net_tick(struct rlog *l);
uint64_t rlog_net_deadline(const struct rlog *l);
void rlog_net_flush(struct rlog *l);
int64_t rlog_net_room(void *ctx, uint64_t id, const char *address);
void rlog_net_send(void *ctx, uint64_t id, const char *address, const struct rlog_message *m);
void rlog_net_members(void *ctx);
bool rlog_net_connected(void *ctx, uint64_t id);
/* Queue a message on a connection; close it once everything is sent if `last`. */
void rlog_conn_send(struct rlog_conn *c, const struct rlog_message *m, bool last);
/* Calls `each` for every connection of a node that waits for its JOIN to be answered. */
void rlog_net_each_joiner(struct rlog *l, void (*each)(struct rlog *l, struct rlog_conn *c));
struct rlog_join_wait {
	bool waiting;
	uint64_t index, term;
};
struct rlog_join_wait *rlog_conn_join(struct rlog_conn *c);

/* rlog.c: run call->turn on the loop, and wait for its end. -EIO when the loop has ended. */
int rlog_loop_call(struct rlog *l, struct rlog_call *call);

/* join.c */
void rlog_join_request(struct rlog *l, struct rlog_conn *c, const struct rlog_message *m);
void rlog_join_turn(struct rlog *l);

#endif
