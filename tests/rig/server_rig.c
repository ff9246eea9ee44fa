#include "server_rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- what the server calls ---------------------------------------------------------------- */

static int64_t io_room(void *ctx, uint64_t id, const char *address)
{
	(void)ctx, (void)id, (void)address;
	return 1 << 20;
}

static void io_send(void *ctx, uint64_t id, const char *address, const struct rlog_message *m)
{
	struct rig *r = ctx;

	(void)address;
	assert_true(r->sent_count < SENT_MAX);
	r->sent[r->sent_count].to = id;
	r->sent[r->sent_count].m = *m;
	if (m->type == RLOG_MSG_APPEND)
		r->sent[r->sent_count].m.append.records = NULL;
	r->sent_count++;
}

static void io_write(void *ctx, const struct rlog_log_write *w)
{
	struct rig *r = ctx;

	memdisk_write_start(r->disk, w);
	r->writing = true;
}

static void io_members(void *ctx)
{
	(void)ctx;
}

static int on_apply(void *ctx, uint64_t index, uint64_t term, struct rlog_buf *buf,
		    struct rlog_request *req)
{
	struct rig *r = ctx;

	(void)term, (void)buf;
	if (r->full)
		return -EAGAIN;
	assert_true(r->applied_count < sizeof(r->applied) / sizeof(*r->applied));
	r->applied[r->applied_count++] = index;
	r->committed += req != NULL;
	return 0;
}

static void on_view(void *ctx, const struct rlog_view *view)
{
	(void)ctx, (void)view;
}

static void on_caught_up(void *ctx)
{
	((struct rig *)ctx)->caught_up++;
}

static void on_needs_state(void *ctx, uint64_t leader_id, const char *leader_address)
{
	assert_int_equal(leader_id, OTHER);
	assert_string_equal(leader_address, "node2:1");
	((struct rig *)ctx)->needs_state++;
}

static struct rig *the_rig; /* a request does not know */

void on_done(struct rlog_request *req, enum rlog_outcome outcome)
{
	(void)req;
	the_rig->refused += outcome == RLOG_REFUSED;
	the_rig->unknown += outcome == RLOG_UNKNOWN;
}

/* ---- helpers ------------------------------------------------------------------------------ */

static const struct rlog_log_options log_options = {
	.cluster_id = CLUSTER,
	.node_id = SELF,
	.segment_bytes = 16384,
};

struct rlog_buf *membership_with(unsigned standbys)
{
	struct raft_configuration conf;
	struct raft_buffer encoded;
	struct rlog_buf *buf;

	raft_configuration_init(&conf);
	raft_configuration_add(&conf, SELF, "node1:1", RAFT_VOTER);
	raft_configuration_add(&conf, OTHER, "node2:1", RAFT_VOTER);
	raft_configuration_add(&conf, THIRD, "node3:1", RAFT_VOTER);
	for (unsigned i = 0; i < standbys; i++)
		raft_configuration_add(&conf, THIRD + 1 + i, i == 0 ? "node4:1" : "node5:1",
				       RAFT_STANDBY);
	assert_int_equal(raft_configuration_encode(&conf, &encoded), 0);
	raft_configuration_close(&conf);
	buf = rlog_buf_new(encoded.len);
	memcpy(buf->data, encoded.base, encoded.len);
	raft_free(encoded.base);
	return buf;
}

struct rlog_buf *membership(void)
{
	return membership_with(0);
}

void start(struct rig *r)
{
	struct rlog_server_config config = {
		.id = SELF,
		.address = "node1:1",
		.election_timeout_ms = 500,
		.seed = 1,
		.io = {r, io_room, io_send, io_write, io_members, NULL},
		.cb = {on_apply, on_view, on_caught_up, NULL, NULL, NULL, on_needs_state},
		.ctx = r,
	};
	char errmsg[RLOG_ERRMSG_SIZE] = "";

	if (rlog_log_open(&r->log, memdisk_disk(r->disk), &log_options, errmsg) != 0 ||
	    rlog_server_new(&r->server, &config, r->log, r->now, errmsg) != 0)
		fail_msg("%s", errmsg);
}

struct rig *rig_new(void)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct rlog_record first = {.index = 1,
				    .term = 1,
				    .type = RAFT_CHANGE,
				    .buf = membership()};
	char errmsg[RLOG_ERRMSG_SIZE];

	assert_non_null(r);
	the_rig = r;
	r->now = 1000;
	r->disk = memdisk_new(1);
	assert_int_equal(rlog_log_create(memdisk_disk(r->disk), &log_options, &first, errmsg), 0);
	rlog_buf_unref(first.buf);
	start(r);
	return r;
}

void stop(struct rig *r)
{
	memdisk_crash(r->disk);
	rlog_server_free(r->server);
	rlog_log_close(r->log);
	r->writing = false;
}

void rig_free(struct rig *r)
{
	stop(r);
	memdisk_free(r->disk);
	free(r);
}

void turns(struct rig *r)
{
	for (unsigned i = 0; i < 20; i++) {
		rlog_server_turn(r->server);
		rlog_server_deliver(r->server);
		if (r->writing) {
			r->writing = false;
			rlog_server_written(r->server, memdisk_write_finish(r->disk));
		}
	}
	if (rlog_server_failure(r->server) != NULL)
		fail_msg("the server stops: %s", rlog_server_failure(r->server));
}

void send_entries(struct rig *r, uint64_t leader_term, uint64_t prev, uint64_t prev_term,
		  uint64_t term, unsigned count, uint64_t commit)
{
	struct rlog_message m = {.type = RLOG_MSG_APPEND};

	m.append.term = leader_term;
	m.append.prev_index = prev;
	m.append.prev_term = prev_term;
	m.append.leader_commit = commit;
	m.append.count = count;
	m.append.records = count > 0 ? calloc(count, sizeof(*m.append.records)) : NULL;
	for (unsigned i = 0; i < count; i++) {
		struct rlog_record *rec = &m.append.records[i];

		*rec = (struct rlog_record){prev + 1 + i, term, RAFT_COMMAND, NULL};
		if (rec->index == 1 || rec->index == r->change_at ||
		    rec->index == r->second_change_at) {
			rec->type = RAFT_CHANGE;
			rec->buf = membership_with(rec->index == 1		? 0
						   : rec->index == r->change_at ? 1
										: 2);
		} else {
			rec->buf = rlog_buf_new(1000);
			memset(rec->buf->data, (int)rec->index, 1000);
		}
	}
	r->sent_count = 0;
	rlog_server_receive(r->server, OTHER, "node2:1", &m);
	turns(r);
}

struct raft_append_entries_result answer(struct rig *r)
{
	for (unsigned i = r->sent_count; i-- > 0;)
		if (r->sent[i].m.type == RLOG_MSG_APPEND_RESULT && r->sent[i].to == OTHER)
			return r->sent[i].m.append_result;
	fail_msg("no answer");
	return (struct raft_append_entries_result){0};
}

void lead(struct rig *r)
{
	for (unsigned i = 0; i < 20 && !rlog_server_leads(r->server); i++) {
		struct rlog_message m = {.type = RLOG_MSG_VOTE_RESULT};

		r->sent_count = 0;
		r->now += 1001;
		rlog_server_now(r->server, r->now);
		rlog_server_tick(r->server);
		turns(r);
		for (unsigned pre = 0; pre < 2; pre++) {
			uint64_t term = r->server->raft.current_term;
			bool pre_vote = r->server->raft.state == RAFT_CANDIDATE &&
					r->server->raft.candidate_state.in_pre_vote;

			if (rlog_server_leads(r->server))
				break;
			m.vote_result = (struct raft_request_vote_result){
				.version = 2,
				.term = pre_vote ? term + 1 : term,
				.vote_granted = true,
				.pre_vote = pre_vote,
			};
			rlog_server_receive(r->server, OTHER, "node2:1", &m);
			turns(r);
		}
	}
	assert_true(rlog_server_leads(r->server));
}
