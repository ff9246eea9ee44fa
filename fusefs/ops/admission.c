#include "ops/admission.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct fsd_admission {
	_Atomic enum fsd_admits admits;
	_Atomic unsigned inside;	  /* requests that have entered */
	_Atomic unsigned inside_to_write; /* those of them that may change something */
	_Atomic pid_t applier; /* FSD_ADMITS_READING: the thread that may; walrepl may be gone */
	_Atomic pid_t cleaner;
	pthread_mutex_t lock; /* of `left` alone */
	pthread_cond_t left;  /* once not all are admitted: the last one inside has left */
};

struct fsd_admission *fsd_admission_new(void)
{
	struct fsd_admission *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->left, NULL);
	return a;
}

struct fsd *fsd_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* The daemon's own applier, and its cleaner (refusals.c), reach their files through the mount, too. */
bool fsd_is_internal(struct fsd *fs, fuse_req_t req)
{
	pid_t tid = fuse_req_ctx(req)->pid;

	return tid == wrep_applier_tid(fs->wrep) || tid == atomic_load(&fs->admission->cleaner);
}

void fsd_admission_set_cleaner(struct fsd *fs, pid_t tid)
{
	atomic_store(&fs->admission->cleaner, tid);
}

static _Thread_local bool is_writing; /* this thread is inside, and entered to write */

/* A handle knows who opened it; otherwise the caller is asked, which needs walrepl, so only once inside. */
static bool enter(struct fsd *fs, fuse_req_t req, bool internal, bool to_write)
{
	static _Thread_local bool prepared;
	struct fsd_admission *a = fs->admission;
	enum fsd_admits admits;

	if (!prepared) {
		/* libfuse ends its ring threads with pthread_cancel(): not inside a handler. */
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		prepared = true;
	}
	is_writing = to_write;
	atomic_fetch_add(&a->inside, 1);
	if (to_write)
		atomic_fetch_add(&a->inside_to_write, 1);
	admits = atomic_load(&a->admits);
	if (admits == FSD_ADMITS_ALL ||
	    (admits == FSD_ADMITS_READING &&
	     (!to_write || internal || fuse_req_ctx(req)->pid == atomic_load(&a->applier))))
		return true;
	fsd_leave(fs);
	return false;
}

bool fsd_enter_as(struct fsd *fs, fuse_req_t req, bool internal)
{
	return enter(fs, req, internal, false);
}

bool fsd_enter_to_write_as(struct fsd *fs, fuse_req_t req, bool internal)
{
	return enter(fs, req, internal, true);
}

void fsd_leave(struct fsd *fs)
{
	struct fsd_admission *a = fs->admission;
	bool last = is_writing && atomic_fetch_sub(&a->inside_to_write, 1) == 1;

	is_writing = false;
	last = atomic_fetch_sub(&a->inside, 1) == 1 || last;
	if (!last || atomic_load(&a->admits) == FSD_ADMITS_ALL)
		return;
	pthread_mutex_lock(&a->lock);
	pthread_cond_signal(&a->left);
	pthread_mutex_unlock(&a->lock);
}

bool fsd_enter(struct fsd *fs, fuse_req_t req)
{
	if (fsd_enter_as(fs, req, false))
		return true;
	fuse_reply_err(req, ENOTCONN);
	return false;
}

bool fsd_enter_to_write(struct fsd *fs, fuse_req_t req)
{
	if (fsd_enter_to_write_as(fs, req, false))
		return true;
	fuse_reply_err(req, EIO);
	return false;
}

void fsd_admission_restrict(struct fsd *fs, enum fsd_admits admits)
{
	struct fsd_admission *a = fs->admission;
	_Atomic unsigned *count = admits == FSD_ADMITS_NONE ? &a->inside : &a->inside_to_write;

	assert(admits > atomic_load(&a->admits));
	if (admits == FSD_ADMITS_READING)
		atomic_store(&a->applier, wrep_applier_tid(fs->wrep));
	atomic_store(&a->admits, admits);
	/* A request that leaves counts down first and then looks at `admits`. So either the count is 0 here, or
	 * it sees that somebody waits. */
	pthread_mutex_lock(&a->lock);
	while (atomic_load(count))
		pthread_cond_wait(&a->left, &a->lock);
	pthread_mutex_unlock(&a->lock);
}

bool fsd_admission_is_shut(struct fsd *fs)
{
	return atomic_load(&fs->admission->admits) == FSD_ADMITS_NONE;
}
