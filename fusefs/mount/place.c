/* In the good case: the session is mounted at the mount point, the guard is told of it, the session starts, and the
 * clone is opened. Where a killed daemon has left its mount, the session is mounted aside first and, once it
 * serves, moved into that one's place.
 */
#include "mount/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "mount/clone.h"
#include "mount/guard.h"
#include "mount/mountinfo.h"
#include "mount/session.h"
#include "node/log.h"

#ifndef MOVE_MOUNT_BENEATH /* Linux 6.5 */
#define MOVE_MOUNT_BENEATH 0x200
#endif

struct fsd_place {
	bool dead; /* at the mount point is a mount of a daemon that was killed */
	int mount_id;
	unsigned device;
	int mounts_fd; /* /proc/self/mountinfo, or -1 */
};

struct fsd_place *fsd_place_new(void)
{
	struct fsd_place *p = calloc(1, sizeof(*p));

	if (p)
		p->mounts_fd = -1;
	return p;
}

void fsd_place_replaces_dead(struct fsd_place *p)
{
	p->dead = true;
}

bool fsd_place_is_dead(const struct fsd_place *p)
{
	return p->dead;
}

unsigned fsd_place_device(const struct fsd_place *p)
{
	return p->device;
}

int fsd_place_watch(struct fsd_place *p)
{
	return p->mounts_fd = fsd_mountinfo_open();
}

/* The id of the topmost mount at the mount point, without asking ourselves for anything. Its
 * connection's number, too. */
static int read_mount_id(const char *mountpoint, unsigned *connection)
{
	struct statx stx;

	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_MNT_ID, &stx))
		return -errno;
	if (connection)
		*connection = stx.stx_dev_minor;
	return (int)stx.stx_mnt_id;
}

static void start_guarding(struct fsd *fs, unsigned connection)
{
	int rv = fsd_guard_watch(fs->guard, connection);

	/* All works without it, so this does not stop the mount. */
	if (rv)
		fsd_log('W',
			"nobody guards the mount error=%s: should the daemon be killed and not end, "
			"write 1 to /sys/fs/fuse/connections/%u/abort (type fusectl)",
			strerror(-rv), connection);
}

/* Take the place of the mount that a killed daemon left: first beneath it, then it goes. At no moment
 * is the bare directory there, in which an application would make itself a new, unreplicated
 * database. `aside`: where the session is mounted so far. */
static int replace_dead_mount(struct fsd *fs, const char *aside)
{
	int fd = open_tree(AT_FDCWD, aside, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	int rv = 0;

	if (fd < 0)
		return -errno;
	if (move_mount(fd, "", AT_FDCWD, fs->mountpoint,
		       MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_BENEATH) == 0) {
		if (umount2(fs->mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW))
			rv = -errno;
	} else if (umount2(fs->mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW) ||
		   /* where mount propagation forbids "beneath", there is a gap of microseconds */
		   move_mount(fd, "", AT_FDCWD, fs->mountpoint, MOVE_MOUNT_F_EMPTY_PATH)) {
		rv = -errno;
	}
	close(fd);
	return rv;
}

/* Mounts aside, left by daemons of this data directory that were killed before they had replaced a dead one. None
 * of these daemons lives, because we have the lock. */
static void remove_left_aside(const struct fsd *fs)
{
	struct fsd_mountinfo m;

	while (!fsd_mountinfo_aside(fs->data_path, &m) &&
	       !umount2(m.mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW))
		rmdir(m.mountpoint);
}

/* Mount the session at `where`, and serve there. */
static int mount_at(struct fsd *fs, const char *where, char errmsg[FSD_ERRMSG_SIZE])
{
	struct fsd_place *p = fs->place;
	int rv = fsd_session_mount(fs->session, where);

	if (rv)
		return fsd_fail(errmsg, rv, "cannot mount at %s: %s", fs->mountpoint,
				fsd_session_complaint("libfuse did not say why"));
	p->mount_id = read_mount_id(where, &p->device);
	start_guarding(fs, p->device);
	return fsd_session_start(fs, errmsg);
}

static int mount_in_place_of_dead(struct fsd *fs, char errmsg[FSD_ERRMSG_SIZE])
{
	char aside[] = FSD_MOUNT_ASIDE;
	int rv;

	if (!mkdtemp(aside)) {
		rv = -errno;
		return fsd_fail(errmsg, rv, "cannot make a directory in /run: %s", strerror(-rv));
	}
	rv = mount_at(fs, aside, errmsg);
	if (!rv) {
		rv = replace_dead_mount(fs, aside);
		if (rv)
			snprintf(errmsg, FSD_ERRMSG_SIZE,
				 "cannot replace the dead mount at %s: %s: umount it",
				 fs->mountpoint, strerror(-rv));
	}
	umount2(aside, MNT_DETACH | UMOUNT_NOFOLLOW);
	rmdir(aside);
	if (rv)
		return rv;
	fs->place->dead = false;
	fs->place->mount_id = read_mount_id(fs->mountpoint, NULL);
	return 0;
}

int fsd_place_mount(struct fsd *fs, char errmsg[FSD_ERRMSG_SIZE])
{
	int rv;

	remove_left_aside(fs);
	rv = fs->place->dead ? mount_in_place_of_dead(fs, errmsg)
			     : mount_at(fs, fs->mountpoint, errmsg);
	if (rv)
		return rv;
	rv = fsd_clone_open(fs);
	if (rv)
		return fsd_fail(errmsg, rv, "cannot clone the mount: %s", strerror(-rv));
	if (fsd_session_is_over_uring(fs->session))
		fsd_log('I', "mounted mountpoint=%s data=%s transport=io_uring", fs->mountpoint,
			fs->data_path);
	else
		fsd_log('W',
			"mounted mountpoint=%s data=%s transport=/dev/fuse: commits take several "
			"times longer than over io_uring; mount with --fuse-uring=on, which switches "
			"it on in the kernel (Linux 6.14 or newer)",
			fs->mountpoint, fs->data_path);
	return 0;
}

bool fsd_place_is_visible(const struct fsd *fs)
{
	return fsd_mountinfo_has(fs->place->mounts_fd, fs->place->mount_id);
}

void fsd_place_detach(struct fsd *fs)
{
	/* Somebody may have mounted something else on top: that stays. */
	if (fsd_place_is_visible(fs) && read_mount_id(fs->mountpoint, NULL) == fs->place->mount_id)
		umount2(fs->mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW);
}
