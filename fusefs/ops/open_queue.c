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
#include "ops/pending.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "mount/fuse.h"
#include "mount/stop.h"
#include "node/log.h"
#include "node/process.h"

#define TICK_MS 100
#define AGAIN_MS 1000 /* so soon, a thread's next open is the same one */

static void interrupt(struct fsd_pend *pend)
{
	/* The reference keeps the op's memory for walrepl to look at, should it be done by now. */
	wrep_op_interrupt(pend->fs->wrep, &pend->op);
	fsd_pend_unref(pend);
}

static struct fsd_pend *unlist(struct fsd_pend *pend)
{
	struct fsd *fs = pend->fs;

	*(pend->prev ? &pend->prev->next : &fs->opens_first) = pend->next;
	*(pend->next ? &pend->next->prev : &fs->opens_last) = pend->prev;
	pend->next = pend->prev = NULL;
	pend->listed = false;
	fs->opens_count--;
	return pend;
}

/* `progress` is what wrep_progress() says now. opens_lock held. */
static void note_progress(struct fsd *fs, uint64_t progress, uint64_t now)
{
	if (fs->progress_ms && progress == fs->progress)
		return;
	fs->progress = progress;
	fs->progress_ms = now;
}

static bool has_waited(const struct fsd *fs, const struct fsd_pend *pend, uint64_t now)
{
	uint64_t from = fs->progress_ms;

	if (!pend->for_name && pend->since_ms > from)
		from = pend->since_ms;
	return now - from >= (pend->is_known ? fs->names_timeout_ms : fs->commit_timeout_ms);
}

static bool was_given_up(const struct fsd *fs, const struct fsd_pend *pend, uint64_t now)
{
	for (unsigned i = 0; i < FSD_GIVEN_UP; i++) {
		const struct fsd_given_up *g = &fs->given_up[i];

		if (g->tid == pend->tid && g->at_ms >= fs->progress_ms && now - g->at_ms < AGAIN_MS)
			return true;
	}
	return false;
}

/* opens_lock held. */
static void note_given_up(struct fsd *fs, const struct fsd_pend *pend, uint64_t now)
{
	fs->given_up[fs->given_up_count++ % FSD_GIVEN_UP] = (struct fsd_given_up){pend->tid, now};
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
	struct fsd_pend *oldest = NULL;
	bool ready = wrep_is_ready(fs->wrep), vain;
	uint64_t progress = ready ? 0 : wrep_progress(fs->wrep), now = rlog_clock_ms();

	pthread_mutex_lock(&fs->opens_lock);
	if (!ready)
		note_progress(fs, progress, now);
	pend->since_ms = now;
	vain = !ready && (has_waited(fs, pend, now) || was_given_up(fs, pend, now));
	if (vain) {
		pthread_mutex_unlock(&fs->opens_lock);
		return -ETIMEDOUT;
	}
	if (fs->opens_count >= FSD_OPENS_MAX && fs->uring) {
		oldest = unlist(fs->opens_first);
		atomic_fetch_add(&oldest->refs, 1);
	}
	pend->listed = true;
	pend->prev = fs->opens_last;
	*(pend->prev ? &pend->prev->next : &fs->opens_first) = pend;
	fs->opens_last = pend;
	fs->opens_count++;
	pthread_mutex_unlock(&fs->opens_lock);
	if (oldest)
		interrupt(oldest);
	return 0;
}

void fsd_opens_remove(struct fsd_pend *pend, int result)
{
	static struct fsd_log_limit limit;
	struct fsd *fs = pend->fs;
	const char *reason, *name = pend->name ? pend->name : "";

	pthread_mutex_lock(&fs->opens_lock);
	if (pend->listed)
		unlist(pend);
	pthread_mutex_unlock(&fs->opens_lock);
	reason = result == -ETIMEDOUT ? fsd_opens_reason(fs) : NULL;
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
	bool ready = wrep_is_ready(fs->wrep);
	uint64_t progress = ready ? 0 : wrep_progress(fs->wrep), now = rlog_clock_ms();
	size_t count = 0;

	pthread_mutex_lock(&fs->opens_lock);
	if (!ready)
		note_progress(fs, progress, now);
	looks = fs->opens_count ? calloc(fs->opens_count, sizeof(*looks)) : NULL;
	for (struct fsd_pend *pend = fs->opens_first; looks && pend; pend = pend->next) {
		atomic_fetch_add(&pend->refs, 1);
		looks[count].pend = pend;
		looks[count].late = !ready && has_waited(fs, pend, now);
		if (looks[count++].late)
			note_given_up(fs, pend, now);
	}
	pthread_mutex_unlock(&fs->opens_lock);

	/* One that ends meanwhile is interrupted in vain. */
	for (size_t i = 0; i < count; i++) {
		struct fsd_pend *pend = looks[i].pend;

		if (fsd_process_has_signal(pend->tid))
			wrep_op_interrupt(fs->wrep, &pend->op);
		else if (looks[i].late)
			wrep_op_time_out(fs->wrep, &pend->op);
		fsd_pend_unref(pend);
	}
	free(looks);
	return count ? TICK_MS : -1;
}

int fsd_wait_ready(struct fsd_pend *pend, void (*ready)(struct wrep_op *op, int result))
{
	struct fsd *fs = pend->fs;
	int rv;

	pend->op.done = ready;
	pend->tid = fuse_req_ctx(pend->req)->pid;
	pend->for_name = true;
	rv = fsd_opens_add(pend);
	if (rv)
		return rv;
	rv = wrep_wait_ready(fs->wrep, &pend->op);
	if (rv == WREP_PENDING)
		fsd_wake(fs); /* to look after it from now on */
	return rv;
}
