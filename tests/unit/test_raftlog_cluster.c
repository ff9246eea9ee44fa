/* Three real nodes over loopback in one process: joining, promotion, replication, a leader that goes
 * away, a transfer. The times printed are for the reader; nothing here depends on them. */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "raftlog.h"

#define CLUSTER 0x1122334455667788u

struct node {
	uint64_t id;
	char base[64], dir[96], address[64];
	int listen_fd;
	unsigned reads; /* a level; 0: this build's */
	struct rlog *log;
	pthread_mutex_t mutex; /* guards what follows */
	pthread_cond_t changed;
	unsigned applied;
	uint64_t hash, last_index;
	bool caught_up, fatal, full;
	bool told_to_upgrade, told_of_older; /* by its log */
	unsigned pushed_back;
	struct rlog_view view;
	/* of snapshots: what restore() was told, and the notices */
	uint64_t restored_index, restored_last;
	struct payload {
		uint64_t index, applied, hash;
	} restored;
	unsigned needs_state;
	uint64_t leader_id;
	char leader_address[128];
};

struct submission {
	struct rlog_request req;
	struct node *node;
	bool ended;
	enum rlog_outcome outcome;
};

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static int on_apply(void *ctx, uint64_t index, uint64_t term, struct rlog_buf *buf,
		    struct rlog_request *req)
{
	struct node *n = ctx;

	(void)term;
	pthread_mutex_lock(&n->mutex);
	if (n->full) {
		n->pushed_back++;
		pthread_cond_broadcast(&n->changed);
		pthread_mutex_unlock(&n->mutex);
		return -EAGAIN;
	}
	assert_true(index > n->last_index);
	n->last_index = index;
	n->applied++;
	for (size_t i = 0; i < buf->len; i++)
		n->hash = (n->hash ^ buf->data[i]) * 1099511628211u;
	if (req != NULL) {
		struct submission *s = (struct submission *)req;

		s->ended = true;
		s->outcome = RLOG_COMMITTED;
	}
	pthread_cond_broadcast(&n->changed);
	pthread_mutex_unlock(&n->mutex);
	return 0;
}

static void on_done(struct rlog_request *req, enum rlog_outcome outcome)
{
	struct submission *s = (struct submission *)req;

	pthread_mutex_lock(&s->node->mutex);
	s->ended = true;
	s->outcome = outcome;
	pthread_cond_broadcast(&s->node->changed);
	pthread_mutex_unlock(&s->node->mutex);
}

static void on_view(void *ctx, const struct rlog_view *view)
{
	struct node *n = ctx;

	pthread_mutex_lock(&n->mutex);
	n->view = *view;
	pthread_cond_broadcast(&n->changed);
	pthread_mutex_unlock(&n->mutex);
}

static void on_caught_up(void *ctx)
{
	struct node *n = ctx;

	pthread_mutex_lock(&n->mutex);
	n->caught_up = true;
	pthread_mutex_unlock(&n->mutex);
}

static void on_fatal(void *ctx, const char *msg)
{
	struct node *n = ctx;

	fprintf(stderr, "node %d: fatal: %s\n", (int)n->id, msg);
	pthread_mutex_lock(&n->mutex);
	n->fatal = true;
	pthread_mutex_unlock(&n->mutex);
}

static void on_log(void *ctx, char level, const char *line)
{
	struct node *n = ctx;

	pthread_mutex_lock(&n->mutex);
	n->told_to_upgrade = n->told_to_upgrade || strstr(line, "upgrade this node") != NULL;
	n->told_of_older = n->told_of_older || strstr(line, "upgrade that node") != NULL;
	pthread_mutex_unlock(&n->mutex);
	if (getenv("VERBOSE") != NULL)
		fprintf(stderr, "node %d: %c %s\n", (int)n->id, level, line);
}

static int on_restore(void *ctx, uint64_t index, struct rlog_buf *payload, uint64_t last_index)
{
	struct node *n = ctx;

	assert_int_equal(payload->len, sizeof n->restored);
	memcpy(&n->restored, payload->data, sizeof n->restored);
	assert_int_equal(n->restored.index, index);
	n->restored_index = n->last_index = index;
	n->restored_last = last_index;
	n->applied = (unsigned)n->restored.applied;
	n->hash = n->restored.hash;
	return 0;
}

static void on_needs_state(void *ctx, uint64_t leader_id, const char *leader_address)
{
	struct node *n = ctx;

	pthread_mutex_lock(&n->mutex);
	n->needs_state++;
	n->leader_id = leader_id;
	snprintf(n->leader_address, sizeof n->leader_address, "%s", leader_address);
	pthread_mutex_unlock(&n->mutex);
}

/* Serve the newest image, to whoever asks: its length, its bytes. */
static void *serve_image(void *arg)
{
	struct {
		struct node *node;
		int fd;
		uint64_t from;
	} *stream = arg;
	struct rlog_buf *image = NULL;
	uint64_t len, from;

	assert_int_equal(recv(stream->fd, &from, sizeof from, MSG_WAITALL), sizeof from);
	assert_int_equal(from, stream->from);
	assert_int_equal(rlog_snapshot_image(stream->node->log, &image), 0);
	len = image->len;
	assert_int_equal(send(stream->fd, &len, sizeof len, 0), sizeof len);
	assert_int_equal(send(stream->fd, image->data, len, 0), len);
	rlog_buf_unref(image);
	close(stream->fd);
	free(stream);
	return NULL;
}

static void on_stream(void *ctx, int fd, uint64_t from_id)
{
	struct {
		struct node *node;
		int fd;
		uint64_t from;
	} *stream = malloc(sizeof *stream);
	pthread_t thread;

	stream->node = ctx;
	stream->fd = fd;
	stream->from = from_id;
	pthread_create(&thread, NULL, serve_image, stream);
	pthread_detach(thread);
}

static void node_listen(struct node *n)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof sin;
	int one = 1;

	if (n->address[0] != 0)
		sin.sin_port = htons((uint16_t)atoi(strchr(n->address, ':') + 1));
	n->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(n->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	assert_int_equal(bind(n->listen_fd, (struct sockaddr *)&sin, sizeof sin), 0);
	assert_int_equal(listen(n->listen_fd, 16), 0);
	getsockname(n->listen_fd, (struct sockaddr *)&sin, &len);
	snprintf(n->address, sizeof n->address, "127.0.0.1:%u", ntohs(sin.sin_port));
}

static void node_init(struct node *n, uint64_t id)
{
	memset(n, 0, sizeof *n);
	n->id = id;
	strcpy(n->base, "/var/tmp/raftlog-cluster-XXXXXX");
	assert_non_null(mkdtemp(n->base));
	snprintf(n->dir, sizeof n->dir, "%s/log", n->base);
	pthread_mutex_init(&n->mutex, NULL);
	pthread_cond_init(&n->changed, NULL);
	node_listen(n);
}

static void node_open(struct node *n)
{
	char errmsg[RLOG_ERRMSG_SIZE];
	struct rlog_config config = {
		.dir = n->dir,
		.id = n->id,
		.cluster_id = CLUSTER,
		.address = n->address,
		.listen_fd = n->listen_fd,
		.format_reads = n->reads,
		/* where levels are set, a busy machine is to bring no election about */
		.election_timeout_ms = n->reads != 0 ? 5000 : 0,
		.cb = {on_apply, on_view, on_caught_up, on_fatal, on_log, on_restore,
		       on_needs_state, on_stream},
		.ctx = n,
	};

	n->applied = 0;
	n->hash = 0;
	n->last_index = 0;
	n->caught_up = false;
	memset(&n->view, 0, sizeof n->view);
	if (rlog_open(&n->log, &config, errmsg) != 0)
		fail_msg("rlog_open: %s", errmsg);
}

static void node_close(struct node *n)
{
	rlog_stop(n->log);
	rlog_free(n->log);
	n->log = NULL;
}

static void node_remove(struct node *n)
{
	char command[160];

	if (n->log != NULL)
		node_close(n);
	snprintf(command, sizeof command, "rm -rf %s", n->base);
	assert_int_equal(system(command), 0);
}

/* Wait, at most 20 s, until `holds`; true if it came to that. */
static bool wait_until(bool (*holds)(struct node *nodes, void *arg), struct node *nodes, void *arg)
{
	uint64_t until = now_us() + 20 * 1000000;

	while (!holds(nodes, arg)) {
		if (now_us() > until)
			return false;
		usleep(2000);
	}
	return true;
}

static bool is_ready(struct node *n, void *arg)
{
	bool ready;

	(void)arg;
	pthread_mutex_lock(&n->mutex);
	ready = n->view.ready;
	pthread_mutex_unlock(&n->mutex);
	return ready;
}

static bool all_voters(struct node *n, void *arg)
{
	struct rlog_status st;
	unsigned voters = 0;

	rlog_status(n->log, &st);
	for (unsigned i = 0; i < st.member_count; i++)
		voters += st.members[i].role == RLOG_VOTER;
	return voters == *(unsigned *)arg;
}

static bool has_applied(struct node *n, void *arg)
{
	bool yes;

	pthread_mutex_lock(&n->mutex);
	yes = n->applied >= *(unsigned *)arg;
	pthread_mutex_unlock(&n->mutex);
	return yes;
}

static void submit(struct node *n, struct submission *s, const void *bytes, size_t len)
{
	memset(s, 0, sizeof *s);
	s->node = n;
	s->req.done = on_done;
	s->req.buf = rlog_buf_new(len);
	memcpy(s->req.buf->data, bytes, len);
	rlog_submit(n->log, &s->req);
}

static uint64_t hash_of(struct node *n)
{
	uint64_t hash;

	pthread_mutex_lock(&n->mutex);
	hash = n->hash;
	pthread_mutex_unlock(&n->mutex);
	return hash;
}

static enum rlog_outcome wait_for(struct submission *s)
{
	enum rlog_outcome outcome;

	pthread_mutex_lock(&s->node->mutex);
	while (!s->ended)
		pthread_cond_wait(&s->node->changed, &s->node->mutex);
	outcome = s->outcome;
	pthread_mutex_unlock(&s->node->mutex);
	return outcome;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* One after the other, `count` entries of `len` bytes; prints how long one takes. */
static void submit_serially(struct node *n, unsigned count, size_t len, const char *what)
{
	uint64_t *us = calloc(count, sizeof *us);
	char *bytes = calloc(1, len);

	for (unsigned i = 0; i < count; i++) {
		struct submission s;
		uint64_t begin = now_us();

		snprintf(bytes, len, "%s %u", what, i);
		submit(n, &s, bytes, len);
		assert_int_equal(wait_for(&s), RLOG_COMMITTED);
		us[i] = now_us() - begin;
	}
	qsort(us, count, sizeof *us, by_value);
	print_message("%s: %u entries of %zu bytes, one at a time: median %llu us, 99%% %llu us\n",
		      what, count, len, (unsigned long long)us[count / 2],
		      (unsigned long long)us[count * 99 / 100]);
	free(us);
	free(bytes);
}

static void submit_at_once(struct node *n, unsigned count)
{
	struct submission *all = calloc(count, sizeof *all);
	uint64_t begin = now_us();

	for (unsigned i = 0; i < count; i++)
		submit(n, &all[i], &i, sizeof i);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(wait_for(&all[i]), RLOG_COMMITTED);
	print_message("%u at once: %llu us\n", count, (unsigned long long)(now_us() - begin));
	free(all);
}

static void bootstrap(struct node *n)
{
	char errmsg[RLOG_ERRMSG_SIZE];

	if (rlog_bootstrap(n->dir, n->id, CLUSTER, n->address, errmsg) != 0)
		fail_msg("rlog_bootstrap: %s", errmsg);
	node_open(n);
	assert_true(wait_until(is_ready, n, NULL));
}

static void join(struct node *n, struct node *peer)
{
	char errmsg[RLOG_ERRMSG_SIZE];
	struct rlog_joiner self = {.id = n->id, .address = n->address};

	if (rlog_join(peer->address, &self, 5000, errmsg) != 0)
		fail_msg("rlog_join: %s", errmsg);
	assert_int_equal(self.cluster_id, CLUSTER);
	/* Again, as after a crash at this point. */
	assert_int_equal(rlog_join(peer->address, &self, 5000, errmsg), 0);
	if (rlog_init_member(n->dir, n->id, self.cluster_id, errmsg) != 0)
		fail_msg("rlog_init_member: %s", errmsg);
	node_open(n);
}

static void one_node_commits_and_finds_all_again(void **state)
{
	struct node n;
	unsigned count = 1500;
	uint64_t hash;

	(void)state;
	node_init(&n, 7);
	bootstrap(&n);
	submit_serially(&n, 500, 4200, "one node");
	submit_at_once(&n, 1000);
	assert_true(n.caught_up);
	hash = n.hash;
	node_close(&n);
	node_listen(&n);
	node_open(&n);
	assert_true(wait_until(has_applied, &n, &count));
	assert_true(wait_until(is_ready, &n, NULL));
	assert_int_equal(n.applied, count);
	assert_true(n.hash == hash);
	node_remove(&n);
}

/* So many at once that one of them gets the number that the loop's thread had. */
enum { LATECOMERS = 4 };

static pthread_barrier_t latecomers;

static void *transfer_of_a_stopped_log(void *arg)
{
	struct node *n = arg;

	pthread_barrier_wait(&latecomers);
	assert_int_equal(rlog_transfer(n->log, 0, 1000), -EALREADY);
	return NULL;
}

static void stopped_log_still_answers(void **state)
{
	struct node n;
	struct submission s;
	struct rlog_status status;
	struct rlog_buf *image;
	pthread_t threads[LATECOMERS];

	(void)state;
	node_init(&n, 7);
	bootstrap(&n);
	submit(&n, &s, "x", 1);
	assert_int_equal(wait_for(&s), RLOG_COMMITTED);
	rlog_stop(n.log);
	submit(&n, &s, "y", 1);
	assert_int_equal(wait_for(&s), RLOG_REFUSED);
	rlog_resume(n.log);
	assert_int_equal(rlog_snapshot_image(n.log, &image), -EIO);
	rlog_status(n.log, &status);
	assert_int_equal(status.view.leader_id, 7);
	assert_int_equal(pthread_barrier_init(&latecomers, NULL, LATECOMERS), 0);
	for (unsigned i = 0; i < LATECOMERS; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, transfer_of_a_stopped_log, &n), 0);
	for (unsigned i = 0; i < LATECOMERS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	pthread_barrier_destroy(&latecomers);
	rlog_free(n.log);
	n.log = NULL;
	node_remove(&n);
}

static void one_node_receiver_full_delivers_again(void **state)
{
	struct node n;
	struct submission s;

	(void)state;
	node_init(&n, 7);
	bootstrap(&n);
	n.full = true;
	submit(&n, &s, "x", 1);
	pthread_mutex_lock(&n.mutex);
	while (n.pushed_back == 0)
		pthread_cond_wait(&n.changed, &n.mutex);
	assert_false(s.ended);
	n.full = false;
	pthread_mutex_unlock(&n.mutex);
	rlog_resume(n.log);
	assert_int_equal(wait_for(&s), RLOG_COMMITTED);
	assert_int_equal(n.pushed_back, 1);
	assert_int_equal(rlog_transfer(n.log, 0, 1000), -ENOENT);
	node_remove(&n);
}

static struct node *find_leader(struct node *nodes, uint64_t *took_us)
{
	uint64_t begin = now_us();

	while (now_us() - begin < 20 * 1000000) {
		for (unsigned i = 0; i < 3; i++) {
			if (nodes[i].log != NULL && is_ready(&nodes[i], NULL)) {
				*took_us = now_us() - begin;
				return &nodes[i];
			}
		}
		usleep(1000);
	}
	fail_msg("no leader");
	return NULL;
}

static void three_nodes_replicate_and_survive_their_leader(void **state)
{
	char errmsg[RLOG_ERRMSG_SIZE];
	struct node nodes[3], *leader;
	struct submission s;
	struct rlog_status status;
	struct rlog_joiner other = {.id = 9, .cluster_id = CLUSTER + 1};
	uint64_t took;
	unsigned three = 3, expected;
	char *large;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		node_init(&nodes[i], i + 1);
	bootstrap(&nodes[0]);
	submit_serially(&nodes[0], 100, 4200, "before the others");
	join(&nodes[1], &nodes[0]);
	join(&nodes[2], &nodes[1]); /* a follower, which knows the leader */
	other.address = nodes[1].address;
	assert_int_equal(rlog_join(nodes[0].address, &other, 2000, errmsg), -EXDEV);
	other.cluster_id = 0;
	assert_int_equal(rlog_join(nodes[0].address, &other, 2000, errmsg), -EADDRINUSE);
	for (unsigned i = 0; i < 3; i++)
		assert_true(wait_until(all_voters, &nodes[i], &three));

	submit_serially(&nodes[0], 500, 4200, "three nodes");
	submit_at_once(&nodes[0], 1000);
	large = malloc(8000000);
	memset(large, 'x', 8000000);
	submit(&nodes[0], &s, large, 8000000);
	assert_int_equal(wait_for(&s), RLOG_COMMITTED);
	free(large);
	submit(&nodes[1], &s, "x", 1);
	assert_int_equal(wait_for(&s), RLOG_REFUSED);
	expected = 1601;
	for (unsigned i = 0; i < 3; i++) {
		assert_true(wait_until(has_applied, &nodes[i], &expected));
		assert_true(hash_of(&nodes[i]) == hash_of(&nodes[0]));
		assert_true(nodes[i].caught_up);
	}

	node_close(&nodes[0]);
	leader = find_leader(nodes, &took);
	print_message("a new leader after %llu ms\n", (unsigned long long)took / 1000);
	assert_true(took < 5000000);
	submit_serially(leader, 100, 4200, "two of three");
	node_listen(&nodes[0]);
	node_open(&nodes[0]);
	expected += 100;
	for (unsigned i = 0; i < 3; i++) {
		assert_true(wait_until(has_applied, &nodes[i], &expected));
		assert_true(hash_of(&nodes[i]) == hash_of(leader));
	}

	took = now_us();
	assert_int_equal(rlog_transfer(nodes[0].log, 0, 1000), -EALREADY);
	assert_int_equal(rlog_transfer(leader->log, 99, 1000), -ENOENT);
	assert_int_equal(rlog_transfer(leader->log, 1, 5000), 0);
	rlog_status(leader->log, &status);
	assert_int_equal(status.view.leader_id, 1);
	assert_string_equal(status.leader_address, nodes[0].address);
	assert_true(wait_until(is_ready, &nodes[0], NULL));
	print_message("handed over after %llu ms\n", (unsigned long long)(now_us() - took) / 1000);
	submit_serially(&nodes[0], 10, 4200, "after the transfer");
	expected += 10;
	for (unsigned i = 0; i < 3; i++)
		assert_true(wait_until(has_applied, &nodes[i], &expected));

	/* Two of three gone: nothing commits, nothing is refused that may yet commit. */
	node_close(&nodes[1]);
	node_close(&nodes[2]);
	submit(&nodes[0], &s, "y", 1);
	usleep(100000);
	node_close(&nodes[0]);
	assert_int_equal(wait_for(&s), RLOG_UNKNOWN);
	for (unsigned i = 0; i < 3; i++) {
		assert_false(nodes[i].fatal);
		node_remove(&nodes[i]);
	}
}

static struct rlog_buf *payload_of(struct node *n, uint64_t *index)
{
	struct rlog_buf *buf = rlog_buf_new(sizeof(struct payload));
	struct payload p;

	pthread_mutex_lock(&n->mutex);
	p = (struct payload){n->last_index, n->applied, n->hash};
	pthread_mutex_unlock(&n->mutex);
	memcpy(buf->data, &p, sizeof p);
	*index = p.index;
	return buf;
}

static uint64_t take_snapshot(struct node *n, uint64_t keep_bytes)
{
	uint64_t index;
	struct rlog_buf *payload = payload_of(n, &index);

	assert_int_equal(rlog_snapshot(n->log, index, payload, keep_bytes), 0);
	rlog_buf_unref(payload);
	return index;
}

/* Get an image from the node that the notice named, and install it. */
static int fetch_and_install(struct node *n)
{
	char errmsg[RLOG_ERRMSG_SIZE];
	uint64_t len, index, term;
	struct rlog_buf *image, *payload = NULL;
	struct payload p;
	int fd = rlog_dial(n->log, n->leader_id, n->leader_address, 5000, errmsg), rv;

	if (fd < 0)
		fail_msg("rlog_dial: %s", errmsg);
	assert_int_equal(send(fd, &n->id, sizeof n->id, 0), sizeof n->id);
	assert_int_equal(recv(fd, &len, sizeof len, MSG_WAITALL), sizeof len);
	image = rlog_buf_new(len);
	assert_int_equal(recv(fd, image->data, len, MSG_WAITALL), len);
	close(fd);
	assert_int_equal(rlog_image_read(image, CLUSTER, &index, &term, &payload), 0);
	memcpy(&p, payload->data, sizeof p);
	assert_int_equal(p.index, index);
	/* What comes behind it may be delivered before rlog_install() returns. */
	pthread_mutex_lock(&n->mutex);
	n->last_index = p.index;
	n->applied = (unsigned)p.applied;
	n->hash = p.hash;
	pthread_mutex_unlock(&n->mutex);
	rv = rlog_install(n->log, image, payload);
	rlog_buf_unref(payload);
	rlog_buf_unref(image);
	return rv;
}

static bool needs_state(struct node *n, void *arg)
{
	bool yes;

	(void)arg;
	pthread_mutex_lock(&n->mutex);
	yes = n->needs_state > 0;
	pthread_mutex_unlock(&n->mutex);
	return yes;
}

static void snapshot_shortens_the_log_and_is_restored(void **state)
{
	struct rlog_status st;
	struct rlog_buf *payload, *image = NULL;
	struct node n;
	unsigned count = 600;
	uint64_t index, hash;

	(void)state;
	node_init(&n, 7);
	bootstrap(&n);
	assert_int_equal(rlog_snapshot_image(n.log, &image), -ENOENT);
	submit_serially(&n, 400, 60000, "before the snapshot");
	payload = payload_of(&n, &index);
	assert_int_equal(rlog_snapshot(n.log, index + 100, payload, 0), -EINVAL);
	assert_int_equal(rlog_snapshot(n.log, 0, payload, 0), -EINVAL);
	rlog_buf_unref(payload);
	rlog_status(n.log, &st);
	assert_int_equal(st.first_index, 1);
	assert_int_equal(st.snapshot_index, 0);
	index = take_snapshot(&n, 0);
	assert_int_equal(take_snapshot(&n, 0), index);
	submit_serially(&n, 200, 1000, "behind it");
	rlog_status(n.log, &st);
	assert_int_equal(st.snapshot_index, index);
	assert_true(st.first_index > 1 && st.first_index <= index + 1);
	assert_true(st.log_bytes_since >= 200 * 1000 && st.log_bytes_since < 300 * 1000);
	assert_true(st.log_bytes < 400 * 60000);
	hash = hash_of(&n);
	node_close(&n);
	node_listen(&n);
	node_open(&n);
	assert_true(wait_until(has_applied, &n, &count));
	assert_true(wait_until(is_ready, &n, NULL));
	assert_int_equal(n.restored_index, index);
	assert_true(n.restored_last >= index + 200);
	assert_true(n.hash == hash);
	assert_int_equal(rlog_snapshot_image(n.log, &image), 0);
	/* A node that leads holds the newest state there is. */
	assert_int_equal(rlog_install(n.log, image, image), -EALREADY);
	rlog_buf_unref(image);
	node_remove(&n);
}

static void three_nodes_one_left_behind_fetches_the_state_and_follows(void **state)
{
	struct node nodes[3];
	unsigned three = 3, expected = 700;
	uint64_t index;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		node_init(&nodes[i], i + 1);
	bootstrap(&nodes[0]);
	join(&nodes[1], &nodes[0]);
	join(&nodes[2], &nodes[0]);
	for (unsigned i = 0; i < 3; i++)
		assert_true(wait_until(all_voters, &nodes[i], &three));
	submit_serially(&nodes[0], 100, 1000, "three nodes");
	node_close(&nodes[2]);
	submit_serially(&nodes[0], 400, 60000, "two of three");
	index = take_snapshot(&nodes[0], 0);
	submit_serially(&nodes[0], 100, 1000, "behind the snapshot");
	node_listen(&nodes[2]);
	node_open(&nodes[2]);
	assert_true(wait_until(needs_state, &nodes[2], NULL));
	assert_int_equal(nodes[2].leader_id, 1);
	assert_string_equal(nodes[2].leader_address, nodes[0].address);
	assert_int_equal(fetch_and_install(&nodes[2]), 0);
	submit_serially(&nodes[0], 100, 1000, "three again");
	for (unsigned i = 0; i < 3; i++) {
		assert_true(wait_until(has_applied, &nodes[i], &expected));
		assert_true(hash_of(&nodes[i]) == hash_of(&nodes[0]));
	}
	/* The same state again: it has that, and only delivers again what came after. */
	assert_int_equal(fetch_and_install(&nodes[2]), 0);
	assert_true(wait_until(has_applied, &nodes[2], &expected));
	assert_true(hash_of(&nodes[2]) == hash_of(&nodes[0]));
	node_close(&nodes[2]);
	node_listen(&nodes[2]);
	node_open(&nodes[2]);
	assert_int_equal(nodes[2].restored_index, index);
	submit_serially(&nodes[0], 100, 1000, "after its restart");
	expected += 100;
	assert_true(wait_until(has_applied, &nodes[2], &expected));
	assert_true(hash_of(&nodes[2]) == hash_of(&nodes[0]));
	for (unsigned i = 0; i < 3; i++) {
		assert_false(nodes[i].fatal);
		node_remove(&nodes[i]);
	}
}

static void dial_of_a_wrong_node_or_of_nobody_is_refused(void **state)
{
	char errmsg[RLOG_ERRMSG_SIZE];
	struct node nodes[3];
	unsigned two = 2;
	uint64_t began;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		node_init(&nodes[i], i + 1);
	bootstrap(&nodes[0]);
	join(&nodes[1], &nodes[0]);
	assert_true(wait_until(all_voters, &nodes[1], &two));
	/* Another member than the one that was meant; and itself. */
	assert_int_equal(rlog_dial(nodes[1].log, 3, nodes[0].address, 2000, errmsg), -EXDEV);
	assert_non_null(strstr(errmsg, nodes[0].address));
	assert_int_equal(rlog_dial(nodes[1].log, 2, nodes[1].address, 2000, errmsg), -EXDEV);
	/* Nobody. */
	began = now_us();
	assert_int_equal(rlog_dial(nodes[1].log, 1, "127.0.0.1:1", 2000, errmsg), -ECONNREFUSED);
	assert_non_null(strstr(errmsg, "127.0.0.1:1"));
	assert_int_equal(rlog_dial(nodes[1].log, 1, "nonsense", 2000, errmsg), -EINVAL);
	/* Somebody who says nothing: this node listens, but does not run. */
	assert_int_equal(rlog_dial(nodes[1].log, 3, nodes[2].address, 200, errmsg), -ETIMEDOUT);
	assert_true(now_us() - began < 2000000);
	/* A node of the cluster's id that is no member. */
	if (rlog_init_member(nodes[2].dir, 3, CLUSTER, errmsg) != 0)
		fail_msg("%s", errmsg);
	node_open(&nodes[2]);
	assert_int_equal(rlog_dial(nodes[2].log, 1, nodes[0].address, 2000, errmsg), -EPERM);
	assert_non_null(strstr(errmsg, "not a member"));
	for (unsigned i = 0; i < 3; i++)
		node_remove(&nodes[i]);
}

/* ---- levels of formats -------------------------------------------------------------------- */

static enum rlog_outcome submit_of(struct node *n, unsigned level, int *error)
{
	struct submission s = {.node = n};
	enum rlog_outcome outcome;

	s.req.done = on_done;
	s.req.format = level;
	s.req.buf = rlog_buf_new(8);
	memset(s.req.buf->data, (int)level, 8);
	rlog_submit(n->log, &s.req);
	outcome = wait_for(&s);
	*error = s.req.error;
	return outcome;
}

static bool may_write(struct node *n, void *arg)
{
	return rlog_format_level(n->log) == *(unsigned *)arg;
}

static bool needs(struct node *n, void *arg)
{
	return rlog_format_needed(n->log) == *(unsigned *)arg;
}

static bool was_told_to_upgrade(struct node *n, void *arg)
{
	bool told;

	(void)arg;
	pthread_mutex_lock(&n->mutex);
	told = n->told_to_upgrade;
	pthread_mutex_unlock(&n->mutex);
	return told;
}

static bool was_told_of_older(struct node *n, void *arg)
{
	bool told;

	(void)arg;
	pthread_mutex_lock(&n->mutex);
	told = n->told_of_older;
	pthread_mutex_unlock(&n->mutex);
	return told;
}

static void restart(struct node *n, unsigned reads)
{
	if (n->log != NULL)
		node_close(n);
	n->reads = reads;
	node_listen(n);
	node_open(n);
}

/* Three voters, of which the last reads level `reads`, the others 2; the first leads. */
static void three_nodes(struct node nodes[3], unsigned reads)
{
	unsigned voters = 3;

	for (unsigned i = 0; i < 3; i++) {
		node_init(&nodes[i], i + 1);
		nodes[i].reads = i == 2 ? reads : 2;
	}
	bootstrap(&nodes[0]);
	join(&nodes[1], &nodes[0]);
	join(&nodes[2], &nodes[0]);
	for (unsigned i = 0; i < 3; i++)
		assert_true(wait_until(all_voters, &nodes[i], &voters));
}

static void entry_of_a_level_waits_until_all_members_read_it(void **state)
{
	unsigned one = 1, two = 2, entries = 2;
	struct node nodes[3], *leader = &nodes[0];
	char errmsg[RLOG_ERRMSG_SIZE];
	struct rlog_config config = {.dir = nodes[2].dir,
				     .id = 3,
				     .cluster_id = CLUSTER,
				     .address = nodes[2].address,
				     .format_reads = 1};
	struct rlog_joiner older = {.id = 9, .address = "127.0.0.1:1"};
	struct rlog *log;
	int error;

	(void)state;
	three_nodes(nodes, 1);
	assert_int_equal(rlog_format_level(leader->log), 1);
	assert_int_equal(submit_of(leader, 2, &error), RLOG_REFUSED);
	assert_int_equal(error, -ENOTSUP);
	assert_int_equal(submit_of(leader, 1, &error), RLOG_COMMITTED);
	assert_int_equal(rlog_format_needed(leader->log), 1);

	/* the last one is upgraded, and everybody may go back until the level is used */
	restart(&nodes[2], 2);
	assert_true(wait_until(may_write, leader, &two));
	restart(&nodes[2], 1);
	assert_true(wait_until(may_write, leader, &one));
	restart(&nodes[2], 2);
	assert_true(wait_until(may_write, leader, &two));
	assert_int_equal(rlog_format_of(leader->log, 3), 2);
	assert_int_equal(submit_of(leader, 2, &error), RLOG_COMMITTED);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(wait_until(has_applied, &nodes[i], &entries));
		assert_true(wait_until(needs, &nodes[i], &two));
	}

	/* from now on nobody who reads less opens such a log, or becomes a member */
	node_close(&nodes[2]);
	assert_int_equal(rlog_open(&log, &config, errmsg), -ENOTSUP);
	assert_non_null(strstr(errmsg, "upgrade this node"));
	assert_int_equal(RLOG_FORMAT_LEVEL, 1); /* else the rest wants a higher level than 2 */
	assert_int_equal(rlog_join(leader->address, &older, 5000, errmsg), -EPROTO);
	assert_non_null(strstr(errmsg, "newer format"));
	assert_true(wait_until(was_told_of_older, leader, NULL));
	for (unsigned i = 0; i < 3; i++)
		node_remove(&nodes[i]);
}

static void member_that_returns_too_old_is_refused_until_it_is_upgraded(void **state)
{
	unsigned two = 2, one_entry = 1;
	struct node nodes[3], *leader = &nodes[0], *late = &nodes[2];
	char errmsg[RLOG_ERRMSG_SIZE];
	int error;

	(void)state;
	three_nodes(nodes, 2);
	assert_true(wait_until(may_write, leader, &two));
	node_close(late);
	assert_int_equal(submit_of(leader, 2, &error), RLOG_COMMITTED);

	restart(late, 1);
	assert_true(wait_until(was_told_to_upgrade, late, NULL));
	assert_true(wait_until(was_told_of_older, leader, NULL));
	assert_int_equal(rlog_dial(late->log, 1, leader->address, 5000, errmsg), -ENOTSUP);
	assert_non_null(strstr(errmsg, "upgrade this node"));
	assert_false(has_applied(late, &one_entry));
	assert_int_equal(rlog_format_needed(late->log), 1);

	restart(late, 2);
	assert_true(wait_until(has_applied, late, &one_entry));
	assert_int_equal(rlog_format_needed(late->log), 2);
	for (unsigned i = 0; i < 3; i++)
		node_remove(&nodes[i]);
}

static void join_nobody_there_says_so(void **state)
{
	char errmsg[RLOG_ERRMSG_SIZE];
	struct rlog_joiner self = {.id = 5, .address = "127.0.0.1:2"};

	(void)state;
	assert_int_equal(rlog_join("127.0.0.1:1", &self, 300, errmsg), -EHOSTUNREACH);
	assert_non_null(strstr(errmsg, "127.0.0.1:1"));
	assert_int_equal(rlog_join("nonsense", &self, 300, errmsg), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_node_commits_and_finds_all_again),
		cmocka_unit_test(stopped_log_still_answers),
		cmocka_unit_test(one_node_receiver_full_delivers_again),
		cmocka_unit_test(three_nodes_replicate_and_survive_their_leader),
		cmocka_unit_test(snapshot_shortens_the_log_and_is_restored),
		cmocka_unit_test(three_nodes_one_left_behind_fetches_the_state_and_follows),
		cmocka_unit_test(dial_of_a_wrong_node_or_of_nobody_is_refused),
		cmocka_unit_test(entry_of_a_level_waits_until_all_members_read_it),
		cmocka_unit_test(member_that_returns_too_old_is_refused_until_it_is_upgraded),
		cmocka_unit_test(join_nobody_there_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
