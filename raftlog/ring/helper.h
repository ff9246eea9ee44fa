/* The helper thread: what may take long and needs no state of the loop, as making the next log segment, or
 * resolving a host name. */
#ifndef RAFTLOG_HELPER_H
#define RAFTLOG_HELPER_H

#include <stdbool.h>
#include <sys/queue.h>

struct rlog_helper;

/* Something slow: `run` on the helper thread, one after the other, then `done` on the loop thread. */
struct rlog_job {
	STAILQ_ENTRY(rlog_job) entry;
	void (*run)(struct rlog_job *job);
	void (*done)(struct rlog_job *job);
};

/* `wake` is called on the helper thread, without a lock, when a job has run. 0 or -errno. */
int rlog_helper_open(struct rlog_helper **out, void (*wake)(void *ctx), void *ctx);
/* Runs what was asked for, and ends the thread; then calls `done` of all jobs. The loop has ended: the caller
 * stands in for it. NULL is allowed. */
void rlog_helper_close(struct rlog_helper *h);

/* [loop] */
void rlog_helper_ask(struct rlog_helper *h, struct rlog_job *job);
bool rlog_helper_has_done(struct rlog_helper *h); /* has a job run? */
void rlog_helper_finish(struct rlog_helper *h);	  /* call `done` of those that have */

#endif
