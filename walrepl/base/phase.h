/* How far this node has come, and whether it goes on. Any thread may ask, under any lock: its own is a leaf.
 *
 *	OPENING ──→ CATCHING_UP ──→ SERVING              RUNNING ──→ FAILED
 *	   │             │  ↑          │                    │           │
 *	   ↓             ↓  │          ↓                    ↓           ↓
 *	UNFIT ←───────────  │  ────────┘                 CLOSING ──→ FAILED_CLOSING
 *	   └───────→ FETCHING
 */
#ifndef WALREPL_BASE_PHASE_H
#define WALREPL_BASE_PHASE_H

#include <pthread.h>
#include <stdbool.h>
#include "guarded.h"

struct wrep;

enum wrep_phase_state {
	WREP_PHASE_OPENING, /* wrep_open() has not put everything in its place: nothing is delivered */
	WREP_PHASE_CATCHING_UP, /* entries are applied; names and content may be old */
	WREP_PHASE_SERVING, /* everything up to the leader's commit index at first contact is here, and sound */
	WREP_PHASE_UNFIT, /* a fetch is due: nothing is delivered any more, nor begun of what is queued */
	WREP_PHASE_FETCHING, /* the applier is at it, and uses the log */
};

enum wrep_phase_end {
	WREP_PHASE_RUNNING,
	WREP_PHASE_FAILED, /* an entry was passed over, or a file lacks something: nothing is delivered any more */
	WREP_PHASE_CLOSING, /* what raftlog still delivers is judged, but not applied */
	WREP_PHASE_FAILED_CLOSING,
};

struct wrep_phase {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum wrep_phase_state state GUARDED_BY(lock);
	enum wrep_phase_end end GUARDED_BY(lock);
};

void wrep_phase_init(struct wrep_phase *p);
void wrep_phase_destroy(struct wrep_phase *p);

/* wrep_open() has put everything in its place. */
void wrep_phase_opened(struct wrep *w);
void wrep_phase_wait_opened(struct wrep *w); /* or until the node stops */
/* It has caught up. False: a fetch is due instead. */
bool wrep_phase_serve(struct wrep *w);
/* Can a fetch become due? Not while one is, nor when the node stops. */
bool wrep_phase_can_be_unfit(struct wrep *w);
bool wrep_phase_unfit(struct wrep *w); /* it is now; false: it cannot */
bool wrep_phase_fetch(struct wrep *w); /* the applier begins; false: the node stops */
void wrep_phase_fetched(struct wrep *w, bool is_fit); /* and ends */
void wrep_phase_wait_fetched(
	struct wrep *w);	      /* until it does, if it has begun; the node is closing */
bool wrep_phase_fail(struct wrep *w); /* false: it had failed before */
void wrep_phase_close(struct wrep *w);

/* (Has it caught up? wrep_is_ready().) */
bool wrep_opened(struct wrep *w);
bool wrep_fetching(struct wrep *w); /* a fetch is due, or goes on: what is queued comes again */
bool wrep_closing(struct wrep *w);
bool wrep_stopping(struct wrep *w); /* it is closing, or has failed */
bool wrep_goes_on(struct wrep *w);  /* neither fetching nor stopping */
bool wrep_delivers(
	struct wrep *w); /* entries may be judged: it is opened, fit, and has not failed */

#endif
