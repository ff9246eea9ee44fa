#include "log_rig.h"

#include <stdio.h>
#include <string.h>

#include <raft.h>

#include "log/compact.h"

char last_line[512], last_warning[512];

static void keep_line(void *ctx, char level, const char *line)
{
	(void)ctx;
	snprintf(last_line, sizeof(last_line), "%c %s", level, line);
	if (level != 'I')
		snprintf(last_warning, sizeof(last_warning), "%c %s", level, line);
}

const struct rlog_log_options options = {
	.cluster_id = CLUSTER,
	.node_id = NODE,
	.segment_bytes = SMALL_SEGMENT,
	.cache_bytes = 10000,
	.log = keep_line,
};

struct memdisk *disk_with_log(uint64_t seed)
{
	struct memdisk *m = memdisk_new(seed);
	char errmsg[RLOG_ERRMSG_SIZE] = "";

	assert_int_equal(rlog_log_create(memdisk_disk(m), &options, NULL, errmsg), 0);
	return m;
}

struct rlog_log *open_log(struct memdisk *m)
{
	struct rlog_log *l = NULL;
	char errmsg[RLOG_ERRMSG_SIZE] = "";

	if (rlog_log_open(&l, memdisk_disk(m), &options, errmsg) != 0)
		fail_msg("%s", errmsg);
	return l;
}

struct rlog_log *crash(struct memdisk *m, struct rlog_log *l)
{
	memdisk_crash(m);
	rlog_log_close(l);
	return open_log(m);
}

int try_write_all(struct memdisk *m, struct rlog_log *l)
{
	struct rlog_log_write w;
	int64_t result;
	int rv;

	while ((rv = rlog_log_write_begin(l, &w)) == 1) {
		memdisk_write_start(m, &w);
		result = memdisk_write_finish(m);
		rlog_log_write_end(l, result);
		if (result < 0)
			return (int)result;
	}
	return rv;
}

void write_all(struct memdisk *m, struct rlog_log *l)
{
	assert_int_equal(try_write_all(m, l), 0);
	assert_int_equal(rlog_log_durable(l), rlog_log_last(l));
}

struct rlog_buf *voters(unsigned first, unsigned last)
{
	struct raft_configuration conf;
	struct raft_buffer encoded;
	struct rlog_buf *buf;

	raft_configuration_init(&conf);
	for (unsigned i = first; i <= last; i++) {
		char address[32];

		snprintf(address, sizeof(address), "127.0.0.1:700%u", i);
		assert_int_equal(raft_configuration_add(&conf, i, address, RAFT_VOTER), 0);
	}
	assert_int_equal(raft_configuration_encode(&conf, &encoded), 0);
	raft_configuration_close(&conf);
	buf = rlog_buf_new(encoded.len);
	assert_non_null(buf);
	memcpy(buf->data, encoded.base, encoded.len);
	raft_free(encoded.base);
	return buf;
}

struct rlog_buf *snapshot_image(struct rlog_snapshot s, const struct rlog_buf *conf,
				const void *payload, size_t payload_len)
{
	struct rlog_buf *image;

	s.conf = conf->data;
	s.conf_len = conf->len;
	s.payload = payload;
	s.payload_len = payload_len;
	image = rlog_snapshot_encode(CLUSTER, &s);
	assert_non_null(image);
	return image;
}

struct rlog_buf *own_image(uint64_t index, uint64_t term)
{
	struct rlog_snapshot s = {.index = index,
				  .term = term,
				  .taken_term = term,
				  .conf_index = 1};
	struct rlog_buf *conf = voters(NODE, NODE), *image = snapshot_image(s, conf, "state", 5);

	rlog_buf_unref(conf);
	return image;
}

int take_snapshot(struct memdisk *m, struct rlog_log *l, uint64_t index, uint64_t term)
{
	struct rlog_buf *image = own_image(index, term);
	int rv = rlog_snapshot_store(memdisk_disk(m), image);

	if (rv == 0)
		assert_int_equal(rlog_log_set_snapshot(l, image), 0);
	rlog_buf_unref(image);
	return rv;
}
