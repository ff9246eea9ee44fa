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
#include "net/dial.h"

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
	rlog_helper_close(l->helper);
	rlog_server_free(l->server);
	rlog_net_free(l->net);
	rlog_calls_free(l->calls);
	if (l->log != NULL)
		rlog_log_close(l->log);
	if (l->disk != NULL)
		rlog_disk_close(l->disk);
	if (l->event_fd >= 0)
		close(l->event_fd);
	pthread_cond_destroy(&l->has_started);
	pthread_mutex_destroy(&l->lock);
	free(l);
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

static int start_threads(struct rlog *l)
{
	int rv = rlog_calls_open(&l->calls, l, rlog_loop_wake);

	if (rv == 0)
		rv = rlog_helper_open(&l->helper, rlog_loop_wake, l);
	if (rv == 0)
		rv = -pthread_create(&l->thread, NULL, rlog_loop_main, l);
	return rv;
}

/* The loop has begun, or has ended with a line in `errmsg`. */
static int wait_for_start(struct rlog *l, char errmsg[RLOG_ERRMSG_SIZE])
{
	int rv;

	pthread_mutex_lock(&l->lock);
	while (!l->started)
		pthread_cond_wait(&l->has_started, &l->lock);
	rv = l->start_result;
	pthread_mutex_unlock(&l->lock);
	if (rv != 0) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "%s", l->start_errmsg);
		pthread_join(l->thread, NULL);
	}
	return rv;
}

static unsigned format_reads(const struct rlog_config *config)
{
	return config->format_reads != 0 ? config->format_reads : RLOG_FORMAT_LEVEL;
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
	l->self.id = config->id;
	l->self.cluster_id = config->cluster_id;
	strcpy(l->self.address, config->address);
	l->self.format_reads = options.format_reads = format_reads(config);
	l->cb = config->cb;
	l->ctx = config->ctx;
	l->listen_fd = config->listen_fd;
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->has_started, NULL);
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
		.id = l->self.id,
		.address = l->self.address,
		.format_reads = l->self.format_reads,
		.election_timeout_ms = config->election_timeout_ms,
		.heartbeat_ms = config->heartbeat_ms,
		.commit_timeout_ms = config->commit_timeout_ms,
		.seed = seed,
		.cb = l->cb,
		.ctx = l->ctx,
	};
	rv = start_threads(l);
	if (rv != 0)
		fail(errmsg, rv, "cannot start a thread for", config->dir);
	else
		rv = wait_for_start(l, errmsg);
	if (rv != 0) {
		release(l);
		return rv;
	}
	*out = l;
	return 0;
}

void rlog_stop(struct rlog *l)
{
	assert(!pthread_equal(pthread_self(), l->thread));
	atomic_store(&l->stop, true);
	rlog_loop_wake(l);
	pthread_join(l->thread, NULL);
	rlog_helper_close(l->helper);
	l->helper = NULL;
	close(l->listen_fd);
}

void rlog_free(struct rlog *l)
{
	if (l != NULL)
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

/* Have the loop do it, and wait for the result. Once the loop has ended, another thread may have its number. */
static int call(struct rlog *l, struct rlog_call *call)
{
	assert(atomic_load(&l->dead) || !pthread_equal(pthread_self(), l->thread));
	return rlog_calls_wait(l->calls, call);
}

/* ---- leadership --------------------------------------------------------------------------- */

struct transfer_call {
	struct rlog_call call;
	uint64_t id;
	unsigned timeout_ms;
	bool begun;
};

/* Transfers that several threads ask for begin one after the other. */
static int begin_transfer(struct rlog *l, struct rlog_call *call)
{
	struct transfer_call *c = (struct transfer_call *)call;
	int rv;

	if (call->until_ms == 0)
		call->until_ms = l->now + c->timeout_ms;
	if (c->begun)
		return RLOG_CALL_AGAIN;
	rv = rlog_server_transfer(l->server, c->id,
				  call->until_ms > l->now ? (unsigned)(call->until_ms - l->now)
							  : 0);
	c->begun = rv == 0;
	return rv == 0 || rv == -EBUSY ? RLOG_CALL_AGAIN : rv;
}

static uint64_t published_leader(struct rlog *l)
{
	uint64_t leader;

	pthread_mutex_lock(&l->lock);
	leader = l->status.view.leader_id;
	pthread_mutex_unlock(&l->lock);
	return leader;
}

/* Who is told of a new leader finds it in the status. */
static int end_transfer(struct rlog *l, struct rlog_call *call)
{
	struct transfer_call *c = (struct transfer_call *)call;
	const uint64_t leader = published_leader(l);
	const int result = c->begun ? rlog_server_transfer_result(l->server) : 0;

	if (c->begun && leader != 0 && leader != l->self.id)
		return 0;
	if (result != 0)
		return result;
	return l->now >= call->until_ms ? -ETIMEDOUT : RLOG_CALL_AGAIN;
}

int rlog_transfer(struct rlog *l, uint64_t id, unsigned timeout_ms)
{
	struct transfer_call c = {.call.turn = begin_transfer,
				  .call.late = end_transfer,
				  .id = id,
				  .timeout_ms = timeout_ms};
	int rv = call(l, &c.call);

	if (rv != -EIO)
		return rv;
	/* The loop has ended. */
	return c.call.until_ms == 0 ? -EALREADY : -ETIMEDOUT;
}

/* ---- snapshots ---------------------------------------------------------------------------- */

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
	int rv = call(l, &c.call), stored;

	if (rv != 0)
		return rv;
	/* Here, so that no commit waits for it. */
	stored = rlog_snapshot_store(l->disk, c.image);
	c.stored = stored == 0;
	c.call.turn = end_snapshot;
	rv = call(l, &c.call);
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
	int rv = call(l, &c.call);

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

	return call(l, &c.call);
}

int rlog_dial(struct rlog *l, uint64_t id, const char *address, unsigned timeout_ms,
	      char errmsg[RLOG_ERRMSG_SIZE])
{
	return rlog_dial_stream(&l->self, id, address, timeout_ms, errmsg);
}

void rlog_status(struct rlog *l, struct rlog_status *out)
{
	pthread_mutex_lock(&l->lock);
	*out = l->status;
	pthread_mutex_unlock(&l->lock);
}

unsigned rlog_format_level(struct rlog *l)
{
	unsigned level;

	pthread_mutex_lock(&l->lock);
	level = l->status.format_level;
	pthread_mutex_unlock(&l->lock);
	return level;
}

unsigned rlog_format_needed(struct rlog *l)
{
	unsigned level;

	pthread_mutex_lock(&l->lock);
	level = l->status.format_needed;
	pthread_mutex_unlock(&l->lock);
	return level;
}

unsigned rlog_format_of(struct rlog *l, uint64_t id)
{
	unsigned level = 1;

	pthread_mutex_lock(&l->lock);
	for (unsigned i = 0; i < l->status.member_count; i++)
		if (l->status.members[i].id == id)
			level = l->status.members[i].format_reads;
	pthread_mutex_unlock(&l->lock);
	return level;
}
