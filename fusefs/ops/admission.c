/* The gate: which requests may call walrepl. */
#include "ops/admission.h"

#include <errno.h>
#include <unistd.h>

struct fsd *fsd_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* The daemon's own applier, and its cleaner (refusals.c), reach their files through the mount, too. */
bool fsd_is_internal(struct fsd *fs, fuse_req_t req)
{
	pid_t tid = fuse_req_ctx(req)->pid;

	return tid == wrep_applier_tid(fs->wrep) || tid == atomic_load(&fs->cleaner);
}

static _Thread_local bool is_writing; /* this thread is inside, and entered to write */

/* A handle knows who opened it; otherwise the caller is asked, which needs walrepl, so only once inside. */
static bool enter(struct fsd *fs, fuse_req_t req, bool internal, bool to_write)
{
	static _Thread_local bool prepared;
	int gate;

	if (!prepared) {
		/* libfuse ends its ring threads with pthread_cancel(): not inside a handler. */
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		prepared = true;
	}
	is_writing = to_write;
	atomic_fetch_add(&fs->inside, 1);
	if (to_write)
		atomic_fetch_add(&fs->inside_to_write, 1);
	gate = atomic_load(&fs->gate);
	if (gate == FSD_GATE_OPEN ||
	    (gate == FSD_GATE_READING &&
	     (!to_write || internal || fuse_req_ctx(req)->pid == atomic_load(&fs->applier))))
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
	if (is_writing)
		atomic_fetch_sub(&fs->inside_to_write, 1);
	is_writing = false;
	atomic_fetch_sub(&fs->inside, 1);
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

void fsd_ops_close_gate(struct fsd *fs, enum fsd_gate gate)
{
	atomic_store(&fs->gate, (int)gate);
	while (atomic_load(gate == FSD_GATE_SHUT ? &fs->inside : &fs->inside_to_write))
		usleep(500);
}
