/* The private clone of the mount. */
#include "mount/clone.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "node/log.h"

static void set_up(struct fsd *fs, enum fsd_up up)
{
	pthread_mutex_lock(&fs->up_lock);
	fs->up = up;
	pthread_cond_broadcast(&fs->up_changed);
	pthread_mutex_unlock(&fs->up_lock);
}

int fsd_mount_wait(struct fsd *fs)
{
	int fd;

	pthread_mutex_lock(&fs->up_lock);
	while (fs->up != FSD_UP && fs->up != FSD_GONE)
		pthread_cond_wait(&fs->up_changed, &fs->up_lock);
	fd = fs->up == FSD_UP ? fs->clone_dir_fd : -ENOTCONN;
	pthread_mutex_unlock(&fs->up_lock);
	return fd;
}

void fsd_mount_drop_clone(struct fsd *fs)
{
	int fd, dir_fd;

	pthread_mutex_lock(&fs->up_lock);
	fd = fs->clone_fd;
	dir_fd = fs->clone_dir_fd;
	fs->clone_fd = fs->clone_dir_fd = -1;
	fs->up = FSD_GONE;
	pthread_cond_broadcast(&fs->up_changed);
	pthread_mutex_unlock(&fs->up_lock);
	if (dir_fd >= 0)
		close(dir_fd);
	if (fd >= 0)
		close(fd);
}

int fsd_mount_open_clone(struct fsd *fs)
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
	rv = fsd_guard_hold(&fs->guard, fd);
	if (rv)
		fsd_log('W',
			"the guard does not keep the mount error=%s: should the daemon be killed, it "
			"may hang",
			strerror(-rv));
	pthread_mutex_lock(&fs->up_lock);
	fs->clone_fd = fd;
	fs->clone_dir_fd = dir_fd;
	pthread_mutex_unlock(&fs->up_lock);
	set_up(fs, FSD_UP);
	return 0;
}

/* FUSE's file handle (the kernel's fs/fuse/inode.c, fuse_encode_fh): the node id, high word first,
 * and the generation, which is always 0 here. */
int fsd_open_by_number(int dir_fd, uint64_t number, int flags)
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

int fsd_open_inode(struct fsd *fs, uint64_t number, int flags)
{
	int fd, dir_fd;

	pthread_mutex_lock(&fs->up_lock);
	dir_fd = fs->up == FSD_UP ? fcntl(fs->clone_dir_fd, F_DUPFD_CLOEXEC, 0) : -1;
	pthread_mutex_unlock(&fs->up_lock);
	if (dir_fd < 0)
		return -ENOTCONN;
	fd = fsd_open_by_number(dir_fd, number, flags);
	close(dir_fd);
	return fd;
}
