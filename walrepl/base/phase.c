/* How far this node has come, and whether it goes on: two states, and the changes of each that are allowed. */
#include "base/phase.h"

#include <assert.h>
#include "base/wrep.h"

static const bool may_become[][WREP_PHASE_FETCHING + 1] = {
	[WREP_PHASE_OPENING] = {[WREP_PHASE_CATCHING_UP] = true, [WREP_PHASE_UNFIT] = true},
	[WREP_PHASE_CATCHING_UP] = {[WREP_PHASE_SERVING] = true, [WREP_PHASE_UNFIT] = true},
	[WREP_PHASE_SERVING] = {[WREP_PHASE_UNFIT] = true},
	[WREP_PHASE_UNFIT] = {[WREP_PHASE_FETCHING] = true},
	[WREP_PHASE_FETCHING] = {[WREP_PHASE_CATCHING_UP] = true, [WREP_PHASE_UNFIT] = true},
};

static const bool may_end[][WREP_PHASE_FAILED_CLOSING + 1] = {
	[WREP_PHASE_RUNNING] = {[WREP_PHASE_FAILED] = true, [WREP_PHASE_CLOSING] = true},
	[WREP_PHASE_FAILED] = {[WREP_PHASE_FAILED_CLOSING] = true},
	[WREP_PHASE_CLOSING] = {[WREP_PHASE_FAILED_CLOSING] = true},
	[WREP_PHASE_FAILED_CLOSING] = {false},
};

void wrep_phase_init(struct wrep_phase *p)
{
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
}

void wrep_phase_destroy(struct wrep_phase *p)
{
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
}

/* ---- changes --------------------------------------------------------------------------------------- */

static void become(struct wrep_phase *p, enum wrep_phase_state state) REQUIRES(p->lock)
{
	assert(may_become[p->state][state]);
	p->state = state;
	pthread_cond_broadcast(&p->changed);
}

static void end_as(struct wrep_phase *p, enum wrep_phase_end end) REQUIRES(p->lock)
{
	assert(may_end[p->end][end]);
	p->end = end;
	pthread_cond_broadcast(&p->changed);
}

static bool is_unfit(const struct wrep_phase *p) REQUIRES(p->lock)
{
	return p->state == WREP_PHASE_UNFIT || p->state == WREP_PHASE_FETCHING;
}

static bool is_closing(const struct wrep_phase *p) REQUIRES(p->lock)
{
	return p->end == WREP_PHASE_CLOSING || p->end == WREP_PHASE_FAILED_CLOSING;
}

static bool has_failed(const struct wrep_phase *p) REQUIRES(p->lock)
{
	return p->end == WREP_PHASE_FAILED || p->end == WREP_PHASE_FAILED_CLOSING;
}

void wrep_phase_opened(struct wrep *w)
{
	struct wrep_phase *p = &w->phase;

	pthread_mutex_lock(&p->lock);
	if (p->state == WREP_PHASE_OPENING)
		become(p, WREP_PHASE_CATCHING_UP);
	pthread_mutex_unlock(&p->lock);
}

void wrep_phase_wait_opened(struct wrep *w)
{
	struct wrep_phase *p = &w->phase;

	pthread_mutex_lock(&p->lock);
	while (p->state == WREP_PHASE_OPENING && !is_closing(p))
		pthread_cond_wait(&p->changed, &p->lock);
	pthread_mutex_unlock(&p->lock);
}

bool wrep_phase_serve(struct wrep *w)
{
	struct wrep_phase *p = &w->phase;
	bool serves;

	pthread_mutex_lock(&p->lock);
	if (p->state == WREP_PHASE_CATCHING_UP)
		become(p, WREP_PHASE_SERVING);
	serves = p->state == WREP_PHASE_SERVING;
	pthread_mutex_unlock(&p->lock);
	return serves;
}

bool wrep_phase_can_be_unfit(struct wrep *w)
{
	return wrep_goes_on(w);
}

bool wrep_phase_unfit(struct wrep *w)
{
	struct wrep_phase *p = &w->phase;
	bool can;

	pthread_mutex_lock(&p->lock);
	can = !is_unfit(p) && p->end == WREP_PHASE_RUNNING;
	if (can)
		become(p, WREP_PHASE_UNFIT);
	pthread_mutex_unlock(&p->lock);
	return can;
}

bool wrep_phase_fetch(struct wrep *w)
{
	struct wrep_phase *p = &w->phase;
	bool can;

	pthread_mutex_lock(&p->lock);
	can = p->end == WREP_PHASE_RUNNING;
	if (can)
		become(p, WREP_PHASE_FETCHING);
	pthread_mutex_unlock(&p->lock);
	return can;
}

void wrep_phase_fetched(struct wrep *w, bool is_fit)
{
	struct wrep_phase *p = &w->phase;

	pthread_mutex_lock(&p->lock);
	become(p, is_fit ? WREP_PHASE_CATCHING_UP : WREP_PHASE_UNFIT);
	pthread_mutex_unlock(&p->lock);
}

void wrep_phase_wait_fetched(struct wrep *w)
{
	struct wrep_phase *p = &w->phase;

	pthread_mutex_lock(&p->lock);
	while (p->state == WREP_PHASE_FETCHING)
		pthread_cond_wait(&p->changed, &p->lock);
	pthread_mutex_unlock(&p->lock);
}

bool wrep_phase_fail(struct wrep *w)
{
	struct wrep_phase *p = &w->phase;
	bool first;

	pthread_mutex_lock(&p->lock);
	first = !has_failed(p);
	if (first)
		end_as(p, is_closing(p) ? WREP_PHASE_FAILED_CLOSING : WREP_PHASE_FAILED);
	pthread_mutex_unlock(&p->lock);
	return first;
}

void wrep_phase_close(struct wrep *w)
{
	struct wrep_phase *p = &w->phase;

	pthread_mutex_lock(&p->lock);
	end_as(p, has_failed(p) ? WREP_PHASE_FAILED_CLOSING : WREP_PHASE_CLOSING);
	pthread_mutex_unlock(&p->lock);
}

/* ---- questions ------------------------------------------------------------------------------------- */

bool wrep_is_ready(struct wrep *w)
{
	struct wrep_phase *p = &w->phase;
	bool is;

	pthread_mutex_lock(&p->lock);
	is = p->state == WREP_PHASE_SERVING;
	pthread_mutex_unlock(&p->lock);
	return is;
}

bool wrep_opened(struct wrep *w)
{
	struct wrep_phase *p = &w->phase;
	bool is;

	pthread_mutex_lock(&p->lock);
	is = p->state != WREP_PHASE_OPENING;
	pthread_mutex_unlock(&p->lock);
	return is;
}

bool wrep_fetching(struct wrep *w)
{
	struct wrep_phase *p = &w->phase;
	bool is;

	pthread_mutex_lock(&p->lock);
	is = is_unfit(p);
	pthread_mutex_unlock(&p->lock);
	return is;
}

bool wrep_closing(struct wrep *w)
{
	struct wrep_phase *p = &w->phase;
	bool is;

	pthread_mutex_lock(&p->lock);
	is = is_closing(p);
	pthread_mutex_unlock(&p->lock);
	return is;
}

bool wrep_stopping(struct wrep *w)
{
	struct wrep_phase *p = &w->phase;
	bool is;

	pthread_mutex_lock(&p->lock);
	is = p->end != WREP_PHASE_RUNNING;
	pthread_mutex_unlock(&p->lock);
	return is;
}

bool wrep_goes_on(struct wrep *w)
{
	struct wrep_phase *p = &w->phase;
	bool is;

	pthread_mutex_lock(&p->lock);
	is = p->end == WREP_PHASE_RUNNING && !is_unfit(p);
	pthread_mutex_unlock(&p->lock);
	return is;
}

bool wrep_delivers(struct wrep *w)
{
	struct wrep_phase *p = &w->phase;
	bool is;

	pthread_mutex_lock(&p->lock);
	is = p->state != WREP_PHASE_OPENING && !is_unfit(p) && !has_failed(p);
	pthread_mutex_unlock(&p->lock);
	return is;
}
