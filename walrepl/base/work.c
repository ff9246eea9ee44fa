/* The work queue.
 *
 * All works are in one list, by their sequence, from the push until they are done. Beside it each lane that has work
 * holds its places in a list of its own, those about everything are in a third, and those that may overtake in a
 * fourth, so that whether a work may begin is known without a search:
 *
 *	works    1 ── 2 ── 3 ── 4 ── 5 ── 6
 *	lane A   1 ─────── 3 ──────────── 6       3 may begin when it is the first of A and of B, and no
 *	lane B        2 ── 3                      work about everything (5) is older
 *	all                          5            5 may begin when it is the first of all works
 *
 * A lane exists while a work is in it.
 */
#include "base/work.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "clock.h"
#include "guarded.h"

struct wrep_lane {
	uint64_t id;
	struct wrep_lane *next; /* of the same chain */
	TAILQ_HEAD(, wrep_place) places;
};

struct wrep_queue {
	wrep_queue_policy *policy;
	void (*room)(void *ctx);
	void *ctx;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct wrep_works works GUARDED_BY(lock); /* queued and running ones, by their sequence */
	struct wrep_works about_all GUARDED_BY(lock);  /* of these, those about everything */
	struct wrep_works overtaking GUARDED_BY(lock); /* and those queued that may overtake */
	struct wrep_lane **chains GUARDED_BY(lock);
	size_t chain_count GUARDED_BY(lock), lane_count
		GUARDED_BY(lock); /* the former a power of two */
	uint64_t last_sequence GUARDED_BY(lock);
	size_t bytes GUARDED_BY(lock); /* of the queued ones */
	bool was_full GUARDED_BY(lock), closed GUARDED_BY(lock);
	uint64_t taken GUARDED_BY(lock);
};

#define FIRST_CHAINS 64

/* A few dozen bytes: without these the machine is beyond help. */
static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

/* ---- a work ---------------------------------------------------------------------------------------- */

void *wrep_work_make(size_t size, const struct wrep_work_ops *ops)
{
	struct wrep_work *work = must(calloc(1, size));

	work->ops = ops;
	return work;
}

void wrep_work_free(struct wrep_work *work)
{
	free(work);
}

void wrep_work_is_about(struct wrep_work *work, uint64_t id)
{
	unsigned n = work->place_count;

	for (unsigned i = 0; i < n; i++)
		if (work->places[i].id == id)
			return;
	if (!(n & (n - 1))) /* it is full at 0, 1, 2, 4, 8, ... */
		work->places = must(realloc(work->places, (n ? 2 * n : 1) * sizeof *work->places));
	work->places[n] = (struct wrep_place){.id = id};
	work->place_count++;
}

void wrep_work_is_about_all(struct wrep_work *work)
{
	work->about_all = true;
}

void wrep_work_drop(struct wrep_work *work)
{
	if (!work)
		return;
	assert(!work->sequence);
	free(work->places);
	work->places = NULL;
	work->ops->release(work);
}

/* ---- lanes ----------------------------------------------------------------------------------------- */

static struct wrep_lane **chain_of(struct wrep_lane **chains, size_t count, uint64_t id)
{
	return &chains[(id ^ id >> 16) & (count - 1)];
}

/* Twice as many chains as before. */
static void grow(struct wrep_queue *q) REQUIRES(q->lock)
{
	size_t count = 2 * q->chain_count;
	struct wrep_lane **chains = must(calloc(count, sizeof(struct wrep_lane *)));

	for (size_t i = 0; i < q->chain_count; i++) {
		struct wrep_lane *lane;

		while ((lane = q->chains[i])) {
			struct wrep_lane **chain = chain_of(chains, count, lane->id);

			q->chains[i] = lane->next;
			lane->next = *chain;
			*chain = lane;
		}
	}
	free(q->chains);
	q->chains = chains;
	q->chain_count = count;
}

static struct wrep_lane *lane_of(struct wrep_queue *q, uint64_t id) REQUIRES(q->lock)
{
	struct wrep_lane **chain = chain_of(q->chains, q->chain_count, id), *lane;

	for (lane = *chain; lane; lane = lane->next)
		if (lane->id == id)
			return lane;
	if (q->lane_count == q->chain_count) {
		grow(q);
		chain = chain_of(q->chains, q->chain_count, id);
	}
	lane = must(calloc(1, sizeof *lane));
	lane->id = id;
	TAILQ_INIT(&lane->places);
	lane->next = *chain;
	*chain = lane;
	q->lane_count++;
	return lane;
}

static void leave_lane(struct wrep_queue *q, struct wrep_place *place) REQUIRES(q->lock)
{
	struct wrep_lane *lane = place->lane, **p;

	TAILQ_REMOVE(&lane->places, place, link);
	if (!TAILQ_EMPTY(&lane->places))
		return;
	for (p = chain_of(q->chains, q->chain_count, lane->id); *p != lane; p = &(*p)->next)
		;
	*p = lane->next;
	q->lane_count--;
	free(lane);
}

/* ---- order ----------------------------------------------------------------------------------------- */

/* Nothing that its lanes, or those about everything, put before it is left. */
bool wrep_queue_by_lanes(const struct wrep_queue *q, const struct wrep_work *work) REQUIRES(q->lock)
{
	const struct wrep_work *barrier = TAILQ_FIRST(&q->about_all);

	if (work->about_all)
		return TAILQ_FIRST(&q->works) == work;
	if (barrier && barrier->sequence < work->sequence)
		return false;
	for (unsigned i = 0; i < work->place_count; i++)
		if (TAILQ_FIRST(&work->places[i].lane->places) != &work->places[i])
			return false;
	return true;
}

/* Nothing at all that is before it is left. (Its lanes allow it then.) */
bool wrep_queue_in_log_order(const struct wrep_queue *q, const struct wrep_work *work)
	REQUIRES(q->lock)
{
	return TAILQ_FIRST(&q->works) == work;
}

/* ---- the queue ------------------------------------------------------------------------------------- */

static void start(struct wrep_queue *q) UNCHECKED /* nobody else knows it yet */
{
	TAILQ_INIT(&q->works);
	TAILQ_INIT(&q->about_all);
	TAILQ_INIT(&q->overtaking);
	q->chain_count = FIRST_CHAINS;
	q->chains = must(calloc(q->chain_count, sizeof(struct wrep_lane *)));
}

struct wrep_queue *wrep_queue_new(wrep_queue_policy *policy, void (*room)(void *ctx), void *ctx)
{
	struct wrep_queue *q = calloc(1, sizeof *q);

	if (!q)
		return NULL;
	q->policy = policy;
	q->room = room;
	q->ctx = ctx;
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->wake, NULL);
	start(q);
	return q;
}

void wrep_queue_free(struct wrep_queue *q) UNCHECKED /* nobody else knows it any more */
{
	if (!q)
		return;
	assert(TAILQ_EMPTY(&q->works) && !q->lane_count && !q->bytes);
	free(q->chains);
	pthread_cond_destroy(&q->wake);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

void wrep_queue_push(struct wrep_queue *q, struct wrep_work *work)
{
	pthread_mutex_lock(&q->lock);
	assert(!work->sequence);
	work->sequence = ++q->last_sequence;
	TAILQ_INSERT_TAIL(&q->works, work, link);
	if (work->about_all)
		TAILQ_INSERT_TAIL(&q->about_all, work, all_link);
	if (work->ops->overtakes)
		TAILQ_INSERT_TAIL(&q->overtaking, work, overtaking_link);
	for (unsigned i = 0; i < work->place_count; i++) {
		struct wrep_place *place = &work->places[i];

		place->work = work;
		place->lane = lane_of(q, place->id);
		TAILQ_INSERT_TAIL(&place->lane->places, place, link);
	}
	q->bytes += work->bytes;
	pthread_cond_broadcast(&q->wake);
	pthread_mutex_unlock(&q->lock);
}

/* It begins. */
static void begin(struct wrep_queue *q, struct wrep_work *work) REQUIRES(q->lock)
{
	work->running = true;
	if (work->ops->overtakes)
		TAILQ_REMOVE(&q->overtaking, work, overtaking_link);
	q->bytes -= work->bytes;
}

/* The oldest that may begin, or NULL. */
static struct wrep_work *find(struct wrep_queue *q) REQUIRES(q->lock)
{
	struct wrep_work *work;

	TAILQ_FOREACH(work, &q->works, link) {
		if (!work->running && q->policy(q, work))
			break;
	}
	return work;
}

struct wrep_work *wrep_queue_next(struct wrep_queue *q, int timeout_ms)
{
	uint64_t until =
		rlog_clock_ns() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0) * RLOG_NS_PER_MS;
	struct wrep_work *work;
	bool late = false, room = false;

	pthread_mutex_lock(&q->lock);
	while (!(work = find(q)) && !q->closed && !late) {
		if (timeout_ms < 0)
			pthread_cond_wait(&q->wake, &q->lock);
		else
			late = rlog_cond_wait(&q->wake, &q->lock, until) != 0;
	}
	if (work) {
		begin(q, work);
		if (!work->ops->is_no_progress)
			q->taken++;
		room = q->was_full;
		q->was_full = false;
	}
	pthread_mutex_unlock(&q->lock);
	if (room)
		q->room(q->ctx);
	return work;
}

void wrep_queue_done(struct wrep_queue *q, struct wrep_work *work)
{
	pthread_mutex_lock(&q->lock);
	assert(work->running);
	TAILQ_REMOVE(&q->works, work, link);
	if (work->about_all)
		TAILQ_REMOVE(&q->about_all, work, all_link);
	for (unsigned i = 0; i < work->place_count; i++)
		leave_lane(q, &work->places[i]);
	pthread_cond_broadcast(&q->wake); /* what waited for it may begin */
	pthread_mutex_unlock(&q->lock);
	work->sequence = 0;
	wrep_work_drop(work);
}

/* The next that overtakes, pushed not after `last`. */
static struct wrep_work *next_overtaking(struct wrep_queue *q, uint64_t last)
{
	struct wrep_work *work;

	pthread_mutex_lock(&q->lock);
	TAILQ_FOREACH(work, &q->overtaking, overtaking_link) {
		if (work->sequence > last || work->ops->overtakes(work))
			break;
	}
	if (work && work->sequence > last)
		work = NULL;
	if (work)
		begin(q, work);
	pthread_mutex_unlock(&q->lock);
	return work;
}

void wrep_queue_overtake(struct wrep_queue *q, void (*serve)(void *ctx, struct wrep_work *work),
			 void *ctx)
{
	struct wrep_work *work;
	uint64_t last;

	pthread_mutex_lock(&q->lock);
	last = q->last_sequence;
	pthread_mutex_unlock(&q->lock);
	while ((work = next_overtaking(q, last))) {
		serve(ctx, work);
		wrep_queue_done(q, work);
	}
}

void wrep_queue_retire(struct wrep_queue *q)
{
	struct wrep_work *work;

	pthread_mutex_lock(&q->lock);
	TAILQ_FOREACH(work, &q->works, link) {
		if (!work->running && work->ops->retire)
			work->ops->retire(work);
	}
	pthread_mutex_unlock(&q->lock);
}

bool wrep_queue_is_full(struct wrep_queue *q)
{
	bool full;

	pthread_mutex_lock(&q->lock);
	full = q->bytes > WREP_QUEUE_BYTES_MAX && !q->closed;
	q->was_full = full;
	pthread_mutex_unlock(&q->lock);
	return full;
}

void wrep_queue_close(struct wrep_queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->closed = true;
	pthread_cond_broadcast(&q->wake);
	pthread_mutex_unlock(&q->lock);
}

bool wrep_queue_is_closed(struct wrep_queue *q)
{
	bool closed;

	pthread_mutex_lock(&q->lock);
	closed = q->closed;
	pthread_mutex_unlock(&q->lock);
	return closed;
}

bool wrep_queue_holds(struct wrep_queue *q, const char *name)
{
	struct wrep_work *work;

	pthread_mutex_lock(&q->lock);
	TAILQ_FOREACH(work, &q->works, link) {
		if (!work->running && !strcmp(work->ops->name, name))
			break;
	}
	pthread_mutex_unlock(&q->lock);
	return work != NULL;
}

uint64_t wrep_queue_taken(struct wrep_queue *q)
{
	uint64_t taken;

	pthread_mutex_lock(&q->lock);
	taken = q->taken;
	pthread_mutex_unlock(&q->lock);
	return taken;
}
