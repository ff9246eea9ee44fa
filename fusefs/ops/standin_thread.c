#include "ops/standin_thread.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "mount/clone.h"
#include "ops/attr.h"
#include "ops/handle.h"
#include "ops/inode.h"
#include "ops/pending.h"
#include "ops/standin_internal.h"

#define RESERVED_BYTE 0x40000001 /* SQLite's os.h */
#define LOOK_MS 20
#define CREATE_AGAIN_MS 500

/* A CREATE that is on its way. */
struct submission {
	struct wrep_op op; /* first */
	struct fsd_standin *standin;
};

/* Hold RESERVED. 0 or -errno. Another may have it: an application, of the database that this is by now. */
static int take_lock(struct fsd_standin *s)
{
	struct flock lock = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = RESERVED_BYTE,
		.l_len = 1,
	};
	struct fsd_standins *all = s->fs->standins;
	int fd, rv = 0;

	fd = fsd_clone_open_file(s->fs->clone, s->inode->id, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return fd;
	if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
		rv = -errno;
	pthread_mutex_lock(&all->lock);
	if (s->state == STANDIN_CREATED) {
		rv = 0;
	} else if (!rv) {
		s->lock_fd = fd;
		fd = -1;
	}
	pthread_mutex_unlock(&all->lock);
	if (fd >= 0)
		close(fd);
	return rv;
}

void fsd_standin_unlock(struct fsd_standin *s)
{
	struct fsd_standins *all = s->fs->standins;
	int fd;

	pthread_mutex_lock(&all->lock);
	fd = s->lock_fd;
	s->lock_fd = -1;
	pthread_mutex_unlock(&all->lock);
	if (fd >= 0)
		close(fd);
}

static void answer(struct fsd_standin *s, struct fsd_pend *pend, int rv)
{
	struct fsd *fs = s->fs;
	struct fuse_entry_param entry = {0};
	struct fuse_file_info fi = {.keep_cache = 1};
	struct fsd_inode *inode = fsd_inode_find(fs, s->inode->id);

	if (!rv)
		rv = fsd_inode_attr(inode, &entry.attr);
	if (!rv) {
		fi.fh = (uint64_t)(uintptr_t)inode;
		entry.ino = inode->id;
		fsd_inode_looked_up(fs, inode);
		if (!fuse_reply_create(pend->req, &entry, &fi)) {
			fsd_pend_unref(pend);
			return;
		}
		fsd_inode_forget(fs, entry.ino, 1);
	} else {
		fuse_reply_err(pend->req, -rv);
	}
	fsd_release_app(fs, inode);
	fsd_pend_unref(pend);
}

/* Has something else the name, or the database itself, which appeared too early to be told of? */
static bool name_is_taken(struct fsd_standin *s)
{
	struct wrep *w = s->fs->wrep;
	struct wrep_file *file = NULL;
	struct wrep_dir *dir = NULL;
	bool taken;

	if (!wrep_lookup(w, s->path, &file)) {
		taken = atomic_load(&s->inode->file) != file;
		wrep_file_unref(file);
		return taken;
	}
	taken = !wrep_dir_lookup(w, s->path, &dir);
	wrep_dir_unref(dir);
	return taken;
}

static void submitted_done(struct wrep_op *op, int result)
{
	struct submission *sub = (struct submission *)op;
	struct fsd_standin *s = sub->standin;
	struct fsd_standins *all = s->fs->standins;

	if (!result) { /* an open, which nobody asked for */
		wrep_file_release(op->file, false);
		wrep_file_unref(op->file);
	}
	free(sub);
	pthread_mutex_lock(&all->lock);
	s->submitted = false;
	pthread_cond_signal(&all->changed);
	pthread_mutex_unlock(&all->lock);
}

/* This node may write: make the database. fsd_standins_appears() tells when it is there. */
static void submit(struct fsd_standin *s)
{
	struct submission *sub = calloc(1, sizeof(*sub));
	int rv;

	s->not_before_ms = rlog_clock_ms() + CREATE_AGAIN_MS;
	if (!sub)
		return;
	sub->op.done = submitted_done;
	sub->standin = s;
	pthread_mutex_lock(&s->fs->standins->lock);
	s->submitted = true;
	pthread_mutex_unlock(&s->fs->standins->lock);
	rv = wrep_create(s->fs->wrep, s->path,
			 &(struct wrep_new_file){s->mode, s->uid, s->gid, O_RDWR | O_CREAT}, false,
			 &sub->op);
	if (rv != WREP_PENDING)
		submitted_done(&sub->op, rv);
}

/* True: it has ended. */
static bool look_at(struct fsd_standin *s)
{
	struct fsd_standins *all = s->fs->standins;
	struct held_pends held;
	struct fsd_pend *pend;
	bool open, ended, locked;
	int rv = 0;

	pthread_mutex_lock(&all->lock);
	held = s->held;
	SLIST_INIT(&s->held);
	open = s->state == STANDIN_OPEN;
	locked = s->lock_fd >= 0;
	pthread_mutex_unlock(&all->lock);

	if (open && name_is_taken(s)) {
		pthread_mutex_lock(&all->lock);
		if (s->state == STANDIN_OPEN)
			s->state = STANDIN_TAKEN;
		open = false;
		pthread_mutex_unlock(&all->lock);
		fsd_standin_unlock(s);
	}
	if (open && !SLIST_EMPTY(&held) && !locked)
		rv = take_lock(s);
	while ((pend = SLIST_FIRST(&held))) {
		SLIST_REMOVE_HEAD(&held, held);
		answer(s, pend, rv);
	}
	if (open && wrep_may_write(s->fs->wrep) && rlog_clock_ms() >= s->not_before_ms) {
		bool wanted;

		pthread_mutex_lock(&all->lock);
		wanted = s->opens && !s->submitted && s->state != STANDIN_CREATED;
		pthread_mutex_unlock(&all->lock);
		if (wanted)
			submit(s);
	}
	pthread_mutex_lock(&all->lock);
	/* (Until the applier has let go, it looks for it.) */
	ended = SLIST_EMPTY(&s->held) && !s->submitted &&
		(s->state == STANDIN_TAKEN ||
		 (s->state == STANDIN_CREATED ? s->lock_fd < 0 : s->opens == 0));
	pthread_mutex_unlock(&all->lock);
	return ended;
}

/* Take it out of the list, unless somebody has opened it since it was looked at. False: he has. */
static bool remove_ended(struct fsd_standin *s)
{
	struct fsd_standins *all = s->fs->standins;
	bool ended;

	pthread_mutex_lock(&all->lock);
	ended = SLIST_EMPTY(&s->held) && (s->state != STANDIN_OPEN || !s->opens);
	if (ended)
		SLIST_REMOVE(&all->list, s, fsd_standin, entry);
	pthread_mutex_unlock(&all->lock);
	return ended;
}

/* Only this thread takes one out of the list, and new ones come at its beginning. */
static void look_at_all(struct fsd *fs)
{
	struct fsd_standins *all = fs->standins;
	struct fsd_standin *s, *next;

	pthread_mutex_lock(&all->lock);
	s = SLIST_FIRST(&all->list);
	pthread_mutex_unlock(&all->lock);
	for (; s; s = next) {
		bool ended = look_at(s);

		pthread_mutex_lock(&all->lock);
		next = SLIST_NEXT(s, entry);
		pthread_mutex_unlock(&all->lock);
		if (ended && remove_ended(s)) {
			fsd_standin_unlock(s);
			fsd_inode_unref(fs,
					s->inode); /* and with the last of these it goes itself */
		}
	}
}

void *fsd_standins_main(void *arg)
{
	struct fsd *fs = arg;
	struct fsd_standins *all = fs->standins;

	prctl(PR_SET_NAME, "fsd-standin");
	atomic_store(&all->tid, gettid());
	pthread_mutex_lock(&all->lock);
	while (!all->is_stopped) {
		uint64_t until = rlog_clock_ns() + LOOK_MS * RLOG_NS_PER_MS;

		pthread_mutex_unlock(&all->lock);
		look_at_all(fs);
		pthread_mutex_lock(&all->lock);
		if (all->is_stopped)
			break;
		if (!SLIST_EMPTY(&all->list))
			rlog_cond_wait(&all->changed, &all->lock, until);
		else
			pthread_cond_wait(&all->changed, &all->lock);
	}
	pthread_mutex_unlock(&all->lock);
	return NULL;
}
