/* Threads that wait for something that only the loop can do. */
#ifndef RAFTLOG_CALLS_H
#define RAFTLOG_CALLS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct rlog;
struct rlog_calls;

/* One thread's, on its stack: it sets the two functions. They run on the loop, and return the result, or
 * RLOG_CALL_AGAIN: then they are called in the next turn once more. */
#define RLOG_CALL_AGAIN 1
struct rlog_call {
	/* Once a turn, before the server's. */
	int (*turn)(struct rlog *l, struct rlog_call *call);
	/* Once a turn, when the status has been published: who is told something finds it there. May be NULL. */
	int (*late)(struct rlog *l, struct rlog_call *call);
	/* The next turn comes then at the latest; 0: it comes when it comes. The two functions may set it. */
	uint64_t until_ms;
	/* private to calls.c */
	TAILQ_ENTRY(rlog_call) entry;
	bool ended;
	int result;
};

/* `wake` is called, without a lock, when a call has come. 0 or -errno. */
int rlog_calls_open(struct rlog_calls **out, struct rlog *l, void (*wake)(void *l));
void rlog_calls_free(struct rlog_calls *calls); /* nobody waits; NULL is allowed */

/* Have the loop do it, and wait for the result. -EIO when the loop has ended. [any thread but the loop] */
int rlog_calls_wait(struct rlog_calls *calls, struct rlog_call *call);

/* [loop] */
bool rlog_calls_have_come(struct rlog_calls *calls); /* since the last turn */
void rlog_calls_turn(struct rlog_calls *calls);
void rlog_calls_late(struct rlog_calls *calls);
uint64_t rlog_calls_deadline(const struct rlog_calls *calls);
/* End all that were taken with -EIO: the loop ends. */
void rlog_calls_end(struct rlog_calls *calls);
/* It has ended: those that have come meanwhile, and all that still come, end so, too. */
void rlog_calls_close(struct rlog_calls *calls);

#endif
