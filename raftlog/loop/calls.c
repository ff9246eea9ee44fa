/* Threads that wait for something that only the loop can do. */
#include "loop/calls.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "guarded.h"

TAILQ_HEAD(call_list, rlog_call);

struct rlog_calls {
	/* const */
	struct rlog *l;
	void (*wake)(void *l);

	/* `ended` and `result` of each call are guarded by it, too */
	pthread_mutex_t lock;
	pthread_cond_t some_ended;
	struct call_list come GUARDED_BY(lock);
	bool closed GUARDED_BY(lock);

	struct call_list taken; /* the loop's */
};

/* Nobody else knows it yet. */
UNCHECKED static void init_calls(struct rlog_calls *calls)
{
	pthread_mutex_init(&calls->lock, NULL);
	pthread_cond_init(&calls->some_ended, NULL);
	TAILQ_INIT(&calls->come);
	TAILQ_INIT(&calls->taken);
}

int rlog_calls_open(struct rlog_calls **out, struct rlog *l, void (*wake)(void *l))
{
	struct rlog_calls *calls = calloc(1, sizeof *calls);

	if (calls == NULL)
		return -ENOMEM;
	calls->l = l;
	calls->wake = wake;
	init_calls(calls);
	*out = calls;
	return 0;
}

void rlog_calls_free(struct rlog_calls *calls)
{
	if (calls == NULL)
		return;
	pthread_cond_destroy(&calls->some_ended);
	pthread_mutex_destroy(&calls->lock);
	free(calls);
}

static bool begin(struct rlog_calls *calls, struct rlog_call *call)
{
	bool begun;

	call->ended = false;
	pthread_mutex_lock(&calls->lock);
	begun = !calls->closed;
	if (begun)
		TAILQ_INSERT_TAIL(&calls->come, call, entry);
	pthread_mutex_unlock(&calls->lock);
	return begun;
}

int rlog_calls_wait(struct rlog_calls *calls, struct rlog_call *call)
{
	if (!begin(calls, call))
		return -EIO;
	calls->wake(calls->l);
	pthread_mutex_lock(&calls->lock);
	while (!call->ended)
		pthread_cond_wait(&calls->some_ended, &calls->lock);
	pthread_mutex_unlock(&calls->lock);
	return call->result;
}

/* ---- the loop's side ---------------------------------------------------------------------- */

static void end(struct rlog_calls *calls, struct rlog_call *call, int result)
{
	TAILQ_REMOVE(&calls->taken, call, entry);
	pthread_mutex_lock(&calls->lock);
	call->result = result;
	call->ended = true;
	pthread_cond_broadcast(&calls->some_ended);
	pthread_mutex_unlock(&calls->lock);
}

static void take(struct rlog_calls *calls)
{
	pthread_mutex_lock(&calls->lock);
	TAILQ_CONCAT(&calls->taken, &calls->come, entry);
	pthread_mutex_unlock(&calls->lock);
}

bool rlog_calls_have_come(struct rlog_calls *calls)
{
	bool any;

	pthread_mutex_lock(&calls->lock);
	any = !TAILQ_EMPTY(&calls->come);
	pthread_mutex_unlock(&calls->lock);
	return any;
}

void rlog_calls_turn(struct rlog_calls *calls)
{
	struct rlog_call *call, *next;

	take(calls);
	for (call = TAILQ_FIRST(&calls->taken); call != NULL; call = next) {
		int rv = call->turn(calls->l, call);

		next = TAILQ_NEXT(call, entry);
		if (rv != RLOG_CALL_AGAIN)
			end(calls, call, rv);
	}
}

void rlog_calls_late(struct rlog_calls *calls)
{
	struct rlog_call *call, *next;

	for (call = TAILQ_FIRST(&calls->taken); call != NULL; call = next) {
		int rv = call->late != NULL ? call->late(calls->l, call) : RLOG_CALL_AGAIN;

		next = TAILQ_NEXT(call, entry);
		if (rv != RLOG_CALL_AGAIN)
			end(calls, call, rv);
	}
}

uint64_t rlog_calls_deadline(const struct rlog_calls *calls)
{
	const struct rlog_call *call;
	uint64_t at = UINT64_MAX;

	TAILQ_FOREACH (call, &calls->taken, entry)
		if (call->until_ms != 0 && call->until_ms < at)
			at = call->until_ms;
	return at;
}

void rlog_calls_end(struct rlog_calls *calls)
{
	while (!TAILQ_EMPTY(&calls->taken))
		end(calls, TAILQ_FIRST(&calls->taken), -EIO);
}

void rlog_calls_close(struct rlog_calls *calls)
{
	pthread_mutex_lock(&calls->lock);
	calls->closed = true;
	pthread_mutex_unlock(&calls->lock);
	take(calls);
	rlog_calls_end(calls);
}
