#include "mount/clone.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "guarded.h"
#include "mount/guard.h"
#include "node/log.h"

/* Awaited -> there -> gone, or awaited -> gone. */
enum clone_state { CLONE_AWAITED, CLONE_THERE, CLONE_GONE };

struct fsd_clone {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum clone_state state GUARDED_BY(lock);
	int fd GUARDED_BY(lock);
	int dir_fd GUARDED_BY(lock); /* its directory, opened: file handles want that */
};

struct fsd_clone *fsd_clone_new(void)
{
	struct fsd_clone *c = malloc(sizeof(*c));

	if (!c)
		return NULL;
	*c = (struct fsd_clone){.state = CLONE_AWAITED, .fd = -1, .dir_fd = -1};
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	return c;
}

static void is_there(struct fsd_clone *c, int fd, int dir_fd)
{
	pthread_mutex_lock(&c->lock);
	assert(c->state == CLONE_AWAITED);
	c->fd = fd;
	c->dir_fd = dir_fd;
	c->state = CLONE_THERE;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

int fsd_clone_open(struct fsd *fs)
{
	struct stat st;
	int dir_fd = -1, rv = 0;
	int fd = open_tree(AT_FDCWD, fs->mountpoint, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (fd >= 0)
		dir_fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0 || fstat(dir_fd, &st)) {
		rv = -errno;
		if (dir_fd >= 0)
			close(dir_fd);
		if (fd >= 0)
			close(fd);
		return rv;
	}
	rv = fsd_guard_hold(fs->guard, fd);
	if (rv)
		fsd_log('W',
			"the guard does not keep the mount error=%s: should the daemon be killed, it "
			"may hang",
			strerror(-rv));
	is_there(fs->clone, fd, dir_fd);
	return 0;
}

void fsd_clone_drop(struct fsd_clone *c)
{
	int fd, dir_fd;

	pthread_mutex_lock(&c->lock);
	fd = c->fd;
	dir_fd = c->dir_fd;
	c->fd = c->dir_fd = -1;
	c->state = CLONE_GONE;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	if (dir_fd >= 0)
		close(dir_fd);
	if (fd >= 0)
		close(fd);
}

bool fsd_clone_is_there(struct fsd_clone *c)
{
	bool there;

	pthread_mutex_lock(&c->lock);
	there = c->state == CLONE_THERE;
	pthread_mutex_unlock(&c->lock);
	return there;
}

int fsd_clone_wait(struct fsd_clone *c)
{
	int fd;

	pthread_mutex_lock(&c->lock);
	while (c->state == CLONE_AWAITED)
		pthread_cond_wait(&c->changed, &c->lock);
	fd = c->state == CLONE_THERE ? c->dir_fd : -ENOTCONN;
	pthread_mutex_unlock(&c->lock);
	return fd;
}

/* FUSE's file handle (the kernel's fs/fuse/inode.c, fuse_encode_fh): the node id, high word first,
 * and the generation, which is always 0 here. */
int fsd_clone_open_within(int dir_fd, uint64_t number, int flags)
{
	union {
		struct file_handle handle;
		char bytes[sizeof(struct file_handle) + 3 * sizeof(uint32_t)];
	} h = {.handle = {.handle_bytes = 3 * sizeof(uint32_t), .handle_type = 0x81}};
	const uint32_t words[3] = {(uint32_t)(number >> 32), (uint32_t)number, 0};
	int fd;

	memcpy(h.bytes + offsetof(struct file_handle, f_handle), words, sizeof(words));
	fd = open_by_handle_at(dir_fd, &h.handle, flags);
	return fd < 0 ? -errno : fd;
}

int fsd_clone_open_file(struct fsd_clone *c, uint64_t number, int flags)
{
	int fd, dir_fd;

	pthread_mutex_lock(&c->lock);
	dir_fd = c->state == CLONE_THERE ? fcntl(c->dir_fd, F_DUPFD_CLOEXEC, 0) : -1;
	pthread_mutex_unlock(&c->lock);
	if (dir_fd < 0)
		return -ENOTCONN;
	fd = fsd_clone_open_within(dir_fd, number, flags);
	close(dir_fd);
	return fd;
}
