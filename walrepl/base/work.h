/* The work queue: what the applier has to do, in the order of the log.
 *
 * Whoever has work embeds `struct wrep_work` in a struct of its own, beside what it needs to do it, and pushes
 * that. The queue knows no kind of work.
 *
 * Each work names what it is about: *lanes*. A lane is a database or a directory, known by its id, which is the
 * index of the entry that made it; 0 is the top directory. Within a lane one work is done after the other, as
 * they were pushed. A work in several lanes is a barrier for these: it begins when it is the first in each, and
 * what is behind it in any of them waits until it is done. A work may be about everything: it waits for all that
 * is before it, and all that is behind waits for it.
 *
 *	pushed:         1:A  2:B  3:A+B  4:C  5:all  6:A
 *	lane A          1 ── 3 ───────────────┐  ┌── 6
 *	lane B             2 ── 3 ────────────┤5 │
 *	lane C                       4 ───────┘  ┘
 *
 * A *policy* picks from what its lanes allow. wrep_queue_in_log_order() lets no lane overtake another: the whole
 * queue is done one after the other, as one thread does it. wrep_queue_by_lanes() holds back only what a lane
 * holds back.
 */
#ifndef WALREPL_BASE_WORK_H
#define WALREPL_BASE_WORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct wrep;
struct wrep_work;
struct wrep_queue;

/* What can be done with a kind of work. No lock is held where it is not said otherwise. */
struct wrep_work_ops {
	const char *name;
	/* Do it. It may not push, nor take anything else from the queue, under a lock that a callback takes. */
	void (*run)(struct wrep *w, struct wrep_work *work);
	/* It is not going to be done, since the node stops, or is about to fetch: end whoever waits for it. The log
	 * has it. NULL: nobody waits. */
	void (*cancel)(struct wrep *w, struct wrep_work *work);
	/* After one of these, or instead: free it with all that it references. */
	void (*release)(struct wrep_work *work);
	/* May it be done now, while a work before it has to wait for something? NULL: never. The queue's lock held. */
	bool (*overtakes)(const struct wrep_work *work);
	void (*run_amid)(struct wrep *w, struct wrep_work *work); /* do it then; NULL: as `run` */
	/* A fetch replaces everything: what this is about will come again. NULL: nothing to be done. The queue's lock
	 * held. */
	void (*retire)(struct wrep_work *work);
	/* It does what the log says, or counts on all of that being done: not while a fetch is due. */
	bool follows_log;
	bool finish_on_close; /* it is done even when the node stops */
	bool is_no_progress;  /* it does not count for wrep_queue_taken() */
};

/* A work's place in a lane. The queue's own. */
struct wrep_place {
	uint64_t id;
	struct wrep_work *work;
	struct wrep_lane *lane;
	TAILQ_ENTRY(wrep_place) link;
};

/* Its owner makes it by wrep_work_make(), says what it is about, and fills in `bytes`; all other fields are the
 * queue's. */
struct wrep_work {
	const struct wrep_work_ops *ops;
	size_t bytes; /* of the entry that it keeps in memory */
	uint64_t sequence;
	bool running, about_all;
	unsigned place_count;
	struct wrep_place *places;
	TAILQ_ENTRY(wrep_work) link, all_link, overtaking_link;
};
TAILQ_HEAD(wrep_works, wrep_work);

/* A zeroed struct of `size` bytes, of which a struct wrep_work is the first field. Never fails. */
void *wrep_work_make(size_t size, const struct wrep_work_ops *ops);
void wrep_work_free(struct wrep_work *work); /* a `release` for one that references nothing */
/* It is about the database or directory `id`, too; twice is once. Never fails. */
void wrep_work_is_about(struct wrep_work *work, uint64_t id);
void wrep_work_is_about_all(struct wrep_work *work);
/* One that is in no queue: `release`. NULL: nothing. */
void wrep_work_drop(struct wrep_work *work);

/* May `work` begin? The queue's lock held. */
typedef bool wrep_queue_policy(const struct wrep_queue *q, const struct wrep_work *work);
wrep_queue_policy wrep_queue_in_log_order, wrep_queue_by_lanes;

/* `room`: something was taken after wrep_queue_is_full() had said so; called without a lock. NULL: no memory. */
struct wrep_queue *wrep_queue_new(wrep_queue_policy *policy, void (*room)(void *ctx), void *ctx);
void wrep_queue_free(struct wrep_queue *q); /* it is empty */

/* Append; takes `work`. Never fails, nor waits. [any thread] */
void wrep_queue_push(struct wrep_queue *q, struct wrep_work *work);
/* The oldest that may begin; waits for one. NULL: none came for `timeout_ms` (negative: for ever), or the queue is
 * closed and holds none that may begin. It stays in its lanes until wrep_queue_done(). */
struct wrep_work *wrep_queue_next(struct wrep_queue *q, int timeout_ms);
/* Serve what overtakes, of what is queued by now, one after the other. `serve` runs or cancels it. */
void wrep_queue_overtake(struct wrep_queue *q, void (*serve)(void *ctx, struct wrep_work *work),
			 void *ctx);
/* It was run, or cancelled: it leaves its lanes, and is released. */
void wrep_queue_done(struct wrep_queue *q, struct wrep_work *work);
/* Retire what is queued and not begun. */
void wrep_queue_retire(struct wrep_queue *q);

/* More than so many bytes: who pushes is to wait until there is room. False once it is closed. */
#define WREP_QUEUE_BYTES_MAX (64u << 20)
bool wrep_queue_is_full(struct wrep_queue *q);
/* Nobody is waited for any more. What is there, and what is pushed nevertheless, is to be taken yet. */
void wrep_queue_close(struct wrep_queue *q);
bool wrep_queue_is_closed(struct wrep_queue *q);
bool wrep_queue_holds(struct wrep_queue *q,
		      const char *name);	 /* one of that kind that has not begun? */
uint64_t wrep_queue_taken(struct wrep_queue *q); /* by wrep_queue_next(), so far */

#endif
