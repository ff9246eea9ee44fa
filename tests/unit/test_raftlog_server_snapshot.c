/* One server, one of three voters, that takes snapshots and installs states; the test is its network, its
 * clock and its owner. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../rig/server_rig.h"
#include "log/compact.h"
#include "log/segments.h"
#include "log/snapshot.h"

static struct rlog_buf *image_of(uint64_t index, uint64_t term, uint64_t taken_term)
{
	struct rlog_snapshot s = {.index = index,
				  .term = term,
				  .taken_term = taken_term,
				  .conf_index = 1};
	struct rlog_buf *conf = membership(), *image;

	s.conf = conf->data;
	s.conf_len = conf->len;
	s.payload = (const uint8_t *)"state";
	s.payload_len = 5;
	image = rlog_snapshot_encode(CLUSTER, &s);
	rlog_buf_unref(conf);
	assert_non_null(image);
	return image;
}

static int install_taken(struct rig *r, uint64_t index, uint64_t term, uint64_t taken_term)
{
	struct rlog_buf *image = image_of(index, term, taken_term), *payload = rlog_buf_new(4);
	int rv;

	memcpy(payload->data, "here", 4);
	rv = rlog_server_install(r->server, memdisk_disk(r->disk), image, payload);
	rlog_buf_unref(image);
	rlog_buf_unref(payload);
	return rv;
}

static int install(struct rig *r, uint64_t index, uint64_t term)
{
	return install_taken(r, index, term, term);
}

static int take_keeping(struct rig *r, uint64_t index, uint64_t keep_bytes)
{
	struct rlog_buf *payload = rlog_buf_new(2), *image = NULL;
	int rv;

	memcpy(payload->data, "me", 2);
	rv = rlog_server_image(r->server, index, payload, &image);
	rlog_buf_unref(payload);
	if (rv != 0)
		return rv;
	assert_int_equal(rlog_snapshot_store(memdisk_disk(r->disk), image), 0);
	rv = rlog_server_snapshot(r->server, image, keep_bytes);
	rlog_buf_unref(image);
	return rv;
}

static int take(struct rig *r, uint64_t index)
{
	return take_keeping(r, index, 0);
}

static void assert_applied(struct rig *r, uint64_t first, uint64_t last)
{
	assert_int_equal(r->applied_count, last + 1 - first);
	for (unsigned i = 0; i < r->applied_count; i++)
		assert_int_equal(r->applied[i], first + i);
	r->applied_count = 0;
}

/* ---- tests -------------------------------------------------------------------------------- */

static void follower_left_behind_installs_and_follows(void **state)
{
	struct rig *r = rig_new();
	struct rlog_message notice = {.type = RLOG_MSG_NEEDS_STATE};

	(void)state;
	send_entries(r, 1, 1, 1, 1, 9, 10);
	assert_applied(r, 2, 10);
	assert_int_equal(r->caught_up, 1);
	/* The heartbeat that the leader anchors at its snapshot, and the notice. */
	send_entries(r, 1, 100, 1, 1, 0, 120);
	assert_int_equal(answer(r).rejected, 100);
	notice.needs_state.term = 1;
	notice.needs_state.index = 100;
	notice.needs_state.index_term = 1;
	rlog_server_receive(r->server, OTHER, "node2:1", &notice);
	assert_int_equal(r->needs_state, 1);

	assert_int_equal(install(r, 100, 1), 0);
	rlog_server_receive(r->server, OTHER, "node2:1", &notice);
	assert_int_equal(r->needs_state, 1);
	send_entries(r, 1, 100, 1, 1, 0, 120);
	assert_int_equal(answer(r).rejected, 0);
	assert_int_equal(answer(r).last_log_index, 100);
	send_entries(r, 1, 100, 1, 1, 20, 120);
	assert_applied(r, 101, 120);
	assert_int_equal(r->caught_up, 2);

	stop(r);
	start(r);
	assert_memory_equal(rlog_log_snapshot(r->log)->payload, "here", 4);
	send_entries(r, 1, 120, 1, 1, 1, 121);
	assert_applied(r, 101, 121);
	rig_free(r);
}

static void log_that_has_the_entry_stays_and_is_delivered_again(void **state)
{
	struct rig *r = rig_new();

	(void)state;
	send_entries(r, 1, 1, 1, 1, 99, 90);
	assert_applied(r, 2, 90);
	assert_int_equal(install(r, 40, 1), 0);
	assert_int_equal(rlog_log_last(r->log), 100);
	turns(r);
	assert_applied(r, 41, 90);
	assert_int_equal(install(r, 95, 1), 0); /* forward */
	send_entries(r, 1, 100, 1, 1, 1, 101);
	assert_applied(r, 96, 101);
	rig_free(r);
}

static void log_that_begins_behind_the_image_wants_a_newer_one(void **state)
{
	struct rig *r = rig_new();

	(void)state;
	send_entries(r, 1, 1, 1, 1, 99, 100);
	assert_int_equal(take(r, 60), 0);
	assert_int_equal(install(r, rlog_log_first(r->log) - 2, 1), -EAGAIN);
	assert_int_equal(rlog_log_snapshot(r->log)->index, 60);
	rig_free(r);
}

/* Its term at that index is not known here any more, but it was committed, as the own snapshot tells. */
static void image_that_ends_where_the_log_begins_keeps_the_log(void **state)
{
	struct rig *r = rig_new();
	uint64_t first;

	(void)state;
	send_entries(r, 1, 1, 1, 1, 99, 100);
	assert_int_equal(take(r, 60), 0);
	first = rlog_log_first(r->log);
	assert_in_range(first, 2, 60);
	r->applied_count = 0;
	assert_int_equal(install(r, first - 1, 1), 0);
	assert_int_equal(rlog_log_last(r->log), 100);
	turns(r);
	assert_applied(r, first, 100);
	stop(r);
	start(r);
	assert_int_equal(rlog_log_last(r->log), 100);
	send_entries(r, 1, 100, 1, 1, 1, 101);
	assert_applied(r, first, 101);
	rig_free(r);
}

/* What two nodes hold for committed cannot differ: one of the two is not what it says. */
static void image_that_contradicts_what_is_committed_here_is_refused(void **state)
{
	struct rig *r = rig_new();

	(void)state;
	send_entries(r, 1, 1, 1, 1, 99, 90);
	assert_int_equal(take(r, 60), 0);
	assert_int_equal(install(r, 59, 2), -EBADMSG);
	assert_int_equal(install(r, 90, 2), -EBADMSG);
	assert_int_equal(rlog_log_last(r->log), 100);
	assert_int_equal(rlog_log_snapshot(r->log)->index, 60);
	rig_free(r);
}

/* libraft is told of entries that go with a newer snapshot only: else it goes on offering them. */
static void snapshot_that_is_not_newer_lets_nothing_go(void **state)
{
	struct rig *r = rig_new();

	(void)state;
	send_entries(r, 1, 1, 1, 1, 99, 100);
	assert_int_equal(take_keeping(r, 60, 1 << 30), 0);
	assert_int_equal(rlog_log_first(r->log), 1);
	assert_int_equal(take(r, 60), 0);
	assert_int_equal(rlog_log_first(r->log), r->server->raft.trail.offset + 1);
	assert_int_equal(take(r, 61), 0);
	assert_int_equal(rlog_log_first(r->log), r->server->raft.trail.offset + 1);
	assert_true(rlog_log_first(r->log) > 1);
	/* Nor does one that stands behind an older image that was installed. */
	assert_int_equal(take_keeping(r, 90, 1 << 30), 0);
	assert_int_equal(install(r, 65, 1), 0);
	turns(r);
	assert_int_equal(take(r, 85), 0);
	assert_int_equal(rlog_log_first(r->log), r->server->raft.trail.offset + 1);
	assert_int_equal(take(r, 95), 0);
	assert_int_equal(rlog_log_first(r->log), r->server->raft.trail.offset + 1);
	assert_true(rlog_log_first(r->log) > 70);
	rig_free(r);
}

/* One round of node 3, which has all up to `last`, of which `committed` is: what it is sent, it answers. True
 * when it was sent the entries behind `last`. */
static bool third_answers(struct rig *r, uint64_t last, uint64_t committed)
{
	const unsigned count = r->sent_count;
	bool sent = false;

	for (unsigned i = 0; i < count; i++) {
		struct rlog_message m = {.type = RLOG_MSG_APPEND_RESULT};

		if (r->sent[i].to != THIRD)
			continue;
		m.append_result.term = r->server->raft.current_term;
		m.append_result.version = 2;
		m.append_result.features = 1;
		m.append_result.last_log_index = committed;
		if (r->sent[i].m.type == RLOG_MSG_APPEND) {
			m.append_result.rejected = r->sent[i].m.append.prev_index;
			m.append_result.last_log_index = last;
			sent = sent ||
			       (m.append_result.rejected == last && r->sent[i].m.append.count > 0);
		} else if (r->sent[i].m.type != RLOG_MSG_NEEDS_STATE) {
			continue;
		}
		rlog_server_receive(r->server, THIRD, "node3:1", &m);
	}
	return sent;
}

/* The leader has a newer snapshot when the follower has installed one, but its log still has what came in
 * between. Without the answer that says what is committed there, the follower would have to fetch once more,
 * and so on for as long as snapshots are taken faster than fetched. */
static void leader_with_a_newer_snapshot_sends_what_is_in_its_log(void **state)
{
	struct rig *r = rig_new();
	struct rlog_message m = {.type = RLOG_MSG_APPEND_RESULT};
	uint64_t last;
	bool sent = false;

	(void)state;
	send_entries(r, 1, 1, 1, 1, 99, 100);
	lead(r);
	last = rlog_log_durable(r->log);
	m.append_result.term = r->server->raft.current_term;
	m.append_result.version = 2;
	m.append_result.last_log_index = last;
	rlog_server_receive(r->server, OTHER, "node2:1", &m);
	turns(r);
	assert_int_equal(r->server->applied, last);
	assert_int_equal(take(r, 60), 0);
	for (unsigned i = 0; i < 60 && !sent; i++) {
		r->sent_count = 0;
		r->now += 50;
		rlog_server_now(r->server, r->now);
		rlog_server_tick(r->server);
		turns(r);
		rlog_server_receive(r->server, OTHER, "node2:1", &m);
		/* First it has little; then it has installed the snapshot at 60. */
		sent = third_answers(r, i < 10 ? 5 : 60, i < 10 ? 5 : 60);
		assert_false(sent && i < 10);
		if (i == 8)
			assert_int_equal(take_keeping(r, 90, 1 << 30), 0);
	}
	assert_true(sent);
	rig_free(r);
}

/* libraft takes a follower that does not answer for one that is away, and then only the notice is sent, no
 * heartbeat. */
static void notice_is_answered_and_counts_as_a_heartbeat(void **state)
{
	struct rig *r = rig_new();
	struct rlog_message notice = {.type = RLOG_MSG_NEEDS_STATE};

	(void)state;
	notice.needs_state.term = 1;
	notice.needs_state.index = 100;
	notice.needs_state.index_term = 1;
	send_entries(r, 1, 1, 1, 1, 9, 10);
	for (unsigned i = 1; i <= 50; i++) {
		r->now += 100;
		rlog_server_now(r->server, r->now);
		r->sent_count = 0;
		rlog_server_receive(r->server, OTHER, "node2:1", &notice);
		assert_int_equal(answer(r).rejected, 0);
		assert_int_equal(answer(r).last_log_index, 10); /* what is committed here */
		assert_int_equal(r->needs_state, i);
		if (rlog_server_deadline(r->server) <= r->now)
			rlog_server_tick(r->server);
		assert_int_equal(r->server->raft.state, RAFT_FOLLOWER);
	}
	/* One of what is committed here is late. */
	notice.needs_state.index = 9;
	notice.needs_state.index_term = 1;
	rlog_server_receive(r->server, OTHER, "node2:1", &notice);
	assert_int_equal(take(r, 10), 0);
	assert_int_equal(install(r, 100, 1), 0);
	send_entries(r, 1, 100, 1, 1, 0, 100);
	notice.needs_state.index = 60;
	rlog_server_receive(r->server, OTHER, "node2:1", &notice);
	assert_int_equal(r->needs_state, 50);
	/* From a leader of an earlier term: nothing at all. */
	r->sent_count = 0;
	notice.needs_state.index = 200;
	notice.needs_state.term = 0;
	rlog_server_receive(r->server, OTHER, "node2:1", &notice);
	assert_int_equal(r->needs_state, 50);
	assert_int_equal(r->sent_count, 0);
	rig_free(r);
}

/* What an image says was committed is known to be so in the term in which the image was taken. A leader of
 * an earlier one may hold other entries there, and would be told that they are matched. */
static void image_taken_in_a_later_term_moves_the_term(void **state)
{
	(void)state;
	for (unsigned has_it = 0; has_it < 2; has_it++) {
		struct rig *r = rig_new();
		uint64_t term, vote;

		send_entries(r, 3, 1, 1, 3, 99, 50);
		assert_int_equal(install_taken(r, has_it ? 80 : 200, 3, 7), 0);
		assert_int_equal(r->server->raft.current_term, 7);
		rlog_log_meta(r->log, &term, &vote);
		assert_int_equal(term, 7);
		assert_int_equal(vote, 0);
		assert_int_equal(rlog_log_last(r->log), has_it ? 100 : 200);
		assert_int_equal(rlog_server_leader(r->server, &(const char *){NULL}), 0);
		send_entries(r, 3, has_it ? 100 : 200, 3, 3, 5, 205);
		assert_int_equal(answer(r).term, 7);
		assert_true(answer(r).rejected > 0);
		assert_int_equal(rlog_log_last(r->log), has_it ? 100 : 200);
		stop(r);
		start(r);
		assert_int_equal(r->server->raft.current_term, 7);
		rig_free(r);
	}
}

static void stored_snapshot_of_a_later_term_moves_the_term_when_opened(void **state)
{
	struct rig *r = rig_new();
	struct rlog_buf *image = image_of(200, 3, 7);

	(void)state;
	send_entries(r, 3, 1, 1, 3, 99, 50);
	assert_int_equal(rlog_snapshot_store(memdisk_disk(r->disk), image), 0);
	rlog_buf_unref(image);
	stop(r);
	start(r);
	assert_int_equal(r->server->raft.current_term, 7);
	assert_int_equal(rlog_log_last(r->log), 200);
	rig_free(r);
}

/* Messages that the leader sent when it knew less of this node, or as another leader with a longer log. */
static void entries_in_front_of_the_log_are_stepped_over(void **state)
{
	(void)state;
	for (uint64_t prev = 0; prev < 100; prev += prev < 5 ? 1 : 13) {
		struct rig *r = rig_new();

		send_entries(r, 1, 1, 1, 1, 4, 5);
		r->applied_count = 0;
		assert_int_equal(install(r, 100, 1), 0);
		/* It does not reach what is here: what is here is matched all the same. */
		send_entries(r, 1, prev, prev > 0, 1, (unsigned)(99 - prev), 50);
		assert_int_equal(answer(r).rejected, 0);
		assert_int_equal(answer(r).last_log_index, 100);
		assert_int_equal(rlog_log_last(r->log), 100);
		send_entries(r, 1, prev, prev > 0, 1, (unsigned)(100 - prev), 50);
		assert_int_equal(answer(r).rejected, 0);
		assert_int_equal(answer(r).last_log_index, 100);
		/* It does, and more. */
		send_entries(r, 1, prev, prev > 0, 1, (unsigned)(105 - prev), 105);
		assert_int_equal(rlog_log_last(r->log), 105);
		send_entries(r, 1, 105, 1, 1, 0, 105);
		assert_applied(r, 101, 105);
		/* Of an earlier term. */
		send_entries(r, 4, 105, 1, 4, 1, 105);
		send_entries(r, 1, prev, prev > 0, 1, (unsigned)(99 - prev), 50);
		assert_int_equal(answer(r).term, 4);
		rig_free(r);
	}
}

/* A log that was shortened, in place of one that began anew. */
static void entries_in_front_of_a_shortened_log_are_stepped_over(void **state)
{
	struct rig *r = rig_new();
	uint64_t first;

	(void)state;
	send_entries(r, 1, 1, 1, 1, 99, 100);
	assert_int_equal(take(r, 60), 0);
	first = rlog_log_first(r->log);
	assert_in_range(first, 3, 60);
	for (uint64_t prev = 0; prev < 70; prev++) {
		send_entries(r, 1, prev, prev > 0, 1, 3, 100);
		assert_int_equal(answer(r).rejected, 0);
		assert_true(answer(r).last_log_index >= prev + 3 || answer(r).last_log_index == 60);
		assert_int_equal(rlog_log_first(r->log), first);
		assert_int_equal(rlog_log_last(r->log), 100);
	}
	rig_free(r);
}

static uint64_t membership_index(struct rig *r, uint64_t index)
{
	struct rlog_buf *payload = rlog_buf_new(0), *image = NULL;
	struct rlog_snapshot s;
	uint64_t conf_index;

	assert_int_equal(rlog_server_image(r->server, index, payload, &image), 0);
	assert_int_equal(rlog_snapshot_decode(image, CLUSTER, &s), 0);
	conf_index = s.conf_index;
	rlog_snapshot_clear(&s);
	rlog_buf_unref(image);
	rlog_buf_unref(payload);
	return conf_index;
}

static void image_has_the_membership_that_was_in_force(void **state)
{
	struct rig *r = rig_new();

	(void)state;
	r->change_at = 50;
	send_entries(r, 1, 1, 1, 1, 99, 100);
	assert_int_equal(membership_index(r, 1), 1);
	assert_int_equal(membership_index(r, 49), 1);
	assert_int_equal(membership_index(r, 50), 50);
	assert_int_equal(membership_index(r, 100), 50);
	assert_int_equal(take(r, 30), 0);
	assert_int_equal(membership_index(r, 30), 1);
	assert_int_equal(membership_index(r, 49), 1);
	assert_int_equal(membership_index(r, 60), 50);
	assert_int_equal(take(r, 80), 0);
	assert_int_equal(membership_index(r, 80), 50);
	assert_int_equal(membership_index(r, 100), 50);
	stop(r);
	start(r);
	assert_int_equal(r->server->raft.configuration_committed_index, 50);
	r->change_at = 101;
	send_entries(r, 1, 100, 1, 1, 2, 102);
	send_entries(r, 1, 102, 1, 1, 0, 102);
	assert_int_equal(membership_index(r, 100), 50);
	assert_int_equal(membership_index(r, 101), 101);
	rig_free(r);
}

/* After a restart, libraft has the older one from the snapshot or the log. */
static void membership_that_is_replaced_falls_back_to_the_one_before(void **state)
{
	static const uint64_t snapshots[] = {30, 60};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct rig *r = rig_new();

		r->change_at = 50;
		r->second_change_at = 80;
		send_entries(r, 1, 1, 1, 1, 69, 70);
		assert_int_equal(r->server->raft.configuration.n, 4);
		send_entries(r, 1, 70, 1, 1, 20, 70);
		send_entries(r, 1, 90, 1, 1, 0, 70);
		assert_int_equal(r->server->raft.configuration.n, 5);
		assert_int_equal(take(r, snapshots[i]), 0);
		stop(r);
		start(r);
		assert_int_equal(r->server->raft.configuration.n, 5);
		r->second_change_at = 0;
		send_entries(r, 2, 79, 1, 2, 5, 70);
		assert_int_equal(r->server->raft.configuration.n, 4);
		assert_int_equal(r->server->raft.configuration_uncommitted_index, 0);
		rig_free(r);
	}
}

static void disk_full_changes_nothing(void **state)
{
	struct rig *r = rig_new();
	unsigned failed = 0;

	(void)state;
	send_entries(r, 1, 1, 1, 1, 4, 5);
	for (uint64_t capacity = 1;; capacity += RLOG_BLOCK) {
		int rv;

		memdisk_set_capacity(r->disk, capacity);
		rv = install(r, 100, 1);
		if (rv == 0)
			break;
		failed++;
		assert_int_equal(rv, -ENOSPC);
		assert_null(rlog_server_failure(r->server));
		assert_null(rlog_log_snapshot(r->log));
		assert_int_equal(rlog_log_last(r->log), 5);
		assert_int_equal(r->server->applied, 5);
	}
	assert_true(failed > 6);
	send_entries(r, 1, 100, 1, 1, 1, 101);
	assert_int_equal(rlog_log_last(r->log), 101);
	rig_free(r);
}

/* Which snapshot the disk has is not known then. */
static void error_while_storing_stops_the_node_and_opening_goes_on(void **state)
{
	(void)state;
	for (unsigned call = 1; call <= 7; call++) {
		struct rig *r = rig_new();
		bool stored;

		send_entries(r, 1, 1, 1, 1, 4, 5);
		assert_int_equal(rlog_log_spare_now(r->log), 0);
		/* create, write, replace, directory; header, rename, directory */
		memdisk_fail_at(r->disk, call, -EIO);
		assert_int_equal(install(r, 100, 1), -EIO);
		assert_non_null(rlog_server_failure(r->server));
		memdisk_disk(r->disk)->sync_dir(memdisk_disk(r->disk));
		stop(r);
		start(r);
		stored = call > 3;
		assert_int_equal(rlog_log_last(r->log), stored ? 100 : 5);
		assert_int_equal(r->server->applied, stored ? 100 : 0);
		assert_int_equal(install(r, 100, 1), 0);
		send_entries(r, 1, 100, 1, 1, 1, 101);
		assert_int_equal(rlog_log_last(r->log), 101);
		rig_free(r);
	}
}

static void payload_that_could_not_be_loaded_again_is_refused(void **state)
{
	struct rig *r = rig_new();
	struct rlog_buf *payload = rlog_buf_new(8), *image = image_of(5, 1, 1);

	(void)state;
	send_entries(r, 1, 1, 1, 1, 4, 5);
	payload->len = (512u << 20) - 100; /* not that long; nobody looks */
	assert_int_equal(rlog_server_install(r->server, memdisk_disk(r->disk), image, payload),
			 -EFBIG);
	rlog_buf_unref(image);
	assert_int_equal(rlog_server_image(r->server, 5, payload, &image), -EFBIG);
	rlog_buf_unref(payload);
	assert_int_equal(take(r, 5), 0);
	rig_free(r);
}

/* A leader's requests that are in the log, when another leader has committed them and this node takes its
 * state over instead of applying them: they were committed, which nobody here can tell any more. */
static void requests_that_an_install_passes_over_end_as_unknown(void **state)
{
	struct rig *r = rig_new();
	struct rlog_request reqs[3] = {0};
	uint64_t last, term;

	(void)state;
	lead(r);
	for (unsigned i = 0; i < 3; i++) {
		reqs[i].done = on_done;
		reqs[i].buf = rlog_buf_new(8);
		rlog_server_submit(r->server, &reqs[i]);
	}
	turns(r);
	last = rlog_log_durable(r->log);
	term = r->server->raft.current_term;
	r->full = true;
	send_entries(r, term + 1, last, term, term + 1, 1, last);
	assert_int_equal(install(r, last, term), 0);
	r->full = false;
	rlog_server_resume(r->server);
	send_entries(r, term + 1, last + 1, term + 1, term + 1, 1, last + 2);
	assert_applied(r, last + 1, last + 2);
	assert_int_equal(r->refused, 0);
	assert_int_equal(r->unknown, 3);
	rig_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(follower_left_behind_installs_and_follows),
		cmocka_unit_test(log_that_has_the_entry_stays_and_is_delivered_again),
		cmocka_unit_test(log_that_begins_behind_the_image_wants_a_newer_one),
		cmocka_unit_test(image_that_ends_where_the_log_begins_keeps_the_log),
		cmocka_unit_test(image_that_contradicts_what_is_committed_here_is_refused),
		cmocka_unit_test(snapshot_that_is_not_newer_lets_nothing_go),
		cmocka_unit_test(leader_with_a_newer_snapshot_sends_what_is_in_its_log),
		cmocka_unit_test(notice_is_answered_and_counts_as_a_heartbeat),
		cmocka_unit_test(image_taken_in_a_later_term_moves_the_term),
		cmocka_unit_test(stored_snapshot_of_a_later_term_moves_the_term_when_opened),
		cmocka_unit_test(entries_in_front_of_the_log_are_stepped_over),
		cmocka_unit_test(entries_in_front_of_a_shortened_log_are_stepped_over),
		cmocka_unit_test(image_has_the_membership_that_was_in_force),
		cmocka_unit_test(membership_that_is_replaced_falls_back_to_the_one_before),
		cmocka_unit_test(disk_full_changes_nothing),
		cmocka_unit_test(error_while_storing_stops_the_node_and_opening_goes_on),
		cmocka_unit_test(payload_that_could_not_be_loaded_again_is_refused),
		cmocka_unit_test(requests_that_an_install_passes_over_end_as_unknown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
