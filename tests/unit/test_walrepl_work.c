/* The work queue: lanes, barriers, what overtakes, and its end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/work.h"

#define ALL UINT64_MAX

struct toy {
	struct wrep_work work; /* first */
	unsigned number;
	bool may_overtake, retired;
};

static unsigned released, cancelled, rooms;
static unsigned served[16], served_count;

static void release(struct wrep_work *work)
{
	released++;
	wrep_work_free(work);
}

static void cancel(struct wrep *w, struct wrep_work *work)
{
	cancelled++;
}

static bool overtakes(const struct wrep_work *work)
{
	return ((const struct toy *)work)->may_overtake;
}

static void retire(struct wrep_work *work)
{
	((struct toy *)work)->retired = true;
}

static const struct wrep_work_ops plain = {.name = "plain", .release = release, .retire = retire},
				  quick = {.name = "quick",
					   .release = release,
					   .overtakes = overtakes,
					   .cancel = cancel},
				  uncounted = {.name = "uncounted",
					       .release = release,
					       .is_no_progress = true};

static void room(void *ctx)
{
	(void)ctx;
	rooms++;
}

static struct wrep_queue *new_queue(wrep_queue_policy *policy)
{
	struct wrep_queue *q = wrep_queue_new(policy, room, NULL);

	assert_non_null(q);
	released = cancelled = rooms = served_count = 0;
	return q;
}

static struct toy *new_toy(unsigned number, const struct wrep_work_ops *ops)
{
	struct toy *t = wrep_work_make(sizeof(*t), ops);

	t->number = number;
	return t;
}

/* About those lanes, up to the first 0. */
static struct toy *push(struct wrep_queue *q, unsigned number, uint64_t a, uint64_t b)
{
	struct toy *t = new_toy(number, &plain);

	if (a == ALL)
		wrep_work_is_about_all(&t->work);
	else if (a)
		wrep_work_is_about(&t->work, a);
	if (b)
		wrep_work_is_about(&t->work, b);
	wrep_queue_push(q, &t->work);
	return t;
}

static struct wrep_work *take(struct wrep_queue *q, unsigned expected)
{
	struct wrep_work *work = wrep_queue_next(q, 0);

	assert_non_null(work);
	assert_int_equal(((struct toy *)work)->number, expected);
	return work;
}

static void assert_none(struct wrep_queue *q)
{
	assert_null(wrep_queue_next(q, 0));
}

static void drain(struct wrep_queue *q)
{
	struct wrep_work *work;

	while ((work = wrep_queue_next(q, 0)))
		wrep_queue_done(q, work);
}

static void end(struct wrep_queue *q)
{
	drain(q);
	wrep_queue_free(q);
}

static void lane_keeps_its_order(void **state)
{
	struct wrep_queue *q = new_queue(wrep_queue_by_lanes);
	struct wrep_work *work;

	push(q, 1, 7, 0);
	push(q, 2, 7, 0);
	work = take(q, 1);
	assert_none(q);
	wrep_queue_done(q, work);
	wrep_queue_done(q, take(q, 2));
	assert_int_equal(released, 2);
	end(q);
}

static void lanes_do_not_wait_for_each_other(void **state)
{
	struct wrep_queue *q = new_queue(wrep_queue_by_lanes);
	struct wrep_work *a, *b;

	push(q, 1, 7, 0);
	push(q, 2, 7, 0);
	push(q, 3, 8, 0);
	push(q, 4, 0, 0); /* about nothing */
	a = take(q, 1);
	b = take(q, 3);
	wrep_queue_done(q, take(q, 4));
	wrep_queue_done(q, b);
	assert_none(q);
	wrep_queue_done(q, a);
	wrep_queue_done(q, take(q, 2));
	end(q);
}

static void barrier_waits_for_its_lanes_and_holds_them(void **state)
{
	struct wrep_queue *q = new_queue(wrep_queue_by_lanes);
	struct wrep_work *a, *b;

	push(q, 1, 7, 0);
	push(q, 2, 8, 0);
	push(q, 3, 7, 8);
	push(q, 4, 8, 0);
	push(q, 5, 9, 0);
	a = take(q, 1);
	b = take(q, 2);
	wrep_queue_done(q, take(q, 5));
	wrep_queue_done(q, a);
	assert_none(q);
	wrep_queue_done(q, b);
	a = take(q, 3);
	assert_none(q);
	wrep_queue_done(q, a);
	wrep_queue_done(q, take(q, 4));
	end(q);
}

static void lane_named_twice_counts_once(void **state)
{
	struct wrep_queue *q = new_queue(wrep_queue_by_lanes);

	push(q, 1, 7, 7);
	push(q, 2, 7, 7);
	wrep_queue_done(q, take(q, 1));
	wrep_queue_done(q, take(q, 2));
	end(q);
}

static void work_about_all_waits_for_all_and_holds_all(void **state)
{
	struct wrep_queue *q = new_queue(wrep_queue_by_lanes);
	struct wrep_work *a, *b;

	push(q, 1, 7, 0);
	push(q, 2, 8, 0);
	push(q, 3, ALL, 0);
	push(q, 4, 9, 0);
	push(q, 5, ALL, 0);
	b = take(q, 1);
	a = take(q, 2);
	wrep_queue_done(q, a);
	assert_none(q);
	wrep_queue_done(q, b);
	a = take(q, 3);
	assert_none(q);
	wrep_queue_done(q, a);
	a = take(q, 4);
	assert_none(q);
	wrep_queue_done(q, a);
	wrep_queue_done(q, take(q, 5));
	end(q);
}

static void log_order_lets_no_lane_overtake(void **state)
{
	struct wrep_queue *q = new_queue(wrep_queue_in_log_order);
	struct wrep_work *work;

	push(q, 1, 7, 0);
	push(q, 2, 8, 0);
	push(q, 3, 0, 0);
	work = take(q, 1);
	assert_none(q);
	wrep_queue_done(q, work);
	wrep_queue_done(q, take(q, 2));
	wrep_queue_done(q, take(q, 3));
	end(q);
}

static void serve(void *ctx, struct wrep_work *work)
{
	struct wrep_queue *q = ctx;
	struct toy *t = (struct toy *)work, *another;

	served[served_count++] = t->number;
	if (t->number == 3) { /* comes too late */
		another = new_toy(9, &quick);
		another->may_overtake = true;
		wrep_queue_push(q, &another->work);
	}
	work->ops->cancel(NULL, work);
}

static struct toy *push_quick(struct wrep_queue *q, unsigned number, bool may_overtake)
{
	struct toy *t = new_toy(number, &quick);

	t->may_overtake = may_overtake;
	wrep_work_is_about(&t->work, 7);
	wrep_queue_push(q, &t->work);
	return t;
}

static void overtaking_is_served_amid_another(void **state)
{
	struct wrep_queue *q = new_queue(wrep_queue_in_log_order);
	struct wrep_work *work;
	struct toy *later;

	push(q, 1, 7, 0);
	push(q, 2, 7, 0);
	push_quick(q, 3, true);
	later = push_quick(q, 4, false);
	push_quick(q, 5, true);
	work = take(q, 1);
	wrep_queue_overtake(q, serve, q);
	assert_int_equal(served_count, 2);
	assert_int_equal(served[0], 3);
	assert_int_equal(served[1], 5);
	assert_int_equal(cancelled, 2);
	assert_int_equal(released, 2);
	later->may_overtake = true;
	wrep_queue_overtake(q, serve, q);
	assert_int_equal(served_count, 4);
	assert_int_equal(served[2], 4);
	assert_int_equal(served[3], 9);
	wrep_queue_done(q, work);
	wrep_queue_done(q, take(q, 2));
	assert_none(q);
	end(q);
}

static void what_may_overtake_has_its_turn_nevertheless(void **state)
{
	struct wrep_queue *q = new_queue(wrep_queue_in_log_order);

	push(q, 1, 7, 0);
	push_quick(q, 2, true);
	wrep_queue_done(q, take(q, 1));
	wrep_queue_done(q, take(q, 2));
	wrep_queue_overtake(q, serve, q);
	assert_int_equal(served_count, 0);
	end(q);
}

static void fetch_retires_what_is_queued(void **state)
{
	struct wrep_queue *q = new_queue(wrep_queue_in_log_order);
	struct toy *fetch = push(q, 1, ALL, 0), *behind = push(q, 2, 7, 0);
	struct wrep_work *work = take(q, 1);

	push_quick(q, 3, false); /* has no `retire` */
	assert_true(wrep_queue_holds(q, "quick"));
	assert_false(wrep_queue_holds(q, "uncounted"));
	wrep_queue_retire(q);
	assert_false(fetch->retired);
	assert_true(behind->retired);
	wrep_queue_done(q, work);
	end(q);
	assert_int_equal(released, 3);
}

static void push_large(struct wrep_queue *q, size_t bytes)
{
	struct toy *t = new_toy(0, &plain);

	t->work.bytes = bytes;
	wrep_queue_push(q, &t->work);
}

static void full_queue_tells_of_room_once(void **state)
{
	struct wrep_queue *q = new_queue(wrep_queue_in_log_order);

	push_large(q, 1);
	push_large(q, WREP_QUEUE_BYTES_MAX);
	push_large(q, 1);
	assert_true(wrep_queue_is_full(q));
	wrep_queue_done(q, wrep_queue_next(q, 0));
	assert_int_equal(rooms, 1);
	assert_true(wrep_queue_is_full(q)); /* one byte more than may be */
	wrep_queue_done(q, wrep_queue_next(q, 0));
	assert_int_equal(rooms, 2);
	assert_false(wrep_queue_is_full(q));
	wrep_queue_done(q, wrep_queue_next(q, 0));
	assert_int_equal(rooms, 2);
	end(q);
}

static void closed_queue_gives_out_what_is_left(void **state)
{
	struct wrep_queue *q = new_queue(wrep_queue_in_log_order);

	push_large(q, 2 * (size_t)WREP_QUEUE_BYTES_MAX);
	assert_true(wrep_queue_is_full(q));
	assert_false(wrep_queue_is_closed(q));
	wrep_queue_close(q);
	assert_true(wrep_queue_is_closed(q));
	assert_false(wrep_queue_is_full(q)); /* what ends now is to be delivered */
	wrep_queue_done(q, wrep_queue_next(q, -1));
	assert_null(wrep_queue_next(q, -1));
	push(q, 1, 7, 0);
	wrep_queue_done(q, take(q, 1));
	assert_null(wrep_queue_next(q, -1));
	wrep_queue_free(q);
}

static void taken_counts_what_is_progress(void **state)
{
	struct wrep_queue *q = new_queue(wrep_queue_in_log_order);

	push(q, 1, 7, 0);
	wrep_queue_push(q, &new_toy(2, &uncounted)->work);
	drain(q);
	assert_int_equal(wrep_queue_taken(q), 1);
	end(q);
}

static void work_in_no_queue_is_dropped(void **state)
{
	struct toy *t = new_toy(1, &plain);

	released = 0;
	wrep_work_is_about(&t->work, 7);
	wrep_work_drop(&t->work);
	wrep_work_drop(NULL);
	assert_int_equal(released, 1);
}

static void *push_soon(void *q)
{
	nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	push(q, 1, 7, 0);
	return NULL;
}

static void next_waits_for_work(void **state)
{
	struct wrep_queue *q = new_queue(wrep_queue_in_log_order);
	pthread_t thread;

	assert_null(wrep_queue_next(q, 5));
	assert_int_equal(pthread_create(&thread, NULL, push_soon, q), 0);
	wrep_queue_done(q, wrep_queue_next(q, -1));
	pthread_join(thread, NULL);
	end(q);
}

static void many_lanes_come_and_go(void **state)
{
	struct wrep_queue *q = new_queue(wrep_queue_by_lanes);

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 1; i <= 5000; i++)
			push(q, i, (uint64_t)i << 16 | i, 0);
		for (unsigned i = 1; i <= 5000; i++)
			wrep_queue_done(q, take(q, i));
		assert_none(q);
	}
	end(q);
}

/* ---- against a model ------------------------------------------------------------------------------ */

#define STEPS 20000
#define LANES 6
#define LIVE 40

/* A work as the model knows it, in the order of the pushes. */
struct known {
	unsigned number;
	uint64_t lanes; /* a bit each; all of them: about everything */
	struct wrep_work *running;
};

struct model {
	struct known known[LIVE];
	unsigned count, next;
	uint64_t random;
};

static unsigned draw(struct model *m, unsigned below)
{
	m->random = m->random * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(m->random >> 33) % below;
}

static bool model_allows(const struct model *m, unsigned at, bool by_lanes)
{
	for (unsigned i = 0; i < at; i++)
		if (!by_lanes || m->known[i].lanes & m->known[at].lanes ||
		    m->known[i].lanes == ALL || m->known[at].lanes == ALL)
			return false;
	return !m->known[at].running;
}

static void model_push(struct model *m, struct wrep_queue *q)
{
	struct known *k = &m->known[m->count++];
	struct toy *t = new_toy(++m->next, &plain);
	unsigned n = draw(m, 8);

	*k = (struct known){.number = t->number};
	if (n == 0) {
		k->lanes = ALL;
		wrep_work_is_about_all(&t->work);
	}
	for (unsigned i = 0; n && i < (n < 6 ? 1 : n); i++) {
		unsigned lane = draw(m, LANES);

		k->lanes |= (uint64_t)1 << lane;
		wrep_work_is_about(&t->work, lane);
	}
	wrep_queue_push(q, &t->work);
}

static void model_take(struct model *m, struct wrep_queue *q, bool by_lanes)
{
	struct wrep_work *work = wrep_queue_next(q, 0);
	unsigned at = 0;

	while (at < m->count && !model_allows(m, at, by_lanes))
		at++;
	if (at == m->count) {
		assert_null(work);
		return;
	}
	assert_non_null(work);
	assert_int_equal(((struct toy *)work)->number, m->known[at].number);
	m->known[at].running = work;
}

static void model_finish(struct model *m, struct wrep_queue *q)
{
	unsigned running = 0, pick;

	for (unsigned i = 0; i < m->count; i++)
		running += m->known[i].running != NULL;
	if (!running)
		return;
	pick = draw(m, running);
	for (unsigned i = 0; i < m->count; i++) {
		if (!m->known[i].running || pick--)
			continue;
		wrep_queue_done(q, m->known[i].running);
		memmove(&m->known[i], &m->known[i + 1], (m->count - i - 1) * sizeof(m->known[0]));
		m->count--;
		return;
	}
}

static void random_works_begin_as_in_the_model(void **state)
{
	const char *given = getenv("SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);

	print_message("# SEED=%llu\n", (unsigned long long)seed);
	for (int by_lanes = 0; by_lanes < 2; by_lanes++) {
		struct wrep_queue *q =
			new_queue(by_lanes ? wrep_queue_by_lanes : wrep_queue_in_log_order);
		struct model m = {.random = seed};

		for (unsigned step = 0; step < STEPS; step++) {
			unsigned what = draw(&m, 3);

			if (what == 0 && m.count < LIVE)
				model_push(&m, q);
			else if (what == 1)
				model_take(&m, q, by_lanes);
			else
				model_finish(&m, q);
		}
		while (m.count) {
			model_take(&m, q, by_lanes);
			model_finish(&m, q);
		}
		assert_int_equal(released, m.next);
		end(q);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lane_keeps_its_order),
		cmocka_unit_test(lanes_do_not_wait_for_each_other),
		cmocka_unit_test(barrier_waits_for_its_lanes_and_holds_them),
		cmocka_unit_test(lane_named_twice_counts_once),
		cmocka_unit_test(work_about_all_waits_for_all_and_holds_all),
		cmocka_unit_test(log_order_lets_no_lane_overtake),
		cmocka_unit_test(overtaking_is_served_amid_another),
		cmocka_unit_test(what_may_overtake_has_its_turn_nevertheless),
		cmocka_unit_test(fetch_retires_what_is_queued),
		cmocka_unit_test(full_queue_tells_of_room_once),
		cmocka_unit_test(closed_queue_gives_out_what_is_left),
		cmocka_unit_test(taken_counts_what_is_progress),
		cmocka_unit_test(work_in_no_queue_is_dropped),
		cmocka_unit_test(next_waits_for_work),
		cmocka_unit_test(many_lanes_come_and_go),
		cmocka_unit_test(random_works_begin_as_in_the_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
