/* A new cluster from a survivor's log: nothing of it is lost, whatever fails on the way. */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <raft.h>

#include "../rig/log_rig.h"
#include "offline/create.h"
#include "base/configuration.h"
#include "log/compact.h"
#include "log/meta.h"
#include "log/read.h"
#include "raftlog.h"
#include "offline/new_cluster.h"
#include "offline/dump.h"

enum { OLD_CLUSTER = CLUSTER, NEW_CLUSTER = 78, TERM = 5 };

static const struct rlog_log_options new_options = {
	.cluster_id = NEW_CLUSTER,
	.node_id = NODE,
	.segment_bytes = SMALL_SEGMENT,
};

static const struct rlog_new_cluster_options anew = {
	.id = NODE,
	.cluster_id = OLD_CLUSTER,
	.new_cluster_id = NEW_CLUSTER,
	.address = "127.0.0.1:7003",
	.segment_bytes = SMALL_SEGMENT,
};

/* ---- logs ------------------------------------------------------------------------------------ */

static struct rlog_log *open_log_as(struct rlog_disk *d, const struct rlog_log_options *opt)
{
	struct rlog_log *l = NULL;
	char errmsg[RLOG_ERRMSG_SIZE] = "";

	if (rlog_log_open(&l, d, opt, errmsg) != 0)
		fail_msg("%s", errmsg);
	return l;
}

/* What entry `index` holds, in the logs that are made here: sizes of all kinds, some of which want a
 * segment of their own. */
static struct rlog_buf *content(uint64_t index)
{
	size_t len = index % 7 == 0 ? 30000 : index * 397 % 5000;
	struct rlog_buf *buf = rlog_buf_new(len);

	for (size_t i = 0; i < len; i++)
		buf->data[i] = (uint8_t)(index * 31 + i);
	return buf;
}

static void append(struct rlog_log *l, uint64_t until, uint64_t term)
{
	while (rlog_log_last(l) < until) {
		struct rlog_record r = {.index = rlog_log_last(l) + 1,
					.term = term,
					.type = RAFT_COMMAND};

		r.buf = content(r.index);
		assert_int_equal(rlog_log_append(l, &r, 1), 0);
		rlog_buf_unref(r.buf);
		assert_int_equal(rlog_log_flush(l), 0);
	}
}

static void make_log(struct rlog_disk *d, uint64_t last)
{
	struct rlog_record first = {.index = 1,
				    .term = 1,
				    .type = RAFT_CHANGE,
				    .buf = voters(1, NODE)};
	char errmsg[RLOG_ERRMSG_SIZE];
	struct rlog_log *l;

	assert_int_equal(rlog_log_create(d, &options, &first, errmsg), 0);
	rlog_buf_unref(first.buf);
	assert_int_equal(d->sync_dir(d), 0);
	l = open_log_as(d, &options);
	assert_int_equal(rlog_log_set_meta(l, TERM, 1), 0);
	append(l, last / 2, 2);
	append(l, last, TERM - 1);
	rlog_log_close(l);
}

static struct rlog_buf *image_of(uint64_t index, uint64_t term, const struct rlog_buf *conf)
{
	const struct rlog_snapshot s = {.index = index,
					.term = term,
					.taken_term = term,
					.conf_index = 1};

	return snapshot_image(s, conf, "manifest", 8);
}

/* A snapshot at `index` (its term is that of the second half), and what is in front goes. */
static void compact(struct rlog_disk *d, uint64_t index)
{
	struct rlog_log *l = open_log_as(d, &options);
	struct rlog_buf *conf = voters(1, NODE), *image;

	image = image_of(index, TERM - 1, conf);
	assert_int_equal(rlog_snapshot_store(d, image), 0);
	assert_int_equal(rlog_log_set_snapshot(l, image), 0);
	rlog_log_compact(l, 0);
	assert_true(rlog_log_first(l) > 1);
	rlog_buf_unref(image);
	rlog_buf_unref(conf);
	rlog_log_close(l);
}

static struct memdisk *disk_with_entries(uint64_t last)
{
	struct memdisk *m = memdisk_new(1);

	make_log(memdisk_disk(m), last);
	return m;
}

/* The log of the new cluster: entries up to `last` as they were, then the membership. */
static void check(struct rlog_disk *d, uint64_t snapshot_index, uint64_t last)
{
	struct rlog_log *l = open_log_as(d, &new_options);
	const struct rlog_snapshot *s = rlog_log_snapshot(l);
	uint64_t term, vote;
	struct rlog_buf *alone = rlog_configuration_alone(NODE, anew.address);
	struct rlog_record r;

	rlog_log_meta(l, &term, &vote);
	assert_int_equal(term, TERM + 1);
	assert_int_equal(vote, NODE);
	assert_int_equal(s ? s->index : 0, snapshot_index);
	if (s) {
		assert_int_equal(s->term, TERM - 1);
		assert_int_equal(s->conf_index, 1);
		assert_int_equal(s->payload_len, 8);
		assert_memory_equal(s->payload, "manifest", 8);
	}
	assert_int_equal(rlog_log_first(l), snapshot_index + 1);
	assert_int_equal(rlog_log_last(l), last + 1);
	assert_int_equal(rlog_log_durable(l), last + 1);
	for (uint64_t i = snapshot_index + 1; i <= last; i++) {
		struct rlog_buf *wanted = i == 1 ? voters(1, NODE) : content(i);

		assert_int_equal(rlog_log_read(l, i, &r), 0);
		assert_int_equal(r.type, i == 1 ? RAFT_CHANGE : RAFT_COMMAND);
		assert_int_equal(r.term, i == 1 ? 1 : i <= last / 2 ? 2 : TERM - 1);
		assert_int_equal(r.buf->len, wanted->len);
		assert_memory_equal(r.buf->data, wanted->data, wanted->len);
		rlog_buf_unref(r.buf);
		rlog_buf_unref(wanted);
	}
	assert_int_equal(rlog_log_read(l, last + 1, &r), 0);
	assert_int_equal(r.type, RAFT_CHANGE);
	assert_int_equal(r.term, TERM + 1);
	assert_int_equal(r.buf->len, alone->len);
	assert_memory_equal(r.buf->data, alone->data, alone->len);
	rlog_buf_unref(r.buf);
	rlog_buf_unref(alone);
	rlog_log_close(l);
}

static void check_old(struct rlog_disk *d, uint64_t snapshot_index, uint64_t last)
{
	struct rlog_log *l = open_log_as(d, &options);
	struct rlog_record r;

	assert_int_equal(rlog_log_snapshot(l) ? rlog_log_snapshot(l)->index : 0, snapshot_index);
	assert_int_equal(rlog_log_last(l), last);
	for (uint64_t i = rlog_log_first(l); i <= last; i++) {
		assert_int_equal(rlog_log_read(l, i, &r), 0);
		rlog_buf_unref(r.buf);
	}
	rlog_log_close(l);
}

static int copy(struct memdisk *from, struct memdisk *to, char errmsg[RLOG_ERRMSG_SIZE])
{
	errmsg[0] = 0;
	return rlog_new_cluster_copy(memdisk_disk(from), memdisk_disk(to), &anew, errmsg);
}

static void copy_well(struct memdisk *from, struct memdisk *to)
{
	char errmsg[RLOG_ERRMSG_SIZE];

	if (copy(from, to, errmsg) != 0)
		fail_msg("%s", errmsg);
}

/* ---- the copy ---------------------------------------------------------------------------------- */

static void whole_log_is_kept_and_ends_alone(void **state)
{
	struct memdisk *from = disk_with_entries(40), *to = memdisk_new(2);
	char errmsg[RLOG_ERRMSG_SIZE];
	struct rlog_log *l;

	(void)state;
	copy_well(from, to);
	memdisk_crash(to);
	check(memdisk_disk(to), 0, 40);
	check_old(memdisk_disk(from), 0, 40);
	/* neither is the other's */
	assert_int_equal(rlog_log_open(&l, memdisk_disk(to), &options, errmsg), -EXDEV);
	assert_int_equal(rlog_log_open(&l, memdisk_disk(from), &new_options, errmsg), -EXDEV);
	memdisk_free(from);
	memdisk_free(to);
}

static void compacted_log_is_kept_from_its_snapshot_on(void **state)
{
	(void)state;
	for (uint64_t index = 24; index <= 40; index++) {
		struct memdisk *from = disk_with_entries(40), *to = memdisk_new(2);

		compact(memdisk_disk(from), index);
		copy_well(from, to);
		memdisk_crash(to);
		check(memdisk_disk(to), index, 40);
		check_old(memdisk_disk(from), index, 40);
		memdisk_free(from);
		memdisk_free(to);
	}
}

static void truncated_entries_do_not_come_back(void **state)
{
	struct memdisk *from = disk_with_entries(40), *to = memdisk_new(2);
	struct rlog_log *l = open_log_as(memdisk_disk(from), &options);

	(void)state;
	append(l, 60, TERM);
	assert_int_equal(rlog_log_truncate(l, 41), 0);
	assert_int_equal(rlog_log_flush(l), 0);
	rlog_log_close(l);
	copy_well(from, to);
	check(memdisk_disk(to), 0, 40);
	memdisk_free(from);
	memdisk_free(to);
}

/* What is in the log comes along, and with it the level that reading it needs. */
static void level_that_the_log_needs_is_kept(void **state)
{
	struct memdisk *from = disk_with_entries(40), *to = memdisk_new(2);
	struct rlog_log_options old = options, new = new_options;
	struct rlog_new_cluster_options opt = anew;
	char errmsg[RLOG_ERRMSG_SIZE];
	struct rlog_log *l;

	(void)state;
	old.format_reads = new.format_reads = opt.format_reads = 2;
	l = open_log_as(memdisk_disk(from), &old);
	assert_int_equal(rlog_log_raise_format(l, 2), 0);
	rlog_log_close(l);
	assert_int_equal(copy(from, to, errmsg), -ENOTSUP);
	assert_non_null(strstr(errmsg, "upgrade this node"));
	assert_int_equal(memdisk_changes(to), 0);
	assert_int_equal(rlog_new_cluster_copy(memdisk_disk(from), memdisk_disk(to), &opt, errmsg), 0);
	memdisk_crash(to);
	assert_int_equal(rlog_log_open(&l, memdisk_disk(to), &new_options, errmsg), -ENOTSUP);
	l = open_log_as(memdisk_disk(to), &new);
	assert_int_equal(rlog_log_format(l), 2);
	rlog_log_close(l);
	memdisk_free(from);
	memdisk_free(to);
}

static void log_that_holds_nothing_is_refused(void **state)
{
	struct memdisk *from = memdisk_new(1), *to = memdisk_new(2);
	char errmsg[RLOG_ERRMSG_SIZE];

	(void)state;
	assert_int_equal(rlog_log_create(memdisk_disk(from), &options, NULL, errmsg), 0);
	assert_int_equal(copy(from, to, errmsg), -ENODATA);
	assert_non_null(strstr(errmsg, "nothing"));
	assert_int_equal(memdisk_changes(to), 0);
	memdisk_free(from);
	memdisk_free(to);
}

static void damaged_log_is_refused_by_file_and_offset(void **state)
{
	struct memdisk *from = disk_with_entries(40), *to = memdisk_new(2);
	char errmsg[RLOG_ERRMSG_SIZE];

	(void)state;
	memdisk_file_flip(from, "segment-0000000000000002.log", 5000, 1);
	assert_int_equal(copy(from, to, errmsg), -EBADMSG);
	assert_non_null(strstr(errmsg, "file=segment-0000000000000002.log offset="));
	assert_int_equal(memdisk_changes(to), 0);
	memdisk_free(from);
	memdisk_free(to);
}

static void power_failing_at_each_change_of_the_new_log_leaves_the_old_one(void **state)
{
	char errmsg[RLOG_ERRMSG_SIZE];
	unsigned changes;

	(void)state;
	for (int compacted = 0; compacted < 2; compacted++) {
		struct memdisk *from = disk_with_entries(40), *to = memdisk_new(2);
		uint64_t index = compacted ? 30 : 0;

		if (compacted)
			compact(memdisk_disk(from), index);
		copy_well(from, to);
		changes = memdisk_changes(to);
		memdisk_free(to);
		assert_true(changes > 10);
		for (unsigned at = 1; at <= changes; at++) {
			to = memdisk_new(at);
			memdisk_power_fail_at(to, at);
			/* The last is the sync: all the rest is done. */
			assert_true(copy(from, to, errmsg) < 0);
			assert_true(errmsg[0] != 0);
			memdisk_free(to);
			check_old(memdisk_disk(from), index, 40);
			to = memdisk_new(2);
			copy_well(from, to);
			memdisk_crash(to);
			check(memdisk_disk(to), index, 40);
			memdisk_free(to);
		}
		memdisk_free(from);
	}
}

static bool all_but_one(void *arg, size_t sector)
{
	(void)arg;
	return sector != 1;
}

/* The old log ends in a torn write, which the copy drops as any start does. */
static void power_failing_at_each_change_of_the_old_log_leaves_it_readable(void **state)
{
	struct memdisk *torn = disk_with_entries(40), *from, *to;
	struct rlog_log *l = open_log_as(memdisk_disk(torn), &options);
	char errmsg[RLOG_ERRMSG_SIZE];
	struct rlog_record r = {.index = 41, .term = TERM, .type = RAFT_COMMAND};
	struct rlog_log_write w;
	unsigned changes;

	(void)state;
	r.buf = content(49);
	assert_int_equal(rlog_log_append(l, &r, 1), 0);
	rlog_buf_unref(r.buf);
	assert_int_equal(rlog_log_write_begin(l, &w), 1);
	memdisk_write_start(torn, &w);
	memdisk_crash_keeping(torn, all_but_one, NULL);
	rlog_log_close(l);
	from = memdisk_clone(torn, 1);
	changes = memdisk_changes(from);
	to = memdisk_new(2);
	copy_well(from, to);
	changes = memdisk_changes(from) - changes;
	assert_true(changes > 0);
	memdisk_free(from);
	memdisk_free(to);
	for (unsigned at = 1; at <= changes; at++) {
		from = memdisk_clone(torn, at);
		to = memdisk_new(2);
		memdisk_power_fail_at(from, at);
		copy(from, to, errmsg);
		memdisk_crash(from);
		memdisk_free(to);
		to = memdisk_new(2);
		copy_well(from, to);
		check(memdisk_disk(to), 0, 40);
		memdisk_free(from);
		memdisk_free(to);
	}
	memdisk_free(torn);
}

static void full_disk_at_each_change_is_told(void **state)
{
	struct memdisk *from = disk_with_entries(40), *to = memdisk_new(2);
	char errmsg[RLOG_ERRMSG_SIZE];
	unsigned changes;

	(void)state;
	copy_well(from, to);
	changes = memdisk_changes(to);
	memdisk_free(to);
	for (unsigned at = 1; at <= changes; at++) {
		to = memdisk_new(2);
		memdisk_fail_at(to, at, -ENOSPC);
		if (copy(from, to, errmsg) == 0)
			check(memdisk_disk(to), 0,
			      40); /* of no matter: a removal, a note at the end */
		else
			assert_true(errmsg[0] != 0);
		memdisk_free(to);
	}
	memdisk_free(from);
}

/* ---- directories ------------------------------------------------------------------------------ */

static char base[] = "/var/tmp/test_raftlog_new_cluster.XXXXXX";
static char dir[64], aside[80], old[80];

static int setup(void **state)
{
	struct rlog_disk *d;

	(void)state;
	strcpy(base + strlen(base) - 6, "XXXXXX");
	assert_non_null(mkdtemp(base));
	snprintf(dir, sizeof(dir), "%s/raft", base);
	snprintf(aside, sizeof(aside), "%s.refound", dir);
	snprintf(old, sizeof(old), "%s.old", dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	assert_int_equal(rlog_disk_open(&d, dir), 0);
	make_log(d, 40);
	compact(d, 30);
	rlog_disk_close(d);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rlog_directory_remove(dir);
	rlog_directory_remove(aside);
	rlog_directory_remove(old);
	return rmdir(base);
}

static int prepare_of(const char *path, uint64_t cluster_id, uint64_t new_cluster_id,
		      char errmsg[RLOG_ERRMSG_SIZE])
{
	const struct rlog_new_cluster_options opt = {.id = NODE,
						     .cluster_id = cluster_id,
						     .new_cluster_id = new_cluster_id,
						     .address = anew.address};

	return rlog_new_cluster_prepare(path, &opt, errmsg);
}

static void prepare(void)
{
	char errmsg[RLOG_ERRMSG_SIZE];

	if (prepare_of(dir, OLD_CLUSTER, NEW_CLUSTER, errmsg) != 0)
		fail_msg("%s", errmsg);
}

static void finish(void)
{
	char errmsg[RLOG_ERRMSG_SIZE];

	if (rlog_new_cluster_finish(dir, NEW_CLUSTER, errmsg) != 0)
		fail_msg("%s", errmsg);
}

static void check_finished(void)
{
	struct rlog_disk *d;

	assert_int_equal(access(aside, F_OK), -1);
	assert_int_equal(access(old, F_OK), -1);
	assert_int_equal(rlog_disk_open(&d, dir), 0);
	check(d, 30, 40);
	rlog_disk_close(d);
}

static void check_unchanged(void)
{
	struct rlog_disk *d;

	assert_int_equal(rlog_disk_open(&d, dir), 0);
	check_old(d, 30, 40);
	rlog_disk_close(d);
}

static void finish_goes_on_from_every_step(void **state)
{
	char name[128];

	(void)state;
	prepare();
	check_unchanged();
	finish();
	check_finished();
	finish(); /* once more does nothing */
	check_finished();
	teardown(NULL);

	setup(NULL);
	prepare();
	assert_int_equal(rename(dir, old), 0);
	finish();
	check_finished();
	teardown(NULL);

	setup(NULL);
	prepare();
	assert_int_equal(rename(dir, old), 0);
	assert_int_equal(rename(aside, dir), 0);
	finish();
	check_finished();
	teardown(NULL);

	setup(NULL);
	prepare();
	assert_int_equal(rename(dir, old), 0);
	assert_int_equal(rename(aside, dir), 0);
	snprintf(name, sizeof(name), "%s/meta", old);
	assert_int_equal(unlink(name), 0);
	finish();
	check_finished();
}

static void attempt_given_up_is_removed_and_never_taken(void **state)
{
	char errmsg[RLOG_ERRMSG_SIZE];

	(void)state;
	assert_int_equal(prepare_of(dir, OLD_CLUSTER, NEW_CLUSTER + 1, errmsg), 0);
	/* of another id */
	assert_int_equal(rlog_new_cluster_finish(dir, NEW_CLUSTER, errmsg), -ENOENT);
	assert_true(errmsg[0] != 0);
	check_unchanged();
	assert_int_equal(access(aside, F_OK), 0);
	prepare();
	finish();
	check_finished();
	teardown(NULL);

	setup(NULL);
	prepare();
	assert_int_equal(rlog_new_cluster_forget(dir), 0);
	assert_int_equal(rlog_new_cluster_forget(dir), 0);
	assert_int_equal(access(aside, F_OK), -1);
	assert_int_equal(rlog_new_cluster_finish(dir, NEW_CLUSTER, errmsg), -ENOENT);
	check_unchanged();
}

static void prepare_that_fails_leaves_nothing(void **state)
{
	char errmsg[RLOG_ERRMSG_SIZE];

	(void)state;
	assert_int_equal(prepare_of(dir, OLD_CLUSTER + 5, NEW_CLUSTER, errmsg), -EXDEV);
	assert_int_equal(access(aside, F_OK), -1);
	assert_int_equal(prepare_of("/var/tmp/no/such/log", OLD_CLUSTER, NEW_CLUSTER, errmsg),
			 -ENOENT);
	check_unchanged();
}

/* ---- what Raft makes of it ------------------------------------------------------------------------ */

struct owner {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	uint64_t restored, next;
	unsigned applied;
	bool ready;
};

static int on_restore(void *ctx, uint64_t index, struct rlog_buf *payload, uint64_t last_index)
{
	struct owner *o = ctx;

	assert_int_equal(payload->len, 8);
	assert_int_equal(last_index, 41);
	o->restored = index;
	o->next = index + 1;
	return 0;
}

static int on_apply(void *ctx, uint64_t index, uint64_t term, struct rlog_buf *buf,
		    struct rlog_request *req)
{
	struct owner *o = ctx;
	struct rlog_buf *wanted = content(index);

	(void)req;
	pthread_mutex_lock(&o->mutex);
	if (index == o->next && term == TERM - 1 && buf->len == wanted->len &&
	    memcmp(buf->data, wanted->data, buf->len) == 0)
		o->applied++;
	o->next = index + 1;
	pthread_cond_broadcast(&o->changed);
	pthread_mutex_unlock(&o->mutex);
	rlog_buf_unref(wanted);
	return 0;
}

static void on_view(void *ctx, const struct rlog_view *view)
{
	struct owner *o = ctx;

	pthread_mutex_lock(&o->mutex);
	o->ready = view->ready;
	pthread_cond_broadcast(&o->changed);
	pthread_mutex_unlock(&o->mutex);
}

static void on_caught_up(void *ctx)
{
	(void)ctx;
}

static void on_fatal(void *ctx, const char *msg)
{
	(void)ctx;
	fprintf(stderr, "fatal: %s\n", msg);
	abort();
}

static void on_log(void *ctx, char level, const char *line)
{
	(void)ctx;
	printf("# %c %s\n", level, line);
}

static void survivor_leads_and_commits_all_that_it_had(void **state)
{
	struct sockaddr_in at = {.sin_family = AF_INET};
	struct owner o = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
	struct rlog_config config = {
		.dir = dir,
		.id = NODE,
		.cluster_id = NEW_CLUSTER,
		.address = anew.address,
		.cb = {.apply = on_apply,
		       .view = on_view,
		       .caught_up = on_caught_up,
		       .fatal = on_fatal,
		       .log = on_log,
		       .restore = on_restore},
		.ctx = &o,
	};
	struct rlog_status status;
	char errmsg[RLOG_ERRMSG_SIZE];
	struct rlog *log;

	(void)state;
	prepare();
	finish();
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	config.listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(config.listen_fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(config.listen_fd, 5), 0);
	if (rlog_open(&log, &config, errmsg) != 0)
		fail_msg("%s", errmsg);
	pthread_mutex_lock(&o.mutex);
	while (!o.ready)
		pthread_cond_wait(&o.changed, &o.mutex);
	assert_int_equal(o.restored, 30);
	assert_int_equal(o.applied, 10);
	pthread_mutex_unlock(&o.mutex);
	rlog_status(log, &status);
	assert_int_equal(status.view.role, RLOG_LEADER);
	assert_true(status.view.term > TERM + 1);
	assert_int_equal(status.member_count, 1);
	assert_int_equal(status.members[0].id, NODE);
	assert_int_equal(status.members[0].role, RLOG_VOTER);
	rlog_stop(log);
	rlog_free(log);
}

/* ---- a snapshot, dumped ------------------------------------------------------------------------- */

static int tell_node(void *arg, const struct rlog_dump_node *node)
{
	assert_int_equal(node->snapshot_member_count, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(node->snapshot_members[i].id, i + 1);
		assert_int_equal(node->snapshot_members[i].role, RLOG_VOTER);
	}
	assert_string_equal(node->snapshot_members[2].address, "127.0.0.1:7003");
	*(uint64_t *)arg = node->snapshot_index;
	return 0;
}

static int tell_entry(void *arg, const struct rlog_dump_entry *entry)
{
	assert_int_equal(entry->dropped, *(uint64_t *)arg == 50);
	return 0;
}

/* As opening would have it. */
static void log_that_does_not_belong_to_its_snapshot_is_dumped_as_dropped(void **state)
{
	static const struct rlog_dump_ops ops = {.node = tell_node, .entry = tell_entry};
	struct memdisk *m = disk_with_entries(40);
	struct rlog_buf *conf = voters(1, NODE), *image;
	char errmsg[RLOG_ERRMSG_SIZE];
	struct rlog_dump_end end;
	uint64_t index;

	(void)state;
	compact(memdisk_disk(m), 30);
	assert_int_equal(rlog_dump_disk(memdisk_disk(m), &ops, &index, &end, errmsg), 0);
	assert_int_equal(index, 30);
	image = image_of(50, TERM, conf);
	assert_int_equal(rlog_snapshot_store(memdisk_disk(m), image), 0);
	rlog_buf_unref(image);
	assert_int_equal(rlog_dump_disk(memdisk_disk(m), &ops, &index, &end, errmsg), 0);
	assert_int_equal(index, 50);
	/* one from long ago: what follows it is missing */
	image = image_of(2, 2, conf);
	assert_int_equal(rlog_snapshot_store(memdisk_disk(m), image), 0);
	rlog_buf_unref(image);
	index = 0;
	assert_int_equal(rlog_dump_disk(memdisk_disk(m), &(struct rlog_dump_ops){0}, NULL, &end,
					errmsg),
			 -EBADMSG);
	assert_string_equal(end.damage_file, "snapshot");
	rlog_buf_unref(conf);
	memdisk_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_log_is_kept_and_ends_alone),
		cmocka_unit_test(compacted_log_is_kept_from_its_snapshot_on),
		cmocka_unit_test(truncated_entries_do_not_come_back),
		cmocka_unit_test(level_that_the_log_needs_is_kept),
		cmocka_unit_test(log_that_holds_nothing_is_refused),
		cmocka_unit_test(damaged_log_is_refused_by_file_and_offset),
		cmocka_unit_test(power_failing_at_each_change_of_the_new_log_leaves_the_old_one),
		cmocka_unit_test(power_failing_at_each_change_of_the_old_log_leaves_it_readable),
		cmocka_unit_test(full_disk_at_each_change_is_told),
		cmocka_unit_test_setup_teardown(finish_goes_on_from_every_step, setup, teardown),
		cmocka_unit_test_setup_teardown(attempt_given_up_is_removed_and_never_taken, setup,
						teardown),
		cmocka_unit_test_setup_teardown(prepare_that_fails_leaves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(survivor_leads_and_commits_all_that_it_had, setup,
						teardown),
		cmocka_unit_test(log_that_does_not_belong_to_its_snapshot_is_dumped_as_dropped),
	};

	return cmocka_run_group_tests_name("raftlog_new_cluster", tests, NULL, NULL);
}
