#include "daemon/checks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "mount/guard.h"
#include "mount/mountinfo.h"
#include "mount/place.h"
#include "mount/session.h"
#include "node/addr.h"
#include "node/paths.h"
#include "ops/ops.h"

#define LOCK_PATIENCE_MS 10000
#define PORT_PATIENCE_MS 5000
#define PROBE_TIMEOUT_MS 3000
#define RECHECK_TIMEOUT_MS 1000

static int check_mountpoint(struct fsd_start *st)
{
	const char *given = st->options->mountpoint;
	struct fsd_mountinfo mount;
	struct stat stat_buf;

	if (fsd_path_resolve(given, st->mountpoint))
		return fsd_fail(st->errmsg, -ENOENT,
				"the mount point %s does not exist: make it with mkdir", given);
	fsd_guard_stand_in(st->mountpoint);
	if (stat(st->mountpoint, &stat_buf)) {
		if (errno == ENOENT)
			return fsd_fail(st->errmsg, -ENOENT,
					"the mount point %s does not exist: make it with mkdir",
					given);
		if ((errno != ENOTCONN && errno != ECONNABORTED) ||
		    fsd_mountinfo_at(st->mountpoint, &mount)) {
			int rv = -errno;

			return fsd_fail(st->errmsg, rv, "cannot use the mount point %s: %s", given,
					strerror(-rv));
		}
		if (strcmp(mount.fstype, FSD_FSTYPE))
			return fsd_fail(st->errmsg, -ENOTCONN,
					"a dead mount of type %s is at %s: remove it with umount",
					mount.fstype, given);
		/* Left by a daemon of ours that was killed: fsd_place_mount() takes its place. */
		fsd_place_replaces_dead(st->fs->place);
		return 0;
	}
	if (!S_ISDIR(stat_buf.st_mode))
		return fsd_fail(st->errmsg, -ENOTDIR,
				"the mount point %s is not a directory: give one", given);
	if (!fsd_mountinfo_at(st->mountpoint, &mount) && !strcmp(mount.fstype, FSD_FSTYPE))
		return fsd_fail(
			st->errmsg, -EBUSY,
			"%s is mounted already (data directory %s): 'dqlitefs umount' it first",
			given, mount.source);
	return 0;
}

/* Where a disk is not mounted, or a name is mistyped, no new node shall begin. */
static int check_parent(struct fsd_start *st)
{
	char parent[PATH_MAX];
	char *slash;

	strcpy(parent, st->data);
	slash = strrchr(parent, '/');
	slash[slash == parent] = '\0';
	if (access(parent, F_OK))
		return fsd_fail(
			st->errmsg, -errno,
			"cannot make the data directory %s: %s: %s (make it with mkdir -p, or "
			"mount the disk that holds it)",
			st->data, parent, strerror(errno));
	return 0;
}

static int check_paths(struct fsd_start *st)
{
	char fallback[PATH_MAX + 32];
	const char *data = st->options->data;
	int rv;

	if (!data) {
		snprintf(fallback, sizeof(fallback), "/var/lib/dqlitefs/%s",
			 st->mountpoint[1] ? st->mountpoint + 1 : "root");
		for (char *c = fallback + strlen("/var/lib/dqlitefs/"); *c; c++)
			*c = *c == '/' ? '-' : *c;
		data = fallback;
	}
	rv = fsd_path_resolve(data, st->data);
	if (rv)
		return fsd_fail(st->errmsg, rv, "cannot use the data directory %s: %s", data,
				strerror(-rv));
	if (!strcmp(st->data, st->mountpoint))
		return fsd_fail(
			st->errmsg, -EINVAL,
			"the data directory is the mount point %s: give another with --data DIR",
			st->data);
	if (fsd_path_within(st->mountpoint, st->data))
		return fsd_fail(
			st->errmsg, -EINVAL,
			"the mount point %s lies inside the data directory %s: give another "
			"mount point",
			st->mountpoint, st->data);
	if (fsd_path_within(st->data, st->mountpoint))
		return fsd_fail(
			st->errmsg, -EINVAL,
			"the data directory %s lies inside the mount point %s: give another "
			"with --data DIR",
			st->data, st->mountpoint);
	snprintf(st->raft, sizeof(st->raft), "%s/%s/%s", st->data, FSD_STATE_DIR, FSD_LOG_DIR);
	return st->options->data ? check_parent(st) : 0;
}

/* A daemon that was just unmounted, or killed, holds its lock until it has ended: wait for it, not
 * for one whose mount is there and alive. */
static int check_lock(struct fsd_start *st)
{
	struct fsd_mountinfo mount;
	pid_t owner;

	for (int waited_ms = 0;; waited_ms += 100) {
		st->fs->lock_fd = fsd_identity_lock(st->fs->state_fd, false, &owner);
		if (st->fs->lock_fd >= 0 || st->fs->lock_fd == -ENOENT)
			return 0;
		if (st->fs->lock_fd != -EWOULDBLOCK)
			return fsd_fail(st->errmsg, st->fs->lock_fd,
					"cannot lock the data directory %s: %s", st->data,
					strerror(-st->fs->lock_fd));
		if (!fsd_mountinfo_of_data(st->data, &mount) &&
		    !(fsd_place_is_dead(st->fs->place) &&
		      !strcmp(mount.mountpoint, st->mountpoint)))
			return fsd_fail(
				st->errmsg, -EBUSY,
				"the data directory %s is in use by the daemon of %s, pid %d: "
				"'dqlitefs umount' it, or give another with --data DIR",
				st->data, mount.mountpoint, owner);
		if (waited_ms >= LOCK_PATIENCE_MS)
			return fsd_fail(
				st->errmsg, -EBUSY,
				"the data directory %s is in use by a daemon, pid %d: end that "
				"one, or give another with --data DIR",
				st->data, owner);
		usleep(100000);
	}
}

/* Another node's data directory must stay its own. */
static int check_nesting(struct fsd_start *st)
{
	char parent[PATH_MAX], node[PATH_MAX + 32];
	char *slash;

	strcpy(parent, st->data);
	while ((slash = strrchr(parent, '/')) && slash != parent) {
		*slash = '\0';
		snprintf(node, sizeof(node), "%s/%s/%s", parent, FSD_STATE_DIR, FSD_NODE_FILE);
		if (!access(node, F_OK))
			return fsd_fail(
				st->errmsg, -EINVAL,
				"the data directory %s lies inside that of another node (%s): "
				"give another with --data DIR",
				st->data, parent);
	}
	return 0;
}

/* Only a new file system's lost+found may lie in a directory that is to become ours. */
static int check_foreign(struct fsd_start *st)
{
	DIR *dir = opendir(st->data);
	struct dirent *entry;
	int rv = 0;

	if (!dir)
		return fsd_fail(st->errmsg, -errno, "cannot read the data directory %s: %s",
				st->data, strerror(errno));
	while (!rv && (entry = readdir(dir))) {
		const char *name = entry->d_name;

		if (strcmp(name, ".") && strcmp(name, "..") && strcmp(name, FSD_STATE_DIR) &&
		    strcmp(name, "lost+found"))
			rv = fsd_fail(
				st->errmsg, -ENOTEMPTY,
				"the data directory %s holds other files (%s) and no node: give an "
				"empty or a new one with --data DIR",
				st->data, name);
	}
	closedir(dir);
	return rv;
}

static int check_data(struct fsd_start *st)
{
	struct fsd *fs = st->fs;
	struct stat stat_buf;
	int rv;

	fs->data_fd = open(st->data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fs->data_fd < 0 && errno == ENOENT)
		return 0;
	if (fs->data_fd < 0)
		return fsd_fail(
			st->errmsg, -errno,
			"cannot use the data directory %s (%s): give another with --data DIR",
			st->data, strerror(errno));
	fs->state_fd = openat(fs->data_fd, FSD_STATE_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fs->state_fd >= 0) {
		rv = check_lock(st);
		if (rv)
			return rv;
		rv = fsd_identity_read(fs->state_fd, &fs->identity, st->errmsg);
		if (rv && rv != -ENOENT)
			return rv;
		st->has_identity = !rv;
		st->has_raft = !stat(st->raft, &stat_buf);
	}
	return st->has_identity ? 0 : check_foreign(st);
}

static int check_identity(struct fsd_start *st)
{
	const struct fsd_options *options = st->options;
	struct fsd_identity *identity = &st->fs->identity;

	if (!st->has_identity)
		return 0;
	if (identity->state == FSD_RECOVERING)
		return fsd_fail(st->errmsg, -EINPROGRESS,
				"the recovery of the node in %s was begun and not finished: run "
				"'dqlitefs recover --data DIR --yes' again",
				st->data);
	if (st->has_raft)
		identity->state = FSD_MEMBER;
	else if (identity->state == FSD_MEMBER)
		return fsd_fail(
			st->errmsg, -ENOENT,
			"the log %s is gone: bring it back from a backup, or empty the data "
			"directory and join again with --join",
			st->raft);
	if (identity->state == FSD_JOINING && !options->join)
		return fsd_fail(st->errmsg, -EINVAL,
				"this node had not finished joining its cluster: say again --join "
				"HOST:PORT");
	if (options->listen && strcmp(options->listen, identity->address))
		return fsd_fail(
			st->errmsg, -EINVAL,
			"the node in %s has the address %s: leave out --listen, or give that",
			st->data, identity->address);
	if (identity->state == FSD_STARTING && options->join) {
		/* Its own cluster was never made: it may as well join one. */
		identity->state = FSD_JOINING;
		identity->cluster = 0;
	}
	return 0;
}

/* Is what listens there a node? One that is asked to join a cluster that does not exist says no, and
 * nothing has changed anywhere. */
static int check_peer(struct fsd_start *st)
{
	struct rlog_joiner nobody = {.id = fsd_identity_random32(),
				     .address = st->fs->identity.address,
				     .cluster_id = fsd_identity_random64()};
	int rv = rlog_join(st->options->join, &nobody, FSD_JOIN_TIMEOUT_MS, st->errmsg);

	return rv == -EXDEV ? 0 : rv ? rv : -EPROTO;
}

static int check_network(struct fsd_start *st)
{
	const struct fsd_options *options = st->options;
	struct fsd_identity *identity = &st->fs->identity;
	char probe_error[FSD_ERRMSG_SIZE], actual[FSD_ADDRESS_SIZE];
	const char *address;
	int rv;

	address = st->has_identity  ? identity->address
		  : options->listen ? options->listen
				    : "127.0.0.1:0";
	st->listen_fd = fsd_addr_listen(address, actual, st->errmsg);
	/* The kernel takes io_uring's files away from a daemon that was killed a moment after it has
	 * ended: wait for the former one's port. */
	for (int waited_ms = 0;
	     st->listen_fd == -EADDRINUSE && st->has_identity && waited_ms < PORT_PATIENCE_MS;
	     waited_ms += 50) {
		usleep(50000);
		st->listen_fd = fsd_addr_listen(address, actual, st->errmsg);
	}
	if (st->listen_fd < 0) {
		if (st->listen_fd == -EADDRINUSE && st->has_identity)
			snprintf(st->errmsg, FSD_ERRMSG_SIZE,
				 "the node's address %s is in use: stop what uses it (another "
				 "address would need --listen and a new node)",
				 address);
		return st->listen_fd;
	}
	strcpy(identity->address, actual);
	if (!options->join)
		return 0;
	if (!strcmp(options->join, identity->address))
		return fsd_fail(
			st->errmsg, -EINVAL,
			"--join %s is this node's own address: give that of a running member",
			options->join);
	rv = fsd_addr_probe(options->join, PROBE_TIMEOUT_MS, probe_error);
	/* A member finds its cluster by itself; what --join names may be down then. */
	if (rv && (rv == -EINVAL || !st->has_raft))
		return fsd_fail(st->errmsg, rv, "%s", probe_error);
	if (!st->has_raft)
		return check_peer(st);
	if (!rv) {
		struct rlog_joiner self = {.id = identity->node,
					   .address = identity->address,
					   .cluster_id = identity->cluster};

		rv = rlog_join(options->join, &self, RECHECK_TIMEOUT_MS, st->errmsg);
		identity->cluster = self.cluster_id;
		if (rv == -EXDEV)
			return fsd_fail(
				st->errmsg, rv,
				"the data directory %s belongs to cluster %016" PRIx64
				", %s to another: leave out --join, or give another --data "
				"DIR; if that cluster was recovered without this node, empty "
				"the data directory and join again",
				st->data, identity->cluster, options->join);
	}
	return 0;
}

int fsd_start_check(struct fsd_start *st)
{
	struct fsd *fs = st->fs;
	int rv = 0;

	if (geteuid() != 0)
		return fsd_fail(st->errmsg, -EPERM, "mount needs root: run it with sudo");
	if ((rv = fsd_kernel_check(st->errmsg)) || (rv = check_mountpoint(st)) ||
	    (rv = check_paths(st)) || (rv = check_nesting(st)) || (rv = check_data(st)) ||
	    (rv = check_identity(st)) || (rv = check_network(st)) ||
	    (rv = fsd_kernel_uring(st->options->uring, &fs->uring, st->errmsg)))
		return rv;
	fs->shm_fd = fsd_kernel_tmpfs(st->errmsg);
	if (fs->shm_fd < 0)
		return fs->shm_fd;
	fs->mountpoint = strdup(st->mountpoint);
	fs->data_path = strdup(st->data);
	if (!fs->mountpoint || !fs->data_path)
		return fsd_fail(st->errmsg, -ENOMEM, "out of memory");
	return fsd_session_prepare(fs, &fsd_ops, st->options->mount_options, st->errmsg);
}
