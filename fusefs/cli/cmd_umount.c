/* dqlitefs umount MOUNTPOINT: unmount, and wait until the daemon has handed leadership over, has
 * made the data directory clean, and is gone.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "cli/cli.h"
#include "cli/client.h"
#include "mount/guard.h"

#define END_TIMEOUT_MS 60000

/* A mount whose daemon was killed answers nothing but this. */
static int is_dead(const char *path)
{
	struct stat st;

	return stat(path, &st) && (errno == ENOTCONN || errno == ECONNABORTED);
}

static int wait_for_end(int pid_fd, const char *data)
{
	struct pollfd pfd = {.fd = pid_fd, .events = POLLIN};

	if (poll(&pfd, 1, END_TIMEOUT_MS) == 1)
		return 0;
	fsd_complain("unmounted, but the daemon has not ended after %d s: see %s/.dqlitefs/log",
		     END_TIMEOUT_MS / 1000, data);
	return FSD_EXIT_FAILED;
}

int fsd_cmd_umount(int argc, char **argv)
{
	static const struct option options[] = {{0}};
	char path[PATH_MAX];
	struct fsd_mountinfo mount;
	const char *mountpoint;
	json_t *answer;
	int pid, pid_fd;

	if (fsd_next_option(argc, argv, ":", options) != -1)
		return FSD_EXIT_USAGE;
	mountpoint = fsd_only_argument(argc, argv, "MOUNTPOINT");
	if (!mountpoint)
		return FSD_EXIT_USAGE;
	if (geteuid() != 0) {
		fsd_complain("umount needs root: run it with sudo");
		return FSD_EXIT_FAILED;
	}
	if (fsd_client_find(mountpoint, path, &mount))
		return FSD_EXIT_FAILED;
	fsd_guard_stand_in(path);
	if (is_dead(path)) {
		fprintf(stderr, "dqlitefs: the daemon had died; removing the dead mount\n");
		if (!umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW))
			return 0;
		fsd_complain("cannot unmount %s: %s", path, strerror(errno));
		return FSD_EXIT_FAILED;
	}
	answer = fsd_client_call(mount.source, json_pack("{s:s}", "command", "pid"));
	if (!answer)
		return FSD_EXIT_FAILED;
	pid = (int)json_integer_value(json_object_get(answer, "pid"));
	json_decref(answer);
	pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pid_fd < 0) {
		fsd_complain("cannot watch the daemon pid=%d: %s", pid, strerror(errno));
		return FSD_EXIT_FAILED;
	}
	if (umount2(path, UMOUNT_NOFOLLOW)) {
		if (errno == EBUSY)
			fsd_complain("files in %s are open, or somebody's directory is there: see "
				     "'fuser -vm %s', end them, then try again",
				     path, path);
		else
			fsd_complain("cannot unmount %s: %s", path, strerror(errno));
		close(pid_fd);
		return FSD_EXIT_FAILED;
	}
	pid = wait_for_end(pid_fd, mount.source);
	close(pid_fd);
	return pid;
}
