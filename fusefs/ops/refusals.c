/* Write requests that are refused.
 *
 * The kernel copies a write(2) into its page cache before it asks the daemon (fs/fuse/file.c,
 * fuse_fill_write_pages()), and other processes read it there from that moment on. When the answer is an error, the
 * kernel only marks these pages as not up to date. A process that has one of them mapped goes on reading
 * it, and SQLite would commit what it reads there with its own next change of that page. So a refusal
 * takes the bytes out of the cache, mappings included, before it is answered: who wrote never sees the error
 * while others can still read the bytes.
 *
 *      page   |      |      |      |   |
 *      write      [  whole, whole, part]     the kernel ends a request behind a page that is not up to date
 *             `------- open -------'`--- locked until the answer, unless it was up to date before
 *
 * The last page, if the write does not cover all of it, is locked until the answer when it was not up to date.
 * Then nobody reads it, and dropping it would wait for the answer. mincore(2) tells the two cases apart.
 *
 * Before the answer also because a page must not be dropped while another write to it is on its way to the daemon:
 * a read in between would bring the former content back into the cache, where it stayed. Until the answer
 * the writer has the kernel's lock of the file, and there is no other write. (Of a page that is written back from a
 * mapping the answer comes first: dropping it waits for that.)
 *
 * Dropping waits for a READ of the page that is on its way. That may wait for a place in a ring that refused
 * writes occupy. So no thread that serves requests, nor any that ends them, does it. One thread, the cleaner, drops and
 * answers, one request after the other. A request that it has not come to in LATE_MS another thread answers,
 * and the cleaner drops its pages when it comes to it.
 */
#include "ops/refusals.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "guarded.h"
#include "mount/clone.h"
#include "mount/session.h"
#include "node/log.h"
#include "ops/admission.h"
#include "ops/pending.h"

#define LATE_MS 1000
#define PAGE_BYTES 4096u

struct fsd_refusals {
	struct fsd *fs;
	pthread_t cleaner, answerer;
	pthread_mutex_t lock; /* a leaf; guards `answered` and `late_ns` in the queue, too */
	pthread_cond_t work;  /* for the cleaner */
	pthread_cond_t came;  /* for the answerer */
	bool stop GUARDED_BY(lock);
	STAILQ_HEAD(, fsd_pend)
	queue GUARDED_BY(lock); /* the first is the one that the cleaner is at */

	struct fsd_pend spare; /* for when there is no memory */
	_Atomic bool spare_used;
};

static void drop(struct fsd *fs, uint64_t ino, uint64_t off, uint64_t len)
{
	static struct fsd_log_limit limit;
	int rv = fsd_session_invalidate(fs->session, ino, off, len);

	/* ENOENT: the kernel has nothing of it. The others: it has lost all of it. */
	if (rv && rv != -ENOENT && rv != -ENOTCONN && rv != -ENODEV)
		fsd_log_limited(&limit, 'E',
				"cannot take a refused write out of the kernel's cache inode=%llu "
				"error=%s",
				(unsigned long long)ino, strerror(-rv));
}

/* How many bytes of it, from its beginning on, lie in pages that cannot be locked until the answer. */
static uint64_t open_bytes(const struct fsd_pend *pend)
{
	uint64_t end = pend->off + pend->size;
	uint64_t last;

	if (!pend->size)
		return 0;
	last = (end - 1) / PAGE_BYTES * PAGE_BYTES;
	if (end % PAGE_BYTES == 0 && pend->off <= last)
		return pend->size;
	return pend->off < last ? last - pend->off : 0;
}

/* Is the page at `off` in the cache, for everybody to read? -errno: not known. */
static int is_readable(struct fsd *fs, uint64_t ino, uint64_t off)
{
	unsigned char there = 0;
	int rv = 0, fd = fsd_clone_open_file(fs->clone, ino, O_RDONLY | O_CLOEXEC);
	void *page;

	if (fd < 0)
		return fd;
	page = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd, (off_t)off);
	if (page == MAP_FAILED || mincore(page, PAGE_BYTES, &there))
		rv = -errno;
	if (page != MAP_FAILED)
		munmap(page, PAGE_BYTES);
	close(fd);
	return rv ? rv : there & 1;
}

/* Answer it, unless that is done. */
static void answer(struct fsd_refusals *r, struct fsd_pend *pend)
{
	bool mine;

	pthread_mutex_lock(&r->lock);
	mine = !pend->answered;
	pend->answered = true;
	pthread_mutex_unlock(&r->lock);
	if (mine)
		fuse_reply_err(pend->req, pend->error);
}

static void clean(struct fsd_refusals *r, struct fsd_pend *pend)
{
	struct fsd *fs = r->fs;
	const uint64_t open = open_bytes(pend), last = pend->off + open;
	int readable = 0;

	if (!pend->size || pend->written_back) {
		drop(fs, pend->ino, pend->off, pend->size);
		answer(r, pend);
		return;
	}
	if (open)
		drop(fs, pend->ino, pend->off, open);
	if (open < pend->size)
		readable = is_readable(fs, pend->ino, last / PAGE_BYTES * PAGE_BYTES);
	if (readable > 0)
		drop(fs, pend->ino, last, pend->size - open);
	answer(r, pend);
	/* It cannot be opened: its name means another file by now, or everything ends. No write to it is
	 * taken any more. */
	if (readable < 0)
		drop(fs, pend->ino, last, pend->size - open);
}

static void *cleaner_main(void *arg)
{
	struct fsd_refusals *r = arg;
	struct fsd_pend *pend;

	prctl(PR_SET_NAME, "fsd-cleaner");
	fsd_admission_set_cleaner(r->fs, gettid());
	pthread_mutex_lock(&r->lock);
	for (;;) {
		pend = STAILQ_FIRST(&r->queue);
		if (pend) {
			pthread_mutex_unlock(&r->lock);
			clean(r, pend);
			pthread_mutex_lock(&r->lock);
			STAILQ_REMOVE_HEAD(&r->queue, refused);
			pthread_mutex_unlock(&r->lock);
			fsd_pend_unref(pend);
			pthread_mutex_lock(&r->lock);
		} else if (r->stop) {
			break;
		} else {
			pthread_cond_wait(&r->work, &r->lock);
		}
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

/* The oldest that is not answered. */
static struct fsd_pend *first_unanswered(struct fsd_refusals *r) REQUIRES(r->lock)
{
	struct fsd_pend *pend;

	STAILQ_FOREACH(pend, &r->queue, refused)
		if (!pend->answered)
			break;
	return pend;
}

static void *answerer_main(void *arg)
{
	struct fsd_refusals *r = arg;
	struct fsd_pend *pend;

	prctl(PR_SET_NAME, "fsd-answerer");
	pthread_mutex_lock(&r->lock);
	while (!r->stop || !STAILQ_EMPTY(&r->queue)) {
		pend = first_unanswered(r);
		if (!pend) {
			pthread_cond_wait(&r->came, &r->lock);
		} else if (rlog_clock_ns() < pend->late_ns) {
			rlog_cond_wait(&r->came, &r->lock, pend->late_ns);
		} else {
			pend->answered = true;
			atomic_fetch_add(&pend->refs, 1);
			pthread_mutex_unlock(&r->lock);
			fuse_reply_err(pend->req, pend->error);
			fsd_pend_unref(pend);
			pthread_mutex_lock(&r->lock);
		}
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

int fsd_refusals_start(struct fsd *fs)
{
	struct fsd_refusals *r = calloc(1, sizeof(*r));
	int rv;

	if (!r)
		return -ENOMEM;
	r->fs = fs;
	STAILQ_INIT(&r->queue);
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->work, NULL);
	pthread_cond_init(&r->came, NULL);
	rv = -pthread_create(&r->cleaner, NULL, cleaner_main, r);
	if (!rv) {
		rv = -pthread_create(&r->answerer, NULL, answerer_main, r);
		if (!rv) {
			fs->refusals = r;
			return 0;
		}
		pthread_mutex_lock(&r->lock);
		r->stop = true;
		pthread_cond_signal(&r->work);
		pthread_mutex_unlock(&r->lock);
		pthread_join(r->cleaner, NULL);
	}
	free(r);
	return rv;
}

void fsd_refusals_stop(struct fsd *fs)
{
	struct fsd_refusals *r = fs->refusals;
	bool stopped;

	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	stopped = r->stop;
	r->stop = true;
	pthread_cond_signal(&r->work);
	pthread_mutex_unlock(&r->lock);
	if (stopped)
		return;
	pthread_join(r->cleaner, NULL);
	pthread_mutex_lock(&r->lock);
	pthread_cond_signal(&r->came);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->answerer, NULL);
	/* `r` stays: a request may still come, and find it stopped. */
}

void fsd_refusals_push(struct fsd_pend *pend, int error)
{
	struct fsd_refusals *r = pend->fs->refusals;
	bool stop;

	pend->error = error;
	pend->answered = pend->written_back;
	pend->late_ns = rlog_clock_ns() + LATE_MS * RLOG_NS_PER_MS;
	if (pend->answered)
		fuse_reply_err(pend->req, error);
	pthread_mutex_lock(&r->lock);
	stop = r->stop;
	if (!stop) {
		STAILQ_INSERT_TAIL(&r->queue, pend, refused);
		pthread_cond_signal(&r->work);
		/* Also behind others: the cleaner may be at one that is answered long since, waiting for the
		 * page that this one keeps locked. */
		pthread_cond_signal(&r->came);
	}
	pthread_mutex_unlock(&r->lock);
	if (!stop)
		return;
	if (!pend->answered)
		fuse_reply_err(pend->req, error);
	fsd_pend_unref(pend);
}

static void spare_is_unused(struct fsd_pend *pend)
{
	atomic_store(&pend->fs->refusals->spare_used, false);
}

struct fsd_pend *fsd_refusals_spare(struct fsd *fs, fuse_req_t req)
{
	struct fsd_refusals *r = fs->refusals;

	if (atomic_exchange(&r->spare_used, true))
		return NULL;
	fsd_pend_init(&r->spare, fs, req);
	r->spare.unused = spare_is_unused;
	return &r->spare;
}
