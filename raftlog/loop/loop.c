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
 *
 * The helper thread does what may take long and needs no state of the loop: making the next log
 * segment, resolving a host name.
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>
#include "log/segments.h"
#include "loop/loop.h"

#define RING_ENTRIES 256
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

void rlog_loop_wake(struct rlog *l)
{
	uint64_t one = 1;

	if (atomic_exchange(&l->sleeping, false)) {
		while (write(l->event_fd, &one, sizeof one) < 0 && errno == EINTR)
			;
	}
}

/* A free slot of the ring, whose completion will be `op`'s (NULL: nobody's). */
struct io_uring_sqe *rlog_loop_sqe(struct rlog *l, struct rlog_op *op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&l->ring);

	while (sqe == NULL) {
		int rv = io_uring_submit(&l->ring);

		assert(rv > 0 || rv == -EINTR || rv == -EAGAIN || rv == -EBUSY);
		sqe = io_uring_get_sqe(&l->ring);
	}
	io_uring_sqe_set_data(sqe, op); /* the io_uring_prep_ functions leave it alone */
	l->prepared++;
	return sqe;
}

/* ---- the log write ------------------------------------------------------------------------ */

static void issue_write(struct rlog *l)
{
	struct io_uring_sqe *sqe = rlog_loop_sqe(l, &l->write_op);

	io_uring_prep_writev2(sqe, l->write.handle, l->write.iov + l->write_first,
			      (unsigned)(l->write.iov_count - l->write_first),
			      l->write.offset + l->write_done, RWF_DSYNC);
}

static void write_done(struct rlog *l, struct rlog_op *op, int result)
{
	size_t skip;

	(void)op;
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

/* ---- the helper --------------------------------------------------------------------------- */

void *rlog_helper_main(void *arg)
{
	struct rlog *l = arg;

	pthread_mutex_lock(&l->mutex);
	for (;;) {
		struct rlog_job *job = l->jobs;

		if (job == NULL) {
			if (l->helper_stop)
				break;
			pthread_cond_wait(&l->changed, &l->mutex);
			continue;
		}
		l->jobs = job->next;
		if (l->jobs == NULL)
			l->jobs_tail = &l->jobs;
		pthread_mutex_unlock(&l->mutex);
		job->run(job);
		pthread_mutex_lock(&l->mutex);
		job->next = l->jobs_done;
		l->jobs_done = job;
		pthread_mutex_unlock(&l->mutex);
		rlog_loop_wake(l);
		pthread_mutex_lock(&l->mutex);
	}
	pthread_mutex_unlock(&l->mutex);
	return NULL;
}

void rlog_loop_job(struct rlog *l, struct rlog_job *job)
{
	job->next = NULL;
	pthread_mutex_lock(&l->mutex);
	*l->jobs_tail = job;
	l->jobs_tail = &job->next;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->mutex);
}

#define SPARE_RETRY_MS 1000 /* after a spare segment could not be made */

struct spare_job {
	struct rlog_job job;
	struct rlog_disk *disk;
	struct rlog_log_spare spare;
	int result;
};

static void spare_run(struct rlog_job *job)
{
	struct spare_job *j = (struct spare_job *)job;

	j->result = rlog_log_spare_make(j->disk, &j->spare);
}

static void spare_done(struct rlog *l, struct rlog_job *job)
{
	struct spare_job *j = (struct spare_job *)job;

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
	j->disk = l->disk;
	rlog_loop_job(l, &j->job);
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

static void take_commands(struct rlog *l)
{
	struct rlog_command *commands, *next;
	struct rlog_job *jobs, *next_job;

	pthread_mutex_lock(&l->mutex);
	commands = l->commands;
	l->commands = NULL;
	if (l->new_calls != NULL) {
		*l->calls_tail = l->new_calls;
		l->calls_tail = l->new_calls_tail;
		l->new_calls = NULL;
		l->new_calls_tail = &l->new_calls;
	}
	jobs = l->jobs_done;
	l->jobs_done = NULL;
	pthread_mutex_unlock(&l->mutex);
	for (; commands != NULL; commands = next) {
		next = commands->next;
		commands->until_ms = l->now + commands->timeout_ms;
		commands->next = l->transfers;
		l->transfers = commands;
	}
	for (; jobs != NULL; jobs = next_job) {
		next_job = jobs->next;
		jobs->done(l, jobs);
	}
}

static void finish(struct rlog *l, struct rlog_command **at, int result)
{
	struct rlog_command *command = *at;

	*at = command->next;
	pthread_mutex_lock(&l->mutex);
	command->result = result;
	command->finished = true;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->mutex);
}

/* Begin what threads ask for in rlog_transfer(), one after the other. */
static void begin_transfers(struct rlog *l)
{
	struct rlog_command **at = &l->transfers;

	while (*at != NULL) {
		struct rlog_command *command = *at;
		unsigned left =
			command->until_ms > l->now ? (unsigned)(command->until_ms - l->now) : 0;
		int rv = command->begun ? -EBUSY
					: rlog_server_transfer(l->server, command->id, left);

		command->begun = command->begun || rv == 0;
		if (rv != 0 && rv != -EBUSY)
			finish(l, at, rv);
		else
			at = &command->next;
	}
}

/* See how they fare. The status has been published: who is told of a new leader finds it there. */
static void end_transfers(struct rlog *l)
{
	struct rlog_command **at = &l->transfers;

	while (*at != NULL) {
		struct rlog_command *command = *at;
		const uint64_t leader = l->status.view.leader_id;

		if (command->begun && leader != 0 && leader != l->id)
			finish(l, at, 0);
		else if (command->begun && rlog_server_transfer_result(l->server) != 0)
			finish(l, at, rlog_server_transfer_result(l->server));
		else if (l->now >= command->until_ms)
			finish(l, at, -ETIMEDOUT);
		else
			at = &command->next;
	}
}

static void end_call(struct rlog *l, struct rlog_call **at, int result)
{
	struct rlog_call *call = *at;

	*at = call->next;
	if (*at == NULL)
		l->calls_tail = at;
	pthread_mutex_lock(&l->mutex);
	call->result = result;
	call->finished = true;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->mutex);
}

static void run_calls(struct rlog *l)
{
	struct rlog_call **at = &l->calls;

	while (*at != NULL) {
		int rv = (*at)->turn(l, *at);

		if (rv == RLOG_CALL_AGAIN)
			at = &(*at)->next;
		else
			end_call(l, at, rv);
	}
}

static void end_all_calls(struct rlog *l)
{
	while (l->calls != NULL)
		end_call(l, &l->calls, -EIO);
}

static uint64_t transfers_deadline(const struct rlog *l)
{
	uint64_t at = UINT64_MAX;

	for (const struct rlog_command *c = l->transfers; c != NULL; c = c->next)
		if (c->until_ms < at)
			at = c->until_ms;
	return at;
}

static void event_done(struct rlog *l, struct rlog_op *op, int result)
{
	struct io_uring_sqe *sqe = rlog_loop_sqe(l, op);

	(void)result;
	io_uring_prep_read(sqe, l->event_fd, &l->event_value, sizeof l->event_value, 0);
}

/* ---- the status --------------------------------------------------------------------------- */

static void publish_status(struct rlog *l)
{
	struct rlog_status status;

	rlog_server_status(l->server, &status);
	pthread_mutex_lock(&l->mutex);
	l->status = status;
	pthread_mutex_unlock(&l->mutex);
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

static void complete_all(struct rlog *l)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&l->ring, &cqe) == 0) {
		struct rlog_op *op = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&l->ring, cqe);
		if (op != NULL)
			op->done(l, op, result);
	}
}

static void enter(struct rlog *l, uint64_t until_ms)
{
	struct __kernel_timespec ts = {0};
	struct io_uring_cqe *cqe;
	int rv;

	if (until_ms > l->now) {
		uint64_t wait_ms = until_ms - l->now;

		if (wait_ms > 60000)
			wait_ms = 60000;
		ts.tv_sec = (long long)(wait_ms / 1000);
		ts.tv_nsec = (long long)(wait_ms % 1000) * 1000000;
	}
	rv = io_uring_submit_and_wait_timeout(&l->ring, &cqe, 1, &ts, NULL);
	l->prepared = 0;
	if (rv < 0 && rv != -ETIME && rv != -EINTR && rv != -EAGAIN && rv != -EBUSY)
		rlog_server_fail(l->server, "io_uring cannot go on: %s", strerror(-rv));
}

static void turn(struct rlog *l)
{
	uint64_t until;

	l->now = rlog_clock_ms();
	rlog_server_now(l->server, l->now);
	complete_all(l);
	take_submissions(l);
	if (atomic_exchange(&l->resume, false))
		rlog_server_resume(l->server);
	take_commands(l);
	if (rlog_server_deadline(l->server) <= l->now) {
		rlog_server_tick(l->server);
		l->status_due = true;
	}
	if (rlog_net_deadline(l) <= l->now)
		rlog_net_tick(l);
	begin_transfers(l);
	run_calls(l);
	rlog_server_turn(l->server);
	rlog_net_flush(l);
	if (l->prepared > 0 && rlog_server_has_deliveries(l->server)) {
		io_uring_submit(&l->ring);
		l->prepared = 0;
	}
	rlog_server_deliver(l->server);
	rlog_join_turn(l);
	rlog_net_flush(l);
	want_spare(l);
	if (status_moved(l))
		publish_status(l);
	end_transfers(l);
	if (rlog_server_failure(l->server) != NULL)
		return;

	until = rlog_server_deadline(l->server);
	if (rlog_net_deadline(l) < until)
		until = rlog_net_deadline(l);
	if (transfers_deadline(l) < until)
		until = transfers_deadline(l);
	atomic_store(&l->sleeping, true);
	pthread_mutex_lock(&l->mutex);
	if (l->commands != NULL || l->jobs_done != NULL || l->new_calls != NULL)
		until = 0;
	pthread_mutex_unlock(&l->mutex);
	if (atomic_load(&l->submitted) != NULL || atomic_load(&l->stop) || atomic_load(&l->resume))
		until = 0;
	enter(l, until);
	atomic_store(&l->sleeping, false);
}

static int make_ring(struct rlog *l)
{
	int rv = io_uring_queue_init(RING_ENTRIES, &l->ring,
				     IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);

	if (rv == -EINVAL) /* a kernel before 6.1 */
		rv = io_uring_queue_init(RING_ENTRIES, &l->ring, 0);
	return rv;
}

static void report_start(struct rlog *l, int result)
{
	pthread_mutex_lock(&l->mutex);
	l->start_result = result;
	l->started = true;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->mutex);
}

static int loop_start(struct rlog *l)
{
	int rv = make_ring(l);

	if (rv != 0) {
		snprintf(l->start_errmsg, sizeof l->start_errmsg,
			 "cannot set up io_uring: %s; allow it (sysctl kernel.io_uring_disabled=0)",
			 strerror(-rv));
		return rv;
	}
	l->now = rlog_clock_ms();
	l->event_op.done = event_done;
	l->write_op.done = write_done;
	l->server_config.io = (struct rlog_server_io){
		.ctx = l,
		.room = rlog_net_room,
		.send = rlog_net_send,
		.write = start_write,
		.members = rlog_net_members,
		.connected = rlog_net_connected,
	};
	rv = rlog_server_new(&l->server, &l->server_config, l->log, l->now, l->start_errmsg);
	if (rv != 0) {
		io_uring_queue_exit(&l->ring);
		return rv;
	}
	event_done(l, &l->event_op, 0);
	rlog_net_start(l);
	rlog_net_members(l);
	publish_status(l);
	return 0;
}

/* Nothing new is begun; what the kernel still has of ours must come back before its memory goes. */
static void loop_stop(struct rlog *l)
{
	uint64_t until = rlog_clock_ms() + 5000;

	rlog_net_stop(l);
	while ((!rlog_net_idle(l) || rlog_server_writing(l->server)) && rlog_clock_ms() < until) {
		l->now = rlog_clock_ms();
		enter(l, l->now + 100);
		complete_all(l);
	}
	while (l->transfers != NULL)
		finish(l, &l->transfers, -ETIMEDOUT);
	end_all_calls(l);
	io_uring_queue_exit(&l->ring);
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
	take_commands(l);
	while (l->transfers != NULL)
		finish(l, &l->transfers, -ETIMEDOUT);
	end_all_calls(l);
	return NULL;
}
