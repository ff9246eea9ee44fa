/* The loop thread and what it owns; rlog.c is what others see of it.
 *
 * One thread owns libraft, the log, the ring and the sockets. Other threads come in by one inbox:
 * rlog_submit() pushes on a lock-free stack, threads that wait for the loop are in `calls`; then they wake
 * the loop if it sleeps. Nobody calls out holding a lock.
 */
#ifndef RAFTLOG_LOOP_H
#define RAFTLOG_LOOP_H

#include <pthread.h>
#include "guarded.h"
#include "log/log.h"
#include "loop/calls.h"
#include "net/net.h"
#include "ring/helper.h"
#include "ring/ring.h"
#include "server/server.h"

struct rlog {
	/* const after rlog_open() */
	struct rlog_self self;
	int listen_fd;
	struct rlog_callbacks cb;
	void *ctx;
	struct rlog_server_config server_config;
	pthread_t thread;
	struct rlog_helper *helper;
	struct rlog_calls *calls;
	int event_fd;

	/* the loop thread's */
	struct rlog_server *server;
	struct rlog_log *log;
	struct rlog_disk *disk;
	struct rlog_ring *ring;
	struct rlog_net *net;
	uint64_t now;
	struct rlog_op event_op, write_op;
	uint64_t event_value;
	struct rlog_log_write write;
	size_t write_done;
	int write_first;
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

	pthread_mutex_t lock;
	pthread_cond_t has_started;
	bool started GUARDED_BY(lock);
	int start_result GUARDED_BY(lock);
	struct rlog_status status GUARDED_BY(lock);
	char start_errmsg[RLOG_ERRMSG_SIZE]; /* written before `started` */
};

void rlog_loop_log(struct rlog *l, char level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The loop, on its thread, with its `struct rlog`. */
void *rlog_loop_main(void *arg);
/* Something is in the inbox of the `struct rlog`. [any thread] */
void rlog_loop_wake(void *arg);

#endif
