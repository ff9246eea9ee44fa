/* The mount: libfuse's session, the mount that users see, and the private clone of it.
 *
 * In the good case: a session is made and mounted, its loop runs in a thread of its own (which
 * starts the pool of /dev/fuse readers and, with io_uring, one thread per CPU), INIT is answered, a
 * clone of the mount that is attached nowhere is opened, and one request through the clone proves
 * that the way is open. The daemon itself uses only the clone, so its open files never keep the
 * visible mount busy; the file system lives until both are gone and nobody has a file open.
 */
#include "mount/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "mount/clone.h"
#include "mount/fuse.h"
#include "mount/mountinfo.h"
#include "mount/stop.h"
#include "node/log.h"
#include "ops/ops.h"
#include "ops/refusals.h"

#ifndef MOVE_MOUNT_BENEATH /* Linux 6.5 */
#define MOVE_MOUNT_BENEATH 0x200
#endif

#define INIT_TIMEOUT_S 10

void fsd_mount_init_done(struct fsd *fs, bool passthrough)
{
	pthread_mutex_lock(&fs->up_lock);
	fs->passthrough = passthrough;
	if (fs->up == FSD_NOT_YET)
		fs->up = FSD_INIT_DONE;
	pthread_cond_broadcast(&fs->up_changed);
	pthread_mutex_unlock(&fs->up_lock);
}

/* While the mount starts, libfuse's complaint becomes part of the one error line. Only the main
 * thread and the INIT request write it. */
static _Atomic bool starting;
static char complaint[256];

static void log_libfuse(enum fuse_log_level level, const char *format, va_list args)
{
	char line[256];

	vsnprintf(line, sizeof(line), format, args);
	if (atomic_load(&starting)) {
		/* The first line is the cause; it may come in pieces. */
		if (!strchr(complaint, '\n') && level <= FUSE_LOG_WARNING)
			strncat(complaint, line, sizeof(complaint) - strlen(complaint) - 1);
		return;
	}
	line[strcspn(line, "\n")] = '\0';
	fsd_log(level <= FUSE_LOG_ERR	   ? 'E'
		: level <= FUSE_LOG_NOTICE ? 'W'
					   : 'I',
		"libfuse: %s", line);
}

static void *session_main(void *arg)
{
	struct fsd *fs = arg;
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int rv = -ENOMEM;

	prctl(PR_SET_NAME, "fsd-session");
	if (config) {
		fuse_loop_cfg_set_clone_fd(config, 0);
		rv = fuse_session_loop_mt(fs->session, config);
		fuse_loop_cfg_destroy(config);
	}
	if (!atomic_load(&fs->stopping)) {
		fsd_log('E', "the kernel's connection ended error=%d: mount again", rv);
		fsd_stop(fs, 1);
	}
	return NULL;
}

/* "-ofsname=" and a path whose commas and backslashes do not end the option. */
static char *fsname_option(const char *path)
{
	static const char prefix[] = "-ofsname=";
	char *option = malloc(sizeof(prefix) + 2 * strlen(path)), *to;

	if (!option)
		return NULL;
	strcpy(option, prefix);
	to = option + strlen(option);
	for (; *path; path++) {
		if (*path == ',' || *path == '\\')
			*to++ = '\\';
		*to++ = *path;
	}
	*to = '\0';
	return option;
}

static struct fuse_session *session_new(struct fsd *fs, const char *options)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *session = NULL;
	char *fsname = fsname_option(fs->data_path);
	char uring[64];

	snprintf(uring, sizeof(uring), "-oio_uring,io_uring_q_depth=%u", FSD_RING_DEPTH);
	/* Ours come last and win: fsname is how the other commands find the data directory. */
	if (fsname && !fuse_opt_add_arg(&args, "dqlitefs") &&
	    (!options || (!fuse_opt_add_arg(&args, "-o") && !fuse_opt_add_arg(&args, options))) &&
	    !fuse_opt_add_arg(&args, fsname) &&
	    !fuse_opt_add_arg(&args, "-osubtype=dqlitefs,allow_other,default_permissions") &&
	    (!fs->uring || !fuse_opt_add_arg(&args, uring)))
		session = fuse_session_new(&args, &fsd_ops, fsd_ops_size, fs);
	fuse_opt_free_args(&args);
	free(fsname);
	return session;
}

static const char *complaint_line(const char *otherwise)
{
	complaint[strcspn(complaint, "\n")] = '\0';
	return complaint[0] ? complaint : otherwise;
}

static int wait_for_init(struct fsd *fs)
{
	const uint64_t until_ns = rlog_clock_ns() + INIT_TIMEOUT_S * RLOG_NS_PER_S;
	int rv = 0;

	pthread_mutex_lock(&fs->up_lock);
	while (fs->up == FSD_NOT_YET && !rv)
		rv = rlog_cond_wait(&fs->up_changed, &fs->up_lock, until_ns);
	if (!rv && !fs->passthrough)
		rv = -EOPNOTSUPP;
	pthread_mutex_unlock(&fs->up_lock);
	return rv;
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
	int rv = fsd_guard_watch(&fs->guard, connection);

	/* All works without it, so this does not stop the mount. */
	if (rv)
		fsd_log('W',
			"nobody guards the mount error=%s: should the daemon be killed and not end, "
			"write 1 to /sys/fs/fuse/connections/%u/abort (type fusectl)",
			strerror(-rv), connection);
}

int fsd_mount_prepare(struct fsd *fs, const char *options, char errmsg[FSD_ERRMSG_SIZE])
{
	fuse_set_log_func(log_libfuse);
	atomic_store(&starting, true);
	fs->session = session_new(fs, options);
	atomic_store(&starting, false);
	if (!fs->session) {
		snprintf(errmsg, FSD_ERRMSG_SIZE,
			 "cannot mount with '-o %s' (%s): leave out what is wrong there",
			 options ? options : "", complaint_line("out of memory"));
		return -EINVAL;
	}
	return 0;
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

/* What daemons of this data directory left that were killed before they had replaced a dead mount: none
 * of them lives, because we have the lock. */
static void remove_left_aside(const struct fsd *fs)
{
	struct fsd_mountinfo m;

	while (!fsd_mountinfo_aside(fs->data_path, &m) &&
	       !umount2(m.mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW))
		rmdir(m.mountpoint);
}

int fsd_mount_start(struct fsd *fs, char errmsg[FSD_ERRMSG_SIZE])
{
	char aside[] = FSD_MOUNT_ASIDE;
	const char *where = fs->mountpoint;
	int rv;

	remove_left_aside(fs);
	if (fs->dead_mount) {
		where = mkdtemp(aside);
		if (!where) {
			rv = -errno;
			snprintf(errmsg, FSD_ERRMSG_SIZE, "cannot make a directory in /run: %s",
				 strerror(-rv));
			return rv;
		}
	}
	atomic_store(&starting, true);
	rv = fuse_session_mount(fs->session, where);
	atomic_store(&starting, false);
	if (rv) {
		if (fs->dead_mount)
			rmdir(aside);
		snprintf(errmsg, FSD_ERRMSG_SIZE, "cannot mount at %s: %s", fs->mountpoint,
			 complaint_line("libfuse did not say why"));
		fuse_session_destroy(fs->session);
		fs->session = NULL;
		return -EIO;
	}
	fs->mount_id = read_mount_id(where, &fs->connection);
	start_guarding(fs, fs->connection);
	rv = fsd_refusals_start(fs);
	if (!rv)
		rv = -pthread_create(&fs->session_thread, NULL, session_main, fs);
	if (!rv) {
		fs->session_started = true;
		rv = wait_for_init(fs);
	}
	if (rv) {
		snprintf(errmsg, FSD_ERRMSG_SIZE,
			 rv == -EOPNOTSUPP
				 ? "this kernel has no FUSE passthrough: boot Linux 6.9 or newer, "
				   "built with CONFIG_FUSE_PASSTHROUGH"
				 : "the kernel did not start the file system: see its log (dmesg)");
		goto fail;
	}
	if (fs->dead_mount) {
		rv = replace_dead_mount(fs, aside);
		umount2(aside, MNT_DETACH | UMOUNT_NOFOLLOW);
		rmdir(aside);
		if (rv) {
			snprintf(errmsg, FSD_ERRMSG_SIZE,
				 "cannot replace the dead mount at %s: %s: umount it",
				 fs->mountpoint, strerror(-rv));
			goto fail;
		}
		fs->dead_mount = false;
		fs->mount_id = read_mount_id(fs->mountpoint, NULL);
	}
	rv = fsd_mount_open_clone(fs);
	if (rv) {
		snprintf(errmsg, FSD_ERRMSG_SIZE, "cannot clone the mount: %s", strerror(-rv));
		goto fail;
	}
	if (atomic_load(&fs->over_uring))
		fsd_log('I', "mounted mountpoint=%s data=%s transport=io_uring", fs->mountpoint,
			fs->data_path);
	else
		fsd_log('W',
			"mounted mountpoint=%s data=%s transport=/dev/fuse: commits take several "
			"times longer than over io_uring; mount with --fuse-uring=on, which switches "
			"it on in the kernel (Linux 6.14 or newer)",
			fs->mountpoint, fs->data_path);
	return 0;
fail:
	if (fs->dead_mount) {
		umount2(aside, MNT_DETACH | UMOUNT_NOFOLLOW);
		rmdir(aside);
	}
	atomic_store(&fs->stopping, true);
	fsd_mount_detach(fs);
	fsd_mount_stop(fs);
	return rv;
}

bool fsd_mount_visible(const struct fsd *fs)
{
	return fsd_mountinfo_has(fs->mounts_fd, fs->mount_id);
}

void fsd_mount_detach(struct fsd *fs)
{
	/* Somebody may have mounted something else on top: that stays. */
	if (fsd_mount_visible(fs) && read_mount_id(fs->mountpoint, NULL) == fs->mount_id)
		umount2(fs->mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW);
}

void fsd_mount_stop(struct fsd *fs)
{
	fsd_refusals_stop(fs); /* while the requests are served that it may wait for */
	fsd_mount_drop_clone(fs);
	if (!fs->session)
		return;
	fuse_session_exit(fs->session);
	if (fs->session_started)
		pthread_join(fs->session_thread, NULL);
	fuse_session_destroy(fs->session); /* closes /dev/fuse: what is open now fails */
	fs->session = NULL;
}
