/* Opens that wait until the node has caught up, lookups of names that it does not know yet among them. They
 * must neither hang a process that somebody wants to end, nor starve other requests.
 *
 * Catching up takes as long as it takes, but only where it goes on: a node that has no majority to hear from
 * never comes to an end. So what waits is given up, with ETIMEDOUT, once the node has made no progress for
 * --commit-timeout. An open's time counts from when it began to wait, so that a program started on a node that
 * boots before the others waits for them; but the next open of a thread whose last was just given up is answered
 * at once: SQLite tries it again, for reading only. A name's time counts from the last progress: the kernel
 * keeps the directory locked while it asks for one that an open with O_CREAT may make, and `ls` would wait with
 * it. It must not be ENOENT, on which SQLite makes a new database.
 *
 * A name that the node knows from before it started, and what a directory held then, it tells as soon as it does
 * not look as if it would know better in a moment: after some election timeouts without progress. An open of
 * such a name waits, and finds what the others have made of it.
 *
 * libfuse cannot tell of interrupted requests when they come over io_uring, so a tick looks, while
 * opens wait and ten times a second, whether their callers have a signal to handle: SigPnd and
 * ShdPnd in /proc/TID/status, less what is blocked.
 *
 * Over io_uring each waiting request occupies one of its ring's places. When more opens wait than
 * FSD_OPENS_MAX, the oldest is answered EINTR, on which SQLite just tries again: else the applier's
 * own open through the mount, without which the node never catches up, would find no place.
 */
#include "ops/open_queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "guarded.h"
#include "node/log.h"
#include "node/process.h"
#include "node/stop.h"
#include "ops/inode.h"
#include "ops/pending.h"

#define TICK_MS 100
#define AGAIN_MS 1000 /* so soon, a thread's next open is the same one */
#define GIVEN_UP 16

/* Whose open was given up, and when. */
struct given_up {
	pid_t tid;
	uint64_t at_ms;
};

TAILQ_HEAD(waiting, fsd_pend);

struct fsd_open_queue {
	pthread_mutex_t lock;
	struct waiting waiting GUARDED_BY(lock); /* oldest first */
	unsigned count GUARDED_BY(lock);
	uint64_t progress GUARDED_BY(lock);    /* wrep_progress() ... */
	uint64_t progress_ms GUARDED_BY(lock); /* ... and when it was last seen to change */
	struct given_up given_up[GIVEN_UP] GUARDED_BY(lock); /* a ring, the last ones */
	unsigned given_up_count GUARDED_BY(lock);
};

struct fsd_open_queue *fsd_open_queue_new(void)
{
	struct fsd_open_queue *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	pthread_mutex_init(&q->lock, NULL);
	TAILQ_INIT(&q->waiting);
	return q;
}

static void interrupt(struct fsd_pend *pend)
{
	/* The reference keeps the op's memory for walrepl to look at, should it be done by now. */
	wrep_op_interrupt(pend->fs->wrep, &pend->op);
	fsd_pend_unref(pend);
}

static void unlist(struct fsd_open_queue *q, struct fsd_pend *pend) REQUIRES(q->lock)
{
	TAILQ_REMOVE(&q->waiting, pend, waiting);
	pend->listed = false;
	q->count--;
}

/* `progress` is what wrep_progress() says now. */
static void note_progress(struct fsd_open_queue *q, uint64_t progress, uint64_t now)
	REQUIRES(q->lock)
{
	if (q->progress_ms && progress == q->progress)
		return;
	q->progress = progress;
	q->progress_ms = now;
}

static bool has_waited(const struct fsd_open_queue *q, const struct fsd_pend *pend, uint64_t now)
	REQUIRES(q->lock)
{
	const struct fsd *fs = pend->fs;
	uint64_t from = q->progress_ms;

	if (!pend->for_name && pend->since_ms > from)
		from = pend->since_ms;
	return now - from >= (pend->is_known ? fs->names_timeout_ms : fs->commit_timeout_ms);
}

static bool was_given_up(const struct fsd_open_queue *q, const struct fsd_pend *pend, uint64_t now)
	REQUIRES(q->lock)
{
	for (unsigned i = 0; i < GIVEN_UP; i++) {
		const struct given_up *g = &q->given_up[i];

		if (g->tid == pend->tid && g->at_ms >= q->progress_ms && now - g->at_ms < AGAIN_MS)
			return true;
	}
	return false;
}

static void note_given_up(struct fsd_open_queue *q, const struct fsd_pend *pend, uint64_t now)
	REQUIRES(q->lock)
{
	q->given_up[q->given_up_count++ % GIVEN_UP] = (struct given_up){pend->tid, now};
}

const char *fsd_opens_reason(struct fsd *fs)
{
	struct wrep_health health;

	wrep_health(fs->wrep, &health);
	if (health.state == WREP_SERVING)
		return NULL;
	if (health.leader_id)
		return "it gets what it lacks from the leader; where that does not go on, see the logs of both";
	return "it knows of no leader, which takes a majority of the voters: start the others, or, if they are "
	       "lost for good, see 'dqlitefs recover'";
}

int fsd_opens_add(struct fsd_pend *pend)
{
	struct fsd *fs = pend->fs;
	struct fsd_open_queue *q = fs->open_queue;
	struct fsd_pend *oldest = NULL;
	bool ready = wrep_is_ready(fs->wrep), vain;
	uint64_t progress = ready ? 0 : wrep_progress(fs->wrep), now = rlog_clock_ms();

	pthread_mutex_lock(&q->lock);
	if (!ready)
		note_progress(q, progress, now);
	pend->since_ms = now;
	vain = !ready && (has_waited(q, pend, now) || was_given_up(q, pend, now));
	if (vain) {
		pthread_mutex_unlock(&q->lock);
		return -ETIMEDOUT;
	}
	if (q->count >= FSD_OPENS_MAX && fs->uring) {
		oldest = TAILQ_FIRST(&q->waiting);
		unlist(q, oldest);
		atomic_fetch_add(&oldest->refs, 1);
	}
	pend->listed = true;
	TAILQ_INSERT_TAIL(&q->waiting, pend, waiting);
	q->count++;
	pthread_mutex_unlock(&q->lock);
	if (oldest)
		interrupt(oldest);
	return 0;
}

void fsd_opens_remove(struct fsd_pend *pend, int result)
{
	static struct fsd_log_limit limit;
	struct fsd_open_queue *q = pend->fs->open_queue;
	const char *reason, *name = pend->name ? pend->name : "";

	pthread_mutex_lock(&q->lock);
	if (pend->listed)
		unlist(q, pend);
	pthread_mutex_unlock(&q->lock);
	reason = result == -ETIMEDOUT ? fsd_opens_reason(pend->fs) : NULL;
	if (!reason)
		return;
	if (pend->inode)
		name = wrep_file_name(pend->inode->file);
	fsd_log_limited(&limit, 'W', "%s failed, since this node has not caught up: %s name=%s",
			pend->for_name ? "looking up a name" : "opening a file", reason, name);
}

int fsd_opens_tick(struct fsd *fs)
{
	struct look {
		struct fsd_pend *pend;
		bool late;
	} * looks;
	struct fsd_open_queue *q = fs->open_queue;
	struct fsd_pend *pend;
	bool ready = wrep_is_ready(fs->wrep);
	uint64_t progress = ready ? 0 : wrep_progress(fs->wrep), now = rlog_clock_ms();
	size_t count = 0;

	pthread_mutex_lock(&q->lock);
	if (!ready)
		note_progress(q, progress, now);
	looks = q->count ? calloc(q->count, sizeof(*looks)) : NULL;
	TAILQ_FOREACH(pend, &q->waiting, waiting) {
		if (!looks)
			break;
		atomic_fetch_add(&pend->refs, 1);
		looks[count].pend = pend;
		looks[count].late = !ready && has_waited(q, pend, now);
		if (looks[count++].late)
			note_given_up(q, pend, now);
	}
	pthread_mutex_unlock(&q->lock);

	/* One that ends meanwhile is interrupted in vain. */
	for (size_t i = 0; i < count; i++) {
		pend = looks[i].pend;
		if (fsd_process_has_signal(pend->tid))
			wrep_op_interrupt(fs->wrep, &pend->op);
		else if (looks[i].late)
			wrep_op_time_out(fs->wrep, &pend->op);
		fsd_pend_unref(pend);
	}
	free(looks);
	return count ? TICK_MS : -1;
}

int fsd_wait_ready(struct fsd_pend *pend)
{
	struct fsd *fs = pend->fs;
	int rv;

	pend->for_name = true;
	rv = fsd_opens_add(pend);
	if (rv)
		return rv;
	rv = wrep_wait_ready(fs->wrep, &pend->op);
	if (rv == WREP_PENDING)
		fsd_stop_wake(fs->stop); /* to look after it from now on */
	return rv;
}
