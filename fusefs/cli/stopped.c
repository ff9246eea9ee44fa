#include "cli/stopped.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "cli/cli.h"
#include "mount/mountinfo.h"
#include "node/paths.h"

static void complain_of_lock(const char *data, int err, pid_t owner)
{
	struct fsd_mountinfo mount;

	if (err != -EWOULDBLOCK)
		fsd_complain("cannot lock the data directory %s: %s", data, strerror(-err));
	else if (!fsd_mountinfo_of_data(data, &mount))
		fsd_complain("the data directory %s is in use by the daemon of %s, pid %d: "
			     "'dqlitefs umount' it first",
			     data, mount.mountpoint, owner);
	else if (owner && !kill(owner, 0))
		fsd_complain("the data directory %s is in use by a daemon, pid %d: end that one "
			     "first",
			     data, owner);
	else
		fsd_complain("the data directory %s is in use by another command: wait until it "
			     "has ended",
			     data);
}

int fsd_stopped_open(const char *given, struct fsd_stopped *node)
{
	char path[PATH_MAX + 32];
	const char *data = node->data;
	pid_t owner;
	int err = fsd_path_resolve(given, node->data);

	if (err) {
		fsd_complain("cannot use the data directory %s: %s", given, strerror(-err));
		return err;
	}
	snprintf(path, sizeof(path), "%s/%s", data, FSD_STATE_DIR);
	snprintf(node->raft, sizeof(node->raft), "%s/%s/%s", data, FSD_STATE_DIR, FSD_LOG_DIR);
	node->state_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (node->state_fd < 0 && (errno == ENOENT || errno == ENOTDIR)) {
		fsd_complain("%s is no dqlitefs data directory: give the one that a node was "
			     "mounted with (--data DIR)",
			     data);
		return -ENOENT;
	}
	if (node->state_fd < 0) {
		err = -errno;
		fsd_complain("cannot open %s: %s%s", path, strerror(-err),
			     err == -EACCES ? " (run it as root)" : "");
		return err;
	}
	node->lock_fd = fsd_identity_lock(node->state_fd, false, &owner);
	/* Where nothing can be written no daemon runs. */
	if (node->lock_fd < 0 && node->lock_fd != -ENOENT && node->lock_fd != -EROFS) {
		complain_of_lock(data, node->lock_fd, owner);
		close(node->state_fd);
		return -EBUSY;
	}
	return 0;
}

void fsd_stopped_close(struct fsd_stopped *node)
{
	if (node->lock_fd >= 0)
		close(node->lock_fd);
	close(node->state_fd);
}

int fsd_stopped_has_log(const struct fsd_stopped *node, const struct fsd_identity *identity)
{
	if (identity->state == FSD_RECOVERING) {
		fsd_complain("the recovery of the node in %s was begun and not finished: run "
			     "'dqlitefs recover --data DIR --yes' again",
			     node->data);
		return -EINPROGRESS;
	}
	if (!access(node->raft, F_OK) || errno != ENOENT)
		return 0;
	fsd_complain("the node of %s has no log yet: mount it once, with --join if it is to join a "
		     "cluster",
		     node->data);
	return -ENOENT;
}
