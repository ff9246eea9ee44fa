/* The real disk: one directory, files opened for direct I/O, every write durable when it returns.
 *
 * O_DIRECT keeps the log out of the page cache (nobody reads it back in normal operation) and makes
 * a write's latency the device's. RWF_DSYNC rather than fdatasync: one request, with FUA where the
 * device has it, and no journal commit when the blocks are already allocated and written. A file
 * system without O_DIRECT (older tmpfs) is served through the page cache; the durability is the
 * same, since it comes from RWF_DSYNC. */
#include "log/disk.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#define IOV_COUNT_MAX 16 /* as in struct rlog_log_write */

struct real_disk {
	struct rlog_disk base; /* first: a pointer to it is a pointer to the whole */
	int dir_fd;
	int access; /* O_RDWR or O_RDONLY */
};

static int dir_fd(struct rlog_disk *d)
{
	return ((struct real_disk *)d)->dir_fd;
}

static int real_open(struct rlog_disk *d, const char *name, bool create)
{
	int flags = ((struct real_disk *)d)->access | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0);
	int fd = openat(dir_fd(d), name, flags | O_DIRECT, 0600);

	if (fd < 0 && errno == EINVAL) {
		/* Linux may have made the file before the file system refused O_DIRECT. */
		if (create)
			unlinkat(dir_fd(d), name, 0);
		fd = openat(dir_fd(d), name, flags, 0600);
	}
	return fd < 0 ? -errno : fd;
}

static int real_close(struct rlog_disk *d, int handle)
{
	(void)d;
	return close(handle) < 0 ? -errno : 0;
}

static int64_t real_size(struct rlog_disk *d, int handle)
{
	struct stat st;

	(void)d;
	return fstat(handle, &st) < 0 ? -errno : (int64_t)st.st_size;
}

static int64_t real_pread(struct rlog_disk *d, int handle, void *buf, size_t len, uint64_t off)
{
	size_t done = 0;

	(void)d;
	while (done < len) {
		ssize_t got = pread(handle, (uint8_t *)buf + done, len - done, (off_t)(off + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		done += (size_t)got;
		/* A count that is no multiple of the block can only be the end of the file, and
		 * going on from there would be refused by O_DIRECT. */
		if (got == 0 || done % RLOG_BLOCK)
			break;
	}
	return (int64_t)done;
}

static int64_t real_pwritev(struct rlog_disk *d, int handle, const struct iovec *iov, int iov_count,
			    uint64_t off)
{
	struct iovec left[IOV_COUNT_MAX], *next = left;
	int64_t done = 0;

	(void)d;
	assert(iov_count > 0 && iov_count <= IOV_COUNT_MAX);
	memcpy(left, iov, (size_t)iov_count * sizeof(*iov));
	while (iov_count > 0) {
		ssize_t put = pwritev2(handle, next, iov_count, (off_t)off + done, RWF_DSYNC);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		if (put == 0)
			return -EIO;
		done += put;
		/* After a short count: step over what is written and go on from there. */
		for (; iov_count > 0 && (size_t)put >= next->iov_len; next++, iov_count--)
			put -= (ssize_t)next->iov_len;
		if (put > 0) {
			next->iov_base = (uint8_t *)next->iov_base + put;
			next->iov_len -= (size_t)put;
		}
	}
	return done;
}

static int real_rename(struct rlog_disk *d, const char *from, const char *to)
{
	/* Never over an existing file: a segment name is used once. Not every file system knows the
	 * flag; the log checks its own names, so doing without it loses no more than a safety
	 * net. */
	if (renameat2(dir_fd(d), from, dir_fd(d), to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	return renameat(dir_fd(d), from, dir_fd(d), to) < 0 ? -errno : 0;
}

static int real_replace(struct rlog_disk *d, const char *from, const char *to)
{
	return renameat(dir_fd(d), from, dir_fd(d), to) < 0 ? -errno : 0;
}

static int real_unlink(struct rlog_disk *d, const char *name)
{
	return unlinkat(dir_fd(d), name, 0) < 0 ? -errno : 0;
}

static int real_sync_dir(struct rlog_disk *d)
{
	return fsync(dir_fd(d)) < 0 ? -errno : 0;
}

static uint64_t real_space(struct rlog_disk *d)
{
	struct statvfs about;

	if (fstatvfs(dir_fd(d), &about) < 0 || about.f_blocks == 0)
		return UINT64_MAX;
	return (uint64_t)about.f_bfree * about.f_frsize;
}

static int real_list(struct rlog_disk *d, void (*each)(void *arg, const char *name), void *arg)
{
	int fd = openat(dir_fd(d), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;
	DIR *dir;
	int err;

	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		err = -errno;
		close(fd);
		return err;
	}
	for (;;) {
		errno = 0;
		entry = readdir(dir);
		if (!entry)
			break;
		if (entry->d_name[0] != '.')
			each(arg, entry->d_name);
	}
	err = -errno;
	closedir(dir);
	return err;
}

int rlog_disk_open(struct rlog_disk **out, const char *path)
{
	struct real_disk *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->dir_fd < 0) {
		int err = -errno;

		free(r);
		return err;
	}
	r->access = O_RDWR;
	r->base = (struct rlog_disk){
		.open = real_open,
		.close = real_close,
		.size = real_size,
		.pread = real_pread,
		.pwritev = real_pwritev,
		.rename = real_rename,
		.replace = real_replace,
		.unlink = real_unlink,
		.sync_dir = real_sync_dir,
		.space = real_space,
		.list = real_list,
	};
	*out = &r->base;
	return 0;
}

static int read_only_open(struct rlog_disk *d, const char *name, bool create)
{
	return create ? -EROFS : real_open(d, name, false);
}

static int64_t no_pwritev(struct rlog_disk *d, int handle, const struct iovec *iov, int iov_count,
			  uint64_t off)
{
	(void)d, (void)handle, (void)iov, (void)iov_count, (void)off;
	return -EROFS;
}

static int no_rename(struct rlog_disk *d, const char *from, const char *to)
{
	(void)d, (void)from, (void)to;
	return -EROFS;
}

static int no_unlink(struct rlog_disk *d, const char *name)
{
	(void)d, (void)name;
	return -EROFS;
}

static int no_sync_dir(struct rlog_disk *d)
{
	(void)d;
	return -EROFS;
}

int rlog_disk_open_read_only(struct rlog_disk **out, const char *path)
{
	int err = rlog_disk_open(out, path);
	struct rlog_disk *d;

	if (err < 0)
		return err;
	d = *out;
	((struct real_disk *)d)->access = O_RDONLY;
	d->open = read_only_open;
	d->pwritev = no_pwritev;
	d->rename = no_rename;
	d->replace = no_rename;
	d->unlink = no_unlink;
	d->sync_dir = no_sync_dir;
	return 0;
}

void rlog_disk_close(struct rlog_disk *d)
{
	if (!d)
		return;
	close(dir_fd(d));
	free(d);
}
