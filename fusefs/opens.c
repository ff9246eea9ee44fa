/* Opens that wait until the node has caught up: unlike a commit they have no time limit, so they
 * must neither hang a process that somebody wants to end, nor starve other requests.
 *
 * libfuse cannot tell of interrupted requests when they come over io_uring, so a tick looks, while
 * opens wait and ten times a second, whether their callers have a signal to handle: SigPnd and
 * ShdPnd in /proc/TID/status, less what is blocked.
 *
 * Over io_uring each waiting request occupies one of its ring's places. When more opens wait than
 * FSD_OPENS_MAX, the oldest is answered EINTR, on which SQLite just tries again: else the applier's
 * own open through the mount, without which the node never catches up, would find no place.
 */
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include <fuse_lowlevel.h>

#include "opens.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK_MS 100

struct fsd_pend *fsd_pend_new(struct fsd *fs, struct fuse_req *req)
{
	struct fsd_pend *pend = calloc(1, sizeof(*pend));

	if (pend) {
		pend->fs = fs;
		pend->req = req;
		atomic_init(&pend->refs, 1);
	}
	return pend;
}

void fsd_pend_unref(struct fsd_pend *pend)
{
	if (atomic_fetch_sub(&pend->refs, 1) != 1)
		return;
	free(pend->name);
	free(pend);
}

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

void fsd_opens_add(struct fsd_pend *pend)
{
	struct fsd *fs = pend->fs;
	struct fsd_pend *oldest = NULL;

	pthread_mutex_lock(&fs->opens_lock);
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
}

void fsd_opens_remove(struct fsd_pend *pend)
{
	struct fsd *fs = pend->fs;

	pthread_mutex_lock(&fs->opens_lock);
	if (pend->listed)
		unlist(pend);
	pthread_mutex_unlock(&fs->opens_lock);
}

/* Has the thread a signal that it does not block? A thread that is gone counts as one. */
static bool signal_pending(pid_t tid)
{
	unsigned long long pending = 0, blocked = 0, mask;
	char path[64], line[256];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	file = fopen(path, "re");
	if (!file)
		return errno == ENOENT; /* and not for want of a descriptor */
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "SigPnd: %llx", &mask) == 1 ||
		    sscanf(line, "ShdPnd: %llx", &mask) == 1)
			pending |= mask;
		else if (sscanf(line, "SigBlk: %llx", &mask) == 1)
			blocked = mask;
	}
	fclose(file);
	return (pending & ~blocked) != 0;
}

int fsd_opens_tick(struct fsd *fs)
{
	struct fsd_pend **waiting, *pend;
	size_t count = 0;

	pthread_mutex_lock(&fs->opens_lock);
	waiting = fs->opens_count ? calloc(fs->opens_count, sizeof(*waiting)) : NULL;
	for (pend = fs->opens_first; waiting && pend; pend = pend->next) {
		atomic_fetch_add(&pend->refs, 1);
		waiting[count++] = pend;
	}
	pthread_mutex_unlock(&fs->opens_lock);

	/* One that ends meanwhile is interrupted in vain. */
	for (size_t i = 0; i < count; i++) {
		if (signal_pending(waiting[i]->tid))
			interrupt(waiting[i]);
		else
			fsd_pend_unref(waiting[i]);
	}
	free(waiting);
	return count ? TICK_MS : -1;
}

int fsd_wait_ready(struct fsd_pend *pend, void (*ready)(struct wrep_op *op, int result))
{
	struct fsd *fs = pend->fs;
	int rv;

	pend->op.done = ready;
	pend->tid = fuse_req_ctx(pend->req)->pid;
	fsd_opens_add(pend);
	rv = wrep_wait_ready(fs->wrep, &pend->op);
	if (rv == WREP_PENDING)
		fsd_wake(fs); /* to look after it from now on */
	return rv;
}
