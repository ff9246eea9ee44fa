/* Leadership handed to a node that answers, and not to one that does not; how long nobody writes
 * meanwhile. Time is the test's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "../rig/server_rig.h"

enum { ELECTION_MS = 500, HEARTBEAT_MS = 50, TIMEOUT_MS = 5000, REQUESTS_MAX = 2000 };

struct cluster {
	struct rig *rig;
	bool lives[THIRD + 1];	   /* it answers */
	unsigned asked[THIRD + 1]; /* how often it was told to take over */
	struct rlog_request requests[REQUESTS_MAX];
	unsigned submitted;
};

static bool transfers(const struct cluster *c)
{
	return c->rig->server->transferring;
}

/* What the followers were sent, they answer, if they live. */
static void deliver(struct cluster *c)
{
	static const char *const addresses[] = {"", "node1:1", "node2:1", "node3:1"};
	struct rig *r = c->rig;

	for (unsigned i = 0; i < r->sent_count; i++) {
		const struct rlog_message *sent = &r->sent[i].m;
		struct rlog_message m = {.type = RLOG_MSG_APPEND_RESULT};
		uint64_t to = r->sent[i].to;

		if (!c->lives[to])
			continue;
		c->asked[to] += sent->type == RLOG_MSG_TIMEOUT_NOW;
		if (sent->type != RLOG_MSG_APPEND)
			continue;
		m.append_result.term = r->server->raft.current_term;
		m.append_result.version = 2;
		m.append_result.features = 1;
		m.append_result.last_log_index = sent->append.prev_index + sent->append.count;
		rlog_server_receive(r->server, to, addresses[to], &m);
	}
	r->sent_count = 0;
}

static void pass(struct cluster *c, unsigned ms)
{
	for (; ms > 0; ms--) {
		c->rig->now++;
		rlog_server_now(c->rig->server, c->rig->now);
		if (rlog_server_deadline(c->rig->server) <= c->rig->now)
			rlog_server_tick(c->rig->server);
		deliver(c);
		turns(c->rig);
	}
}

/* Submit; true when it commits within `ms`. */
static bool write_within(struct cluster *c, unsigned ms)
{
	struct rlog_request *req = &c->requests[c->submitted++];
	const unsigned committed = c->rig->committed;

	assert_true(c->submitted < REQUESTS_MAX);
	memset(req, 0, sizeof(*req));
	req->done = on_done;
	req->buf = rlog_buf_new(100);
	rlog_server_submit(c->rig->server, req);
	turns(c->rig);
	for (; c->rig->committed == committed && ms > 0; ms--)
		pass(c, 1);
	return c->rig->committed > committed;
}

/* Node 1 leads, and has for a while; the others answer. */
static int set_up(void **state)
{
	struct cluster *c = calloc(1, sizeof(*c));

	c->rig = rig_new();
	c->lives[OTHER] = c->lives[THIRD] = true;
	send_entries(c->rig, 1, 1, 1, 1, 3, 4);
	lead(c->rig);
	pass(c, 2 * ELECTION_MS);
	assert_true(write_within(c, 10));
	*state = c;
	return 0;
}

static int tear_down(void **state)
{
	struct cluster *c = *state;

	rig_free(c->rig);
	free(c);
	return 0;
}

static void target_that_answers_is_told_to_take_over(void **state)
{
	struct cluster *c = *state;

	assert_int_equal(rlog_server_transfer(c->rig->server, THIRD, TIMEOUT_MS), 0);
	pass(c, 100);
	assert_int_equal(c->asked[THIRD], 1);
	assert_int_equal(c->asked[OTHER], 0);
}

static void silent_target_is_refused_at_once_and_nothing_waits(void **state)
{
	struct cluster *c = *state;

	c->lives[THIRD] = false;
	pass(c, ELECTION_MS + 100);
	assert_int_equal(rlog_server_transfer(c->rig->server, THIRD, TIMEOUT_MS), -EHOSTUNREACH);
	assert_false(transfers(c));
	assert_true(write_within(c, 10));
	/* Any other: that which answers. */
	assert_int_equal(rlog_server_transfer(c->rig->server, 0, TIMEOUT_MS), 0);
	pass(c, 100);
	assert_int_equal(c->asked[OTHER], 1);
}

static void target_that_falls_silent_lets_writes_go_on_as_soon_as_that_is_known(void **state)
{
	struct cluster *c = *state;

	c->lives[THIRD] = false;
	pass(c, 1); /* nobody can know yet */
	assert_int_equal(rlog_server_transfer(c->rig->server, THIRD, TIMEOUT_MS), 0);
	assert_true(write_within(c, ELECTION_MS + HEARTBEAT_MS + 10));
	assert_false(transfers(c));
	assert_int_equal(rlog_server_transfer_result(c->rig->server), -EHOSTUNREACH);
	assert_true(write_within(c, 10));
}

/* It answers, but never leads. */
static void target_that_does_not_take_over_holds_writes_half_of_the_time(void **state)
{
	struct cluster *c = *state;
	const uint64_t begun = c->rig->now;
	unsigned longest = 0, held = 0;

	assert_int_equal(rlog_server_transfer(c->rig->server, THIRD, TIMEOUT_MS), 0);
	while (transfers(c)) {
		const uint64_t at = c->rig->now;

		assert_true(write_within(c, TIMEOUT_MS));
		held += (unsigned)(c->rig->now - at);
		if (c->rig->now - at > longest)
			longest = (unsigned)(c->rig->now - at);
		pass(c, 10);
	}
	assert_int_equal(rlog_server_transfer_result(c->rig->server), -ETIMEDOUT);
	assert_in_range(c->rig->now - begun, TIMEOUT_MS, TIMEOUT_MS + 20);
	/* What comes after a pause, libraft may send with the next heartbeat only. */
	assert_in_range(longest, 1, ELECTION_MS + HEARTBEAT_MS + 10);
	assert_in_range(held, ELECTION_MS, TIMEOUT_MS / 2 + ELECTION_MS);
	assert_true(c->asked[THIRD] > 1);
	assert_true(write_within(c, 10));
}

/* It leads since just now, and has not heard node 3. */
static void transfer_as_new_leader(struct cluster *c)
{
	rig_free(c->rig);
	c->rig = rig_new();
	send_entries(c->rig, 1, 1, 1, 1, 3, 4);
	c->lives[THIRD] = false;
	lead(c->rig);
	assert_int_equal(rlog_server_transfer(c->rig->server, THIRD, TIMEOUT_MS), 0);
}

/* Whom a new leader has not heard yet may well live. */
static void new_leader_waits_until_it_can_know_who_answers(void **state)
{
	struct cluster *c = *state;

	transfer_as_new_leader(c);
	assert_true(write_within(c, 10)); /* this one does not wait */
	c->lives[THIRD] = true;
	pass(c, 200);
	assert_int_equal(c->asked[THIRD], 1);
}

static void new_leader_gives_up_when_it_can_know(void **state)
{
	struct cluster *c = *state;

	transfer_as_new_leader(c);
	pass(c, ELECTION_MS + 10);
	assert_false(transfers(c));
	assert_int_equal(rlog_server_transfer_result(c->rig->server), -EHOSTUNREACH);
	assert_int_equal(c->asked[THIRD], 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(target_that_answers_is_told_to_take_over),
		TEST(silent_target_is_refused_at_once_and_nothing_waits),
		TEST(target_that_falls_silent_lets_writes_go_on_as_soon_as_that_is_known),
		TEST(target_that_does_not_take_over_holds_writes_half_of_the_time),
		TEST(new_leader_waits_until_it_can_know_who_answers),
		TEST(new_leader_gives_up_when_it_can_know),
	};

	return cmocka_run_group_tests_name("raftlog_transfer", tests, NULL, NULL);
}
