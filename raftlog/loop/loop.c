/* The loop thread: events in, one system call, events in.
 *
 * A turn takes what other threads left in the inbox and what the kernel completed, tells the server,
 * lets it submit everything that waits as one Raft step and one log write, puts the write and all
 * sends into the ring, and enters the kernel once: to start them and to sleep until the next event.
 * Only when committed entries are there to be handed up does it enter before, so that the next write
 * is on its way while they are handled.
 *
 * Others wake it only when it sleeps. It says so in `sleeping` before it looks into the inbox for the
 * last time; a submitter pushes first and looks at `sleeping` after: one of them sees the other.
 */
#include "loop/loop.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>
#include "base/address.h"
#include "log/segments.h"

#define LOOP_NICE (-10)

void rlog_loop_log(struct rlog *l, char level, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (l->cb.log == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	l->cb.log(l->ctx, level, line);
}

void rlog_loop_wake(void *arg)
{
	struct rlog *l = arg;
	uint64_t one = 1;

	if (atomic_exchange(&l->sleeping, false)) {
		while (write(l->event_fd, &one, sizeof one) < 0 && errno == EINTR)
			;
	}
}

/* ---- the log write ------------------------------------------------------------------------ */

static void issue_write(struct rlog *l)
{
	struct io_uring_sqe *sqe = rlog_ring_sqe(l->ring, &l->write_op);

	io_uring_prep_writev2(sqe, l->write.handle, l->write.iov + l->write_first,
			      (unsigned)(l->write.iov_count - l->write_first),
			      l->write.offset + l->write_done, RWF_DSYNC);
}

static void write_done(struct rlog_op *op, int result)
{
	struct rlog *l = (struct rlog *)((char *)op - offsetof(struct rlog, write_op));
	size_t skip;

	if (result == -EINTR || result == -EAGAIN) {
		issue_write(l);
		return;
	}
	if (result == 0)
		result = -EIO;
	if (result < 0) {
		rlog_server_written(l->server, result);
		return;
	}
	l->write_done += (size_t)result;
	if (l->write_done == l->write.bytes) {
		rlog_server_written(l->server, (int64_t)l->write.bytes);
		return;
	}
	for (skip = (size_t)result; skip > 0;) {
		struct iovec *iov = &l->write.iov[l->write_first];
		size_t part = skip < iov->iov_len ? skip : iov->iov_len;

		iov->iov_base = (uint8_t *)iov->iov_base + part;
		iov->iov_len -= part;
		skip -= part;
		if (iov->iov_len == 0)
			l->write_first++;
	}
	issue_write(l);
}

static void start_write(void *ctx, const struct rlog_log_write *w)
{
	struct rlog *l = ctx;

	l->write = *w;
	l->write_done = 0;
	l->write_first = 0;
	issue_write(l);
}

/* ---- the next segment ---------------------------------------------------------------------- */

#define SPARE_RETRY_MS 1000 /* after a spare segment could not be made */

struct spare_job {
	struct rlog_job job;
	struct rlog *l;
	struct rlog_disk *disk;
	struct rlog_log_spare spare;
	int result;
};

static void spare_run(struct rlog_job *job)
{
	struct spare_job *j = (struct spare_job *)job;

	j->result = rlog_log_spare_make(j->disk, &j->spare);
}

static void spare_done(struct rlog_job *job)
{
	struct spare_job *j = (struct spare_job *)job;
	struct rlog *l = j->l;

	rlog_log_spare_end(l->log, j->result);
	l->spare_out = false;
	if (j->result < 0)
		l->spare_retry_ms = l->now + SPARE_RETRY_MS;
	free(j);
}

static void want_spare(struct rlog *l)
{
	struct spare_job *j;

	if (l->spare_out)
		return;
	/* Heartbeats see to it that somebody looks. */
	if (l->now >= l->spare_retry_ms)
		rlog_log_spare_again(l->log);
	j = calloc(1, sizeof *j);
	if (j == NULL)
		return;
	if (!rlog_log_spare_begin(l->log, &j->spare)) {
		free(j);
		return;
	}
	l->spare_out = true;
	j->job.run = spare_run;
	j->job.done = spare_done;
	j->l = l;
	j->disk = l->disk;
	rlog_helper_ask(l->helper, &j->job);
}

/* ---- the inbox ---------------------------------------------------------------------------- */

static void take_submissions(struct rlog *l)
{
	struct rlog_request *req, *next, *in_order = NULL;

	if (atomic_load_explicit(&l->submitted, memory_order_relaxed) == NULL)
		return;
	for (req = atomic_exchange(&l->submitted, NULL); req != NULL; req = next) {
		next = req->next;
		req->next = in_order;
		in_order = req;
	}
	for (req = in_order; req != NULL; req = next) {
		next = req->next;
		rlog_server_submit(l->server, req);
	}
}

static void event_done(struct rlog_op *op, int result)
{
	struct rlog *l = (struct rlog *)((char *)op - offsetof(struct rlog, event_op));
	struct io_uring_sqe *sqe = rlog_ring_sqe(l->ring, op);

	(void)result;
	io_uring_prep_read(sqe, l->event_fd, &l->event_value, sizeof l->event_value, 0);
}

/* ---- the status --------------------------------------------------------------------------- */

static void publish_status(struct rlog *l)
{
	struct rlog_status status;

	rlog_server_status(l->server, &status);
	pthread_mutex_lock(&l->lock);
	l->status = status;
	pthread_mutex_unlock(&l->lock);
}

/* Whether anything moved since the last time, cheaply. */
static bool status_moved(struct rlog *l)
{
	uint64_t key = rlog_server_moved(l->server);

	if (key == l->status_key && !l->status_due)
		return false;
	l->status_key = key;
	l->status_due = false;
	return true;
}

/* ---- the loop ----------------------------------------------------------------------------- */

/* The time of this turn. */
static void set_now(struct rlog *l)
{
	l->now = rlog_clock_ms();
	rlog_net_now(l->net, l->now);
}

static void enter(struct rlog *l, uint64_t until_ms)
{
	int rv = rlog_ring_enter(l->ring, until_ms > l->now ? until_ms - l->now : 0);

	if (rv != 0)
		rlog_server_fail(l->server, "io_uring cannot go on: %s", strerror(-rv));
}

/* What came in from other threads, from the kernel, and with the time. */
static void take_events(struct rlog *l)
{
	set_now(l);
	rlog_server_now(l->server, l->now);
	rlog_ring_complete(l->ring);
	take_submissions(l);
	if (atomic_exchange(&l->resume, false))
		rlog_server_resume(l->server);
	rlog_helper_finish(l->helper);
	if (rlog_server_deadline(l->server) <= l->now) {
		rlog_server_tick(l->server);
		l->status_due = true;
	}
	if (rlog_net_deadline(l->net) <= l->now)
		rlog_net_tick(l->net);
	rlog_calls_turn(l->calls);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Until the next event. */
static void sleep_until_event(struct rlog *l)
{
	uint64_t until = earlier(rlog_server_deadline(l->server),
				 earlier(rlog_net_deadline(l->net), rlog_calls_deadline(l->calls)));

	atomic_store(&l->sleeping, true);
	if (rlog_calls_have_come(l->calls) || rlog_helper_has_done(l->helper))
		until = 0;
	if (atomic_load(&l->submitted) != NULL || atomic_load(&l->stop) || atomic_load(&l->resume))
		until = 0;
	enter(l, until);
	atomic_store(&l->sleeping, false);
}

static void turn(struct rlog *l)
{
	take_events(l);
	rlog_server_turn(l->server);
	rlog_net_flush(l->net);
	if (rlog_server_has_deliveries(l->server))
		rlog_ring_submit(l->ring);
	rlog_server_deliver(l->server);
	rlog_net_answer_joiners(l->net);
	rlog_net_flush(l->net);
	want_spare(l);
	if (status_moved(l))
		publish_status(l);
	rlog_calls_late(l->calls);
	if (rlog_server_failure(l->server) == NULL)
		sleep_until_event(l);
}

/* ---- what the server and the connections call ---------------------------------------------- */

static int64_t server_room(void *ctx, uint64_t id, const char *address)
{
	return rlog_net_room(((struct rlog *)ctx)->net, id, address);
}

static void server_send(void *ctx, uint64_t id, const char *address, const struct rlog_message *m)
{
	rlog_net_send(((struct rlog *)ctx)->net, id, address, m);
}

static bool server_connected(void *ctx, uint64_t id)
{
	return rlog_net_connected(((struct rlog *)ctx)->net, id);
}

static void server_members(void *ctx)
{
	struct rlog *l = ctx;
	struct rlog_member members[RLOG_MEMBERS_MAX];
	const char *address;

	if (l->server == NULL)
		return; /* rlog_server_new() is still at it; called again after */
	rlog_net_set_members(l->net, members, rlog_server_members(l->server, members),
			     rlog_server_leader(l->server, &address));
}

static void net_receive(void *ctx, uint64_t from, const char *address, struct rlog_message *m)
{
	rlog_server_receive(((struct rlog *)ctx)->server, from, address, m);
}

static void net_hears(void *ctx, uint64_t from, const char *address)
{
	rlog_server_hears(((struct rlog *)ctx)->server, from, address);
}

static void net_reads(void *ctx, uint64_t id, const char *address, unsigned level)
{
	rlog_server_reads(((struct rlog *)ctx)->server, id, address, level);
}

static unsigned net_needs(void *ctx)
{
	return rlog_server_needs(((struct rlog *)ctx)->server);
}

static void net_room(void *ctx, uint64_t id)
{
	rlog_server_room(((struct rlog *)ctx)->server, id);
}

static void net_stream(void *ctx, int fd, uint64_t from)
{
	struct rlog *l = ctx;

	l->cb.stream(l->ctx, fd, from);
}

static void net_changed(void *ctx)
{
	((struct rlog *)ctx)->status_due = true;
}

static void net_log(void *ctx, char level, const char *line)
{
	rlog_loop_log(ctx, level, "%s", line);
}

static int net_add(void *ctx, uint64_t id, const char *address, uint64_t *index, uint64_t *term)
{
	return rlog_server_add(((struct rlog *)ctx)->server, id, address, index, term);
}

static int net_outcome_of(void *ctx, uint64_t index, uint64_t term)
{
	return rlog_server_outcome_of(((struct rlog *)ctx)->server, index, term);
}

static uint64_t net_leader(void *ctx, const char **address)
{
	return rlog_server_leader(((struct rlog *)ctx)->server, address);
}

static int make_net(struct rlog *l)
{
	struct rlog_net_config config = {
		.self = l->self,
		.listen_fd = l->listen_fd,
		.election_timeout_ms = l->server_config.election_timeout_ms != 0
					       ? l->server_config.election_timeout_ms
					       : RLOG_ELECTION_TIMEOUT_MS,
		.owner =
			{
				.ctx = l,
				.receive = net_receive,
				.hears = net_hears,
				.reads = net_reads,
				.needs = net_needs,
				.room = net_room,
				.stream = l->cb.stream != NULL ? net_stream : NULL,
				.changed = net_changed,
				.log = net_log,
				.add = net_add,
				.outcome_of = net_outcome_of,
				.leader = net_leader,
			},
		.ring = l->ring,
		.helper = l->helper,
	};

	l->net = rlog_net_new(&config);
	return l->net != NULL ? 0 : -ENOMEM;
}

/* ---- life --------------------------------------------------------------------------------- */

static void report_start(struct rlog *l, int result)
{
	pthread_mutex_lock(&l->lock);
	l->start_result = result;
	l->started = true;
	pthread_cond_broadcast(&l->has_started);
	pthread_mutex_unlock(&l->lock);
}

static int make_server(struct rlog *l)
{
	l->server_config.io = (struct rlog_server_io){
		.ctx = l,
		.room = server_room,
		.send = server_send,
		.write = start_write,
		.members = server_members,
		.connected = server_connected,
	};
	return rlog_server_new(&l->server, &l->server_config, l->log, l->now, l->start_errmsg);
}

static int loop_start(struct rlog *l)
{
	int rv = rlog_ring_open(&l->ring);

	if (rv != 0) {
		snprintf(l->start_errmsg, sizeof l->start_errmsg,
			 "cannot set up io_uring: %s; allow it (sysctl kernel.io_uring_disabled=0)",
			 strerror(-rv));
		return rv;
	}
	l->event_op.done = event_done;
	l->write_op.done = write_done;
	rv = make_net(l);
	if (rv != 0) {
		snprintf(l->start_errmsg, sizeof l->start_errmsg, "out of memory");
	} else {
		set_now(l);
		rv = make_server(l);
	}
	if (rv != 0) {
		rlog_ring_close(l->ring);
		return rv;
	}
	event_done(&l->event_op, 0);
	rlog_net_start(l->net, l->now);
	server_members(l);
	publish_status(l);
	return 0;
}

/* Nothing new is begun; what the kernel still has of ours must come back before its memory goes. */
static void loop_stop(struct rlog *l)
{
	uint64_t until = rlog_clock_ms() + 5000;

	rlog_net_stop(l->net);
	while ((!rlog_net_idle(l->net) || rlog_server_writing(l->server)) &&
	       rlog_clock_ms() < until) {
		set_now(l);
		enter(l, l->now + 100);
		rlog_ring_complete(l->ring);
	}
	rlog_calls_end(l->calls);
	rlog_ring_close(l->ring);
}

void *rlog_loop_main(void *arg)
{
	struct rlog *l = arg;
	const char *failure = NULL;
	int rv = loop_start(l);

	pthread_setname_np(pthread_self(), "rlog-loop");
	/* This thread's own: heartbeats go out even where applications use up all processors. Without the
	 * right to it nothing is lost but that. */
	setpriority(PRIO_PROCESS, 0, LOOP_NICE);
	report_start(l, rv);
	if (rv != 0)
		return NULL;
	while (!atomic_load(&l->stop) && failure == NULL) {
		turn(l);
		failure = rlog_server_failure(l->server);
	}
	loop_stop(l);
	if (failure != NULL) {
		rlog_loop_log(l, 'E', "%s", failure);
		if (l->cb.fatal != NULL)
			l->cb.fatal(l->ctx, failure);
	}
	rlog_server_end(l->server);
	atomic_store(&l->dead, true);
	/* Whoever came too late to be seen by the loop; rlog_submit() does the same for those who
	 * come after. */
	take_submissions(l);
	rlog_calls_close(l->calls);
	return NULL;
}
