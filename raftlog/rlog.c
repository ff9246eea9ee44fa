/* The public functions: opening and closing, and the inbox that leads from other threads to the loop. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>
#include "log/compact.h"
#include "log/disk.h"
#include "log/open.h"
#include "log/snapshot.h"
#include "loop/loop.h"

static int fail(char errmsg[RLOG_ERRMSG_SIZE], int error, const char *what, const char *path)
{
	snprintf(errmsg, RLOG_ERRMSG_SIZE, "%s %.150s: %s", what, path, strerror(-error));
	return error;
}

/* ---- life --------------------------------------------------------------------------------- */

static void log_line(void *ctx, char level, const char *line)
{
	rlog_loop_log(ctx, level, "%s", line);
}

static void release(struct rlog *l)
{
	rlog_server_free(l->server);
	if (l->log != NULL)
		rlog_log_close(l->log);
	if (l->disk != NULL)
		rlog_disk_close(l->disk);
	if (l->event_fd >= 0)
		close(l->event_fd);
	while (l->net.links != NULL) {
		struct rlog_link *next = l->net.links->next;

		free(l->net.links);
		l->net.links = next;
	}
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->mutex);
	free(l);
}

static void stop_helper(struct rlog *l)
{
	pthread_mutex_lock(&l->mutex);
	l->helper_stop = true;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->mutex);
	pthread_join(l->helper, NULL);
	/* The loop has ended too: this thread stands in for it. */
	while (l->jobs_done != NULL) {
		struct rlog_job *job = l->jobs_done;

		l->jobs_done = job->next;
		job->done(l, job);
	}
}

/* Hand what the snapshot says to the owner. */
static int restore(struct rlog *l)
{
	const struct rlog_snapshot *snapshot = rlog_log_snapshot(l->log);
	struct rlog_buf *payload;
	int rv;

	if (snapshot == NULL || l->cb.restore == NULL)
		return 0;
	payload = rlog_buf_new(snapshot->payload_len);
	if (payload == NULL)
		return -ENOMEM;
	memcpy(payload->data, snapshot->payload, snapshot->payload_len);
	rv = l->cb.restore(l->ctx, snapshot->index, payload, rlog_log_last(l->log));
	rlog_buf_unref(payload);
	return rv;
}

int rlog_open(struct rlog **out, const struct rlog_config *config, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_log_options options = {.cluster_id = config->cluster_id,
					   .node_id = config->id,
					   .log = log_line};
	struct rlog *l;
	unsigned seed;
	int rv;

	errmsg[0] = 0;
	if (strlen(config->address) >= RLOG_ADDRESS_MAX)
		return fail(errmsg, -ENAMETOOLONG, "cannot use the address", config->address);
	l = calloc(1, sizeof *l);
	if (l == NULL)
		return fail(errmsg, -ENOMEM, "cannot open", config->dir);
	l->id = config->id;
	l->cluster_id = config->cluster_id;
	strcpy(l->address, config->address);
	l->election_timeout_ms =
		config->election_timeout_ms != 0 ? config->election_timeout_ms : 500;
	l->cb = config->cb;
	l->ctx = config->ctx;
	l->net.listen_fd = config->listen_fd;
	l->jobs_tail = &l->jobs;
	l->calls_tail = &l->calls;
	l->new_calls_tail = &l->new_calls;
	pthread_mutex_init(&l->mutex, NULL);
	pthread_cond_init(&l->changed, NULL);
	options.ctx = l;
	l->event_fd = eventfd(0, EFD_CLOEXEC);
	rv = l->event_fd < 0 ? -errno : 0;
	if (rv == 0 && getrandom(&seed, sizeof seed, 0) != sizeof seed)
		rv = -EIO;
	if (rv == 0)
		rv = rlog_disk_open(&l->disk, config->dir);
	if (rv != 0) {
		fail(errmsg, rv, "cannot open", config->dir);
		release(l);
		return rv;
	}
	rv = rlog_log_open(&l->log, l->disk, &options, errmsg);
	if (rv != 0) {
		release(l);
		return rv;
	}
	rv = restore(l);
	if (rv != 0) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE,
			 "cannot take up the state that the snapshot names: %s", strerror(-rv));
		release(l);
		return rv;
	}
	l->server_config = (struct rlog_server_config){
		.id = l->id,
		.address = l->address,
		.election_timeout_ms = config->election_timeout_ms,
		.heartbeat_ms = config->heartbeat_ms,
		.commit_timeout_ms = config->commit_timeout_ms,
		.seed = seed,
		.cb = l->cb,
		.ctx = l->ctx,
	};
	rv = -pthread_create(&l->helper, NULL, rlog_helper_main, l);
	if (rv != 0) {
		fail(errmsg, rv, "cannot start a thread for", config->dir);
		release(l);
		return rv;
	}
	rv = -pthread_create(&l->thread, NULL, rlog_loop_main, l);
	if (rv != 0) {
		fail(errmsg, rv, "cannot start a thread for", config->dir);
		stop_helper(l);
		release(l);
		return rv;
	}
	pthread_mutex_lock(&l->mutex);
	while (!l->started)
		pthread_cond_wait(&l->changed, &l->mutex);
	rv = l->start_result;
	pthread_mutex_unlock(&l->mutex);
	if (rv != 0) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "%s", l->start_errmsg);
		pthread_join(l->thread, NULL);
		stop_helper(l);
		release(l);
		return rv;
	}
	*out = l;
	return 0;
}

void rlog_close(struct rlog *l)
{
	if (l == NULL)
		return;
	assert(!pthread_equal(pthread_self(), l->thread));
	atomic_store(&l->stop, true);
	rlog_loop_wake(l);
	pthread_join(l->thread, NULL);
	stop_helper(l);
	close(l->net.listen_fd);
	release(l);
}

/* ---- the inbox ---------------------------------------------------------------------------- */

void rlog_submit(struct rlog *l, struct rlog_request *req)
{
	struct rlog_request *head = atomic_load_explicit(&l->submitted, memory_order_relaxed);

	do
		req->next = head;
	while (!atomic_compare_exchange_weak(&l->submitted, &head, req));
	if (!atomic_load(&l->dead)) {
		rlog_loop_wake(l);
		return;
	}
	/* Nobody listens any more. Whoever takes a request off the stack ends it. */
	for (req = atomic_exchange(&l->submitted, NULL); req != NULL; req = head) {
		head = req->next;
		rlog_buf_unref(req->buf);
		req->buf = NULL;
		req->done(req, RLOG_REFUSED);
	}
}

void rlog_resume(struct rlog *l)
{
	atomic_store(&l->resume, true);
	rlog_loop_wake(l);
}

int rlog_transfer(struct rlog *l, uint64_t id, unsigned timeout_ms)
{
	struct rlog_command command = {.id = id, .timeout_ms = timeout_ms};

	assert(!pthread_equal(pthread_self(), l->thread));
	pthread_mutex_lock(&l->mutex);
	if (atomic_load(&l->dead)) {
		pthread_mutex_unlock(&l->mutex);
		return -EALREADY;
	}
	command.next = l->commands;
	l->commands = &command;
	pthread_mutex_unlock(&l->mutex);
	rlog_loop_wake(l);
	pthread_mutex_lock(&l->mutex);
	while (!command.finished)
		pthread_cond_wait(&l->changed, &l->mutex);
	pthread_mutex_unlock(&l->mutex);
	return command.result;
}

/* ---- snapshots ---------------------------------------------------------------------------- */

int rlog_loop_call(struct rlog *l, struct rlog_call *call)
{
	assert(!pthread_equal(pthread_self(), l->thread));
	call->next = NULL;
	call->finished = false;
	pthread_mutex_lock(&l->mutex);
	if (atomic_load(&l->dead)) {
		pthread_mutex_unlock(&l->mutex);
		return -EIO;
	}
	*l->new_calls_tail = call;
	l->new_calls_tail = &call->next;
	pthread_mutex_unlock(&l->mutex);
	rlog_loop_wake(l);
	pthread_mutex_lock(&l->mutex);
	while (!call->finished)
		pthread_cond_wait(&l->changed, &l->mutex);
	pthread_mutex_unlock(&l->mutex);
	return call->result;
}

struct snapshot_call {
	struct rlog_call call;
	uint64_t index, keep_bytes;
	const struct rlog_buf *payload;
	struct rlog_buf *image;
	bool stored;
};

static int begin_snapshot(struct rlog *l, struct rlog_call *call)
{
	struct snapshot_call *c = (struct snapshot_call *)call;
	int rv;

	if (l->storing)
		return RLOG_CALL_AGAIN;
	rv = rlog_server_image(l->server, c->index, c->payload, &c->image);
	l->storing = rv == 0;
	return rv;
}

static int end_snapshot(struct rlog *l, struct rlog_call *call)
{
	struct snapshot_call *c = (struct snapshot_call *)call;

	l->storing = false;
	l->status_due = true;
	return c->stored ? rlog_server_snapshot(l->server, c->image, c->keep_bytes) : 0;
}

int rlog_snapshot(struct rlog *l, uint64_t index, struct rlog_buf *payload, uint64_t keep_bytes)
{
	struct snapshot_call c = {.call.turn = begin_snapshot,
				  .index = index,
				  .keep_bytes = keep_bytes,
				  .payload = payload};
	int rv = rlog_loop_call(l, &c.call), stored;

	if (rv != 0)
		return rv;
	/* Here, so that no commit waits for it. */
	stored = rlog_snapshot_store(l->disk, c.image);
	c.stored = stored == 0;
	c.call.turn = end_snapshot;
	rv = rlog_loop_call(l, &c.call);
	rlog_buf_unref(c.image);
	return stored != 0 ? stored : rv;
}

struct image_call {
	struct rlog_call call;
	struct rlog_buf *image, *payload;
};

static int copy_image(struct rlog *l, struct rlog_call *call)
{
	const struct rlog_snapshot *snapshot = rlog_log_snapshot(l->log);

	if (snapshot == NULL)
		return -ENOENT;
	((struct image_call *)call)->image = rlog_buf_ref(snapshot->image);
	return 0;
}

int rlog_snapshot_image(struct rlog *l, struct rlog_buf **out)
{
	struct image_call c = {.call.turn = copy_image};
	int rv = rlog_loop_call(l, &c.call);

	*out = c.image;
	return rv;
}

int rlog_image_read(struct rlog_buf *image, uint64_t cluster_id, uint64_t *index, uint64_t *term,
		    struct rlog_buf **payload)
{
	struct rlog_snapshot s;
	int rv = rlog_snapshot_decode(image, cluster_id, &s);

	if (rv != 0)
		return rv == -ENOTSUP ? -EBADMSG : rv;
	*index = s.index;
	*term = s.term;
	*payload = rlog_buf_new(s.payload_len);
	if (*payload != NULL)
		memcpy((*payload)->data, s.payload, s.payload_len);
	rlog_snapshot_clear(&s);
	return *payload != NULL ? 0 : -ENOMEM;
}

static int install(struct rlog *l, struct rlog_call *call)
{
	struct image_call *c = (struct image_call *)call;

	if (l->storing || l->spare_out || rlog_server_writing(l->server))
		return RLOG_CALL_AGAIN;
	l->status_due = true;
	return rlog_server_install(l->server, l->disk, c->image, c->payload);
}

int rlog_install(struct rlog *l, struct rlog_buf *image, struct rlog_buf *payload)
{
	struct image_call c = {.call.turn = install, .image = image, .payload = payload};

	return rlog_loop_call(l, &c.call);
}

void rlog_status(struct rlog *l, struct rlog_status *out)
{
	pthread_mutex_lock(&l->mutex);
	*out = l->status;
	pthread_mutex_unlock(&l->mutex);
}
