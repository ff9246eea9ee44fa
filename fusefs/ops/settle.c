/* Sizes that the kernel has yet to take in.
 *
 * The kernel drops the attributes that an answer brings when something newer has come since the request left
 * (fs/fuse/inode.c, attr_version). Not so with SETATTR: the size in that answer becomes the file's, whatever
 * the kernel has learned meanwhile (fs/fuse/dir.c, fuse_do_setattr()). SQLite sends one whenever root opens a -wal:
 * fchown(). Its answer takes effect when the thread that asked runs again; on a busy machine that is late, and the
 * applier has made the file longer by then:
 *
 *	SETATTR       look up the size: n                                     n becomes the file's
 *	              |------------------ the answer waits for its thread ---|
 *	applier              longer: m    invalidate    known to be m
 *	reader                                                               a frame behind n: the kernel asks again,
 *	                                                                     and drops that answer for an invalidation
 *
 * The reader gets less than it asked for, which SQLite takes for an I/O error. So who makes a file longer waits
 * until no answer with the former size is on its way. From the request to the end of it all the kernel has
 * its lock of the file (i_rwsem). Thus whoever has that lock later knows that it is over. One way to tell is a request
 * that the kernel sends under the lock. The other is to take it: lseek(SEEK_END) does.
 *
 * Another thread takes it. An application that has the lock may be waiting for the applier (an unlink that is put
 * off, an attribute of a database that goes through Raft). But then its request is here, which was all there was to
 * wait for.
 *
 * Nobody reads a file while it is made longer without waiting. So that the kernel asks again before the next one
 * reads, it may not keep the attributes of such an answer, of a database either.
 */
#include "ops/settle.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "ops/inode.h"

struct fsd_settling {
	pthread_mutex_t lock; /* the inodes' `settled` is written under it */
	pthread_cond_t changed;
};

struct fsd_settling *fsd_settling_new(void)
{
	struct fsd_settling *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	return s;
}

/* `told` counts answers, `settled` those of them that are over. */
static bool is_settled(const struct fsd_inode *inode, unsigned told)
{
	return (int)(told - atomic_load(&inode->settled)) <= 0;
}

static void settled(struct fsd *fs, struct fsd_inode *inode, unsigned told)
{
	pthread_mutex_lock(&fs->settling->lock);
	if (!is_settled(inode, told)) {
		atomic_store(&inode->settled, told);
		pthread_cond_broadcast(&fs->settling->changed);
	}
	pthread_mutex_unlock(&fs->settling->lock);
}

void fsd_settle_tell(struct fsd_inode *inode)
{
	atomic_fetch_add(&inode->told, 1);
}

void fsd_settle_heard(struct fsd *fs, struct fsd_inode *inode)
{
	unsigned told = atomic_load(&inode->told);

	if (!is_settled(inode, told))
		settled(fs, inode, told);
}

void fsd_settle_heard_path(struct fsd *fs, const char *path)
{
	struct fsd_inode *inode;
	struct wrep_file *file;

	if (wrep_lookup(fs->wrep, path, &file))
		return;
	inode = fsd_inode_find(fs, fsd_inode_number(fs, file));
	wrep_file_unref(file);
	if (!inode)
		return;
	fsd_settle_heard(fs, inode);
	fsd_inode_unref(fs, inode);
}

struct probe {
	struct fsd *fs;
	struct fsd_inode *inode; /* a reference */
	unsigned told;
	int fd; /* its own */
};

static void *probe_main(void *arg)
{
	struct probe *p = arg;

	prctl(PR_SET_NAME, "fsd-settle");
	/* Should it fail, the connection is gone, and with it all answers. */
	lseek(p->fd, 0, SEEK_END);
	settled(p->fs, p->inode, p->told);
	fsd_inode_unref(p->fs, p->inode);
	close(p->fd);
	free(p);
	return NULL;
}

/* Begin to take the lock. Nobody waits for the thread itself: it may be there for longer than the request that it
 * was made for. */
static int probe(struct fsd *fs, struct fsd_inode *inode, unsigned told, int fd)
{
	struct probe *p = malloc(sizeof(*p));
	pthread_t thread;
	int rv;

	if (!p)
		return -ENOMEM;
	*p = (struct probe){.fs = fs, .told = told};
	p->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (p->fd < 0) {
		rv = -errno;
		free(p);
		return rv;
	}
	p->inode = fsd_inode_find(fs, inode->id);
	rv = p->inode ? -pthread_create(&thread, NULL, probe_main, p) : -ESTALE;
	if (!rv) {
		pthread_detach(thread);
		return 0;
	}
	if (p->inode)
		fsd_inode_unref(fs, p->inode);
	close(p->fd);
	free(p);
	return rv;
}

int fsd_settle(struct fsd *fs, struct fsd_inode *inode, int fd)
{
	unsigned told = atomic_load(&inode->told);
	int rv;

	if (is_settled(inode, told))
		return 0;
	rv = probe(fs, inode, told, fd);
	if (rv)
		return rv;
	pthread_mutex_lock(&fs->settling->lock);
	while (!is_settled(inode, told))
		pthread_cond_wait(&fs->settling->changed, &fs->settling->lock);
	pthread_mutex_unlock(&fs->settling->lock);
	return 0;
}
