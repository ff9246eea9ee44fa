/* Asks the kernel what it has.
 *
 * The kernel tells what its FUSE can do in the INIT request that it sends for every new mount, and
 * whether we may do it (in a user namespace, say) when it is tried. To try without a mount that
 * anybody could see, a file system is made with the mount API's fsopen(2), attached nowhere, and
 * dropped once INIT has been read and answered, and one file been registered for passthrough.
 *
 * The same API makes the tmpfs for the backing files of -shm: a file system that no path leads to
 * cannot be full of another program's files, needs no cleaning up after a crash, and works where
 * /run lies on a disk. And the same gives an instance of fusectl, whether or not one is mounted at
 * /sys/fs/fuse/connections.
 */
#include "mount/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#define ENABLE_URING "/sys/module/fuse/parameters/enable_uring"

/* Since Linux 6.9; Debian 12's headers end at 6.1. */
#define INIT_PASSTHROUGH (1ULL << 37)
#define INIT_EXT (1ULL << 30)

struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define IOC_BACKING_OPEN _IOW(229, 1, struct backing_map)

struct init_answer {
	struct fuse_out_header header;
	uint32_t major, minor, max_readahead, flags;
	uint16_t max_background, congestion_threshold;
	uint32_t max_write, time_gran;
	uint16_t max_pages, map_alignment;
	uint32_t flags2, max_stack_depth;
	uint32_t unused[6];
};
_Static_assert(sizeof(struct init_answer) == sizeof(struct fuse_out_header) + 64,
	       "fuse_init_out of linux/fuse.h");

static int config_string(int fs, const char *key, const char *value)
{
	return fsconfig(fs, FSCONFIG_SET_STRING, key, value, 0);
}

/* Say that passthrough is wanted, and try it. 0 or -errno. */
static int try_passthrough(int device, uint64_t unique, uint32_t minor)
{
	const struct init_answer answer = {
		.header = {.len = sizeof(answer), .unique = unique},
		.major = FUSE_KERNEL_VERSION,
		.minor = minor,
		.flags = INIT_EXT,
		.max_write = 4096,
		.time_gran = 1,
		.flags2 = INIT_PASSTHROUGH >> 32,
		.max_stack_depth = 1,
	};
	struct backing_map map = {.fd = memfd_create("dqlitefs-probe", MFD_CLOEXEC)};
	int rv = 0;

	if (map.fd < 0 || write(device, &answer, sizeof(answer)) != sizeof(answer) ||
	    ioctl(device, IOC_BACKING_OPEN, &map) < 0)
		rv = -errno;
	if (map.fd >= 0)
		close(map.fd);
	return rv;
}

/* The flags of the INIT request that a new FUSE mount brings; `*passthrough` gets 0 or -errno. */
static int probe(int device, uint64_t *flags, int *passthrough)
{
	/* The kernel wants room for the largest request before it hands over any. */
	static union {
		struct fuse_in_header header;
		char bytes[FUSE_MIN_READ_BUFFER + 65536];
	} buf;
	struct {
		uint32_t major, minor, max_readahead, flags, flags2;
	} init = {0};
	struct pollfd pfd = {.fd = device, .events = POLLIN};
	char number[16];
	int mount = -1, rv = -EIO;
	int fs = fsopen("fuse", FSOPEN_CLOEXEC);

	if (fs < 0)
		return -errno;
	snprintf(number, sizeof(number), "%d", device);
	if (config_string(fs, "fd", number) || config_string(fs, "rootmode", "40000") ||
	    config_string(fs, "user_id", "0") || config_string(fs, "group_id", "0") ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0)) {
		rv = -errno;
		goto out;
	}
	mount = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	if (mount < 0) {
		rv = -errno;
		goto out;
	}
	if (poll(&pfd, 1, 5000) != 1)
		goto out;
	ssize_t len = read(device, &buf, sizeof(buf));

	if (len < (ssize_t)sizeof(buf.header) || buf.header.opcode != FUSE_INIT)
		goto out;
	len -= (ssize_t)sizeof(buf.header);
	memcpy(&init, buf.bytes + sizeof(buf.header),
	       (size_t)len < sizeof(init) ? (size_t)len : sizeof(init));
	*flags = init.flags;
	if (init.flags & INIT_EXT)
		*flags |= (uint64_t)init.flags2 << 32;
	*passthrough = -EOPNOTSUPP;
	if (*flags & INIT_PASSTHROUGH)
		*passthrough = try_passthrough(device, buf.header.unique, init.minor);
	rv = 0;
out:
	if (mount >= 0)
		close(mount);
	close(fs);
	return rv;
}

int fsd_kernel_check(char errmsg[FSD_ERRMSG_SIZE])
{
	uint64_t flags = 0;
	int passthrough, rv, device = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (device < 0) {
		rv = -errno;
		return fsd_fail(errmsg, rv, "cannot open /dev/fuse (%s): %s", strerror(-rv),
				rv == -EPERM || rv == -EACCES
					? "let this container or service use that device"
					: "load the kernel module with 'modprobe fuse'");
	}
	rv = probe(device, &flags, &passthrough);
	close(device);
	if (rv)
		return fsd_fail(
			errmsg, rv,
			"cannot make a FUSE file system (%s): dqlitefs needs the capability "
			"CAP_SYS_ADMIN and Linux 6.9 or newer",
			strerror(-rv));
	if (!(flags & INIT_PASSTHROUGH)) {
		return fsd_fail(
			errmsg, -EOPNOTSUPP,
			"this kernel has no FUSE passthrough: boot Linux 6.9 or newer, built with "
			"CONFIG_FUSE_PASSTHROUGH");
	}
	if (passthrough)
		snprintf(errmsg, FSD_ERRMSG_SIZE,
			 "the kernel refuses FUSE passthrough (%s): run dqlitefs outside of user "
			 "namespaces, with the capability CAP_SYS_ADMIN",
			 strerror(-passthrough));
	return passthrough;
}

int fsd_kernel_uring(enum fsd_uring wish, bool *use, char errmsg[FSD_ERRMSG_SIZE])
{
	char value = 'N';
	int fd;

	*use = false;
	if (wish == FSD_URING_OFF)
		return 0;
	if (wish == FSD_URING_ON) {
		fd = open(ENABLE_URING, O_WRONLY | O_CLOEXEC);
		if (fd >= 0) {
			if (write(fd, "Y", 1) != 1)
				value = '?';
			close(fd);
		}
	}
	fd = open(ENABLE_URING, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (read(fd, &value, 1) == 1)
			*use = value == 'Y';
		close(fd);
	}
	if (wish == FSD_URING_ON && !*use)
		return fsd_fail(errmsg, -EOPNOTSUPP,
				"cannot switch FUSE over io_uring on in " ENABLE_URING
				": use --fuse-uring=auto, or boot Linux 6.14 or newer");
	return 0;
}

int fsd_kernel_tmpfs(char errmsg[FSD_ERRMSG_SIZE])
{
	int mount = -1, rv = 0;
	int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);

	if (fs < 0 || config_string(fs, "source", "dqlitefs-shm") ||
	    config_string(fs, "mode", "0700") || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) ||
	    (mount = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)) < 0) {
		rv = -errno;
		snprintf(errmsg, FSD_ERRMSG_SIZE,
			 "cannot make a tmpfs for -shm files (%s): dqlitefs needs the capability "
			 "CAP_SYS_ADMIN",
			 strerror(-rv));
	}
	if (fs >= 0)
		close(fs);
	return rv ? rv : mount;
}

int fsd_kernel_open_abort(unsigned connection)
{
	char path[32];
	int mount = -1, file = -1, rv = 0;
	int fs = fsopen("fusectl", FSOPEN_CLOEXEC);

	snprintf(path, sizeof(path), "%u/abort", connection);
	if (fs < 0 || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) ||
	    (mount = fsmount(fs, FSMOUNT_CLOEXEC, 0)) < 0 ||
	    (file = openat(mount, path, O_WRONLY | O_CLOEXEC)) < 0)
		rv = -errno;
	if (mount >= 0)
		close(mount);
	if (fs >= 0)
		close(fs);
	return rv ? rv : file;
}
