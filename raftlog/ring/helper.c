/* The helper thread. */
#include "ring/helper.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "guarded.h"

STAILQ_HEAD(jobs, rlog_job);

struct rlog_helper {
	/* const */
	pthread_t thread;
	void (*wake)(void *ctx);
	void *ctx;

	pthread_mutex_t lock;
	pthread_cond_t asked;
	struct jobs asked_for GUARDED_BY(lock);
	struct jobs have_run GUARDED_BY(lock);
	bool stop GUARDED_BY(lock);
};

/* The next job; NULL: there is none, and none will come. */
static struct rlog_job *next_job(struct rlog_helper *h)
{
	struct rlog_job *job;

	pthread_mutex_lock(&h->lock);
	while (STAILQ_EMPTY(&h->asked_for) && !h->stop)
		pthread_cond_wait(&h->asked, &h->lock);
	job = STAILQ_FIRST(&h->asked_for);
	if (job != NULL)
		STAILQ_REMOVE_HEAD(&h->asked_for, entry);
	pthread_mutex_unlock(&h->lock);
	return job;
}

static void *helper_main(void *arg)
{
	struct rlog_helper *h = arg;
	struct rlog_job *job;

	while ((job = next_job(h)) != NULL) {
		job->run(job);
		pthread_mutex_lock(&h->lock);
		STAILQ_INSERT_TAIL(&h->have_run, job, entry);
		pthread_mutex_unlock(&h->lock);
		h->wake(h->ctx);
	}
	return NULL;
}

/* Nobody else knows it yet. */
UNCHECKED static void init_helper(struct rlog_helper *h)
{
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->asked, NULL);
	STAILQ_INIT(&h->asked_for);
	STAILQ_INIT(&h->have_run);
}

static void destroy(struct rlog_helper *h)
{
	pthread_cond_destroy(&h->asked);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

int rlog_helper_open(struct rlog_helper **out, void (*wake)(void *ctx), void *ctx)
{
	struct rlog_helper *h = calloc(1, sizeof *h);
	int rv;

	if (h == NULL)
		return -ENOMEM;
	h->wake = wake;
	h->ctx = ctx;
	init_helper(h);
	rv = -pthread_create(&h->thread, NULL, helper_main, h);
	if (rv != 0) {
		destroy(h);
		return rv;
	}
	*out = h;
	return 0;
}

void rlog_helper_close(struct rlog_helper *h)
{
	if (h == NULL)
		return;
	pthread_mutex_lock(&h->lock);
	h->stop = true;
	pthread_cond_signal(&h->asked);
	pthread_mutex_unlock(&h->lock);
	pthread_join(h->thread, NULL);
	rlog_helper_finish(h);
	destroy(h);
}

void rlog_helper_ask(struct rlog_helper *h, struct rlog_job *job)
{
	pthread_mutex_lock(&h->lock);
	STAILQ_INSERT_TAIL(&h->asked_for, job, entry);
	pthread_cond_signal(&h->asked);
	pthread_mutex_unlock(&h->lock);
}

bool rlog_helper_has_done(struct rlog_helper *h)
{
	bool any;

	pthread_mutex_lock(&h->lock);
	any = !STAILQ_EMPTY(&h->have_run);
	pthread_mutex_unlock(&h->lock);
	return any;
}

void rlog_helper_finish(struct rlog_helper *h)
{
	struct jobs jobs = STAILQ_HEAD_INITIALIZER(jobs);
	struct rlog_job *job;

	pthread_mutex_lock(&h->lock);
	STAILQ_CONCAT(&jobs, &h->have_run);
	pthread_mutex_unlock(&h->lock);
	while ((job = STAILQ_FIRST(&jobs)) != NULL) {
		STAILQ_REMOVE_HEAD(&jobs, entry);
		job->done(job); /* may free it */
	}
}
