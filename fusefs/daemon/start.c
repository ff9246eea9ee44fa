/* Starts a node: the checks, the data directory, the identity, the log, the mount.
 *
 * All checks come first and leave no trace. What is then made is made so that a crash at any point
 * leaves something that the next start continues:
 *
 *   DATA, DATA/.dqlitefs, its lock      empty: begun anew
 *   node, state "starting"              -> rlog_bootstrap(), whole or not there -> "member"
 *   node, state "joining"               -> rlog_join() under the same number again, the cluster's
 *                                       number saved -> rlog_init_member() -> "member"
 *   raft                                exists: the node is a member, whatever its state says
 *   node, state "recovering"            refused: only dqlitefs recover knows how to go on
 */
#include "daemon/start.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cli/cli.h"
#include "daemon/control.h"
#include "daemon/host.h"
#include "mount/clone.h"
#include "mount/session.h"
#include "node/log.h"
#include "node/mountinfo.h"

#define NAMES_ELECTIONS 4 /* timeouts, after which one would have had a result */
#define LOCK_PATIENCE_MS 10000
#define PORT_PATIENCE_MS 5000
#define PROBE_TIMEOUT_MS 3000
#define JOIN_TIMEOUT_MS 15000
#define RECHECK_TIMEOUT_MS 1000

/* The state of one start, on top of the mount that it makes. */
struct start {
	struct fsd *fs;
	const struct fsd_options *options;
	char *errmsg;
	char mountpoint[PATH_MAX], data[PATH_MAX], raft[PATH_MAX + 32];
	bool has_identity, has_raft;
	bool made_data, made_state; /* by this start */
	int listen_fd;
};

/* Returns `rv`, with a line that says why. */
static int fail(struct start *st, int rv, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static int fail(struct start *st, int rv, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(st->errmsg, FSD_ERRMSG_SIZE, format, args);
	va_end(args);
	return rv;
}

/* ---- checks ------------------------------------------------------------------------------------ */

static int check_mountpoint(struct start *st)
{
	const char *given = st->options->mountpoint;
	struct fsd_mountinfo mount;
	struct stat stat_buf;

	if (fsd_path_resolve(given, st->mountpoint))
		return fail(st, -ENOENT, "the mount point %s does not exist: make it with mkdir",
			    given);
	fsd_guard_stand_in(st->mountpoint);
	if (stat(st->mountpoint, &stat_buf)) {
		if (errno == ENOENT)
			return fail(st, -ENOENT,
				    "the mount point %s does not exist: make it with mkdir", given);
		if ((errno != ENOTCONN && errno != ECONNABORTED) ||
		    fsd_mountinfo_at(st->mountpoint, &mount)) {
			int rv = -errno;

			return fail(st, rv, "cannot use the mount point %s: %s", given,
				    strerror(-rv));
		}
		if (strcmp(mount.fstype, FSD_FSTYPE))
			return fail(st, -ENOTCONN,
				    "a dead mount of type %s is at %s: remove it with umount",
				    mount.fstype, given);
		/* Left by a daemon of ours that was killed: fsd_mount_start() takes its place. */
		st->fs->dead_mount = true;
		return 0;
	}
	if (!S_ISDIR(stat_buf.st_mode))
		return fail(st, -ENOTDIR, "the mount point %s is not a directory: give one", given);
	if (!fsd_mountinfo_at(st->mountpoint, &mount) && !strcmp(mount.fstype, FSD_FSTYPE))
		return fail(st, -EBUSY,
			    "%s is mounted already (data directory %s): 'dqlitefs umount' it first",
			    given, mount.source);
	return 0;
}

/* Where a disk is not mounted, or a name is mistyped, no new node shall begin. */
static int check_parent(struct start *st)
{
	char parent[PATH_MAX];
	char *slash;

	strcpy(parent, st->data);
	slash = strrchr(parent, '/');
	slash[slash == parent] = '\0';
	if (access(parent, F_OK))
		return fail(st, -errno,
			    "cannot make the data directory %s: %s: %s (make it with mkdir -p, or "
			    "mount the disk that holds it)",
			    st->data, parent, strerror(errno));
	return 0;
}

static int check_paths(struct start *st)
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
		return fail(st, rv, "cannot use the data directory %s: %s", data, strerror(-rv));
	if (!strcmp(st->data, st->mountpoint))
		return fail(
			st, -EINVAL,
			"the data directory is the mount point %s: give another with --data DIR",
			st->data);
	if (fsd_path_within(st->mountpoint, st->data))
		return fail(st, -EINVAL,
			    "the mount point %s lies inside the data directory %s: give another "
			    "mount point",
			    st->mountpoint, st->data);
	if (fsd_path_within(st->data, st->mountpoint))
		return fail(st, -EINVAL,
			    "the data directory %s lies inside the mount point %s: give another "
			    "with --data DIR",
			    st->data, st->mountpoint);
	snprintf(st->raft, sizeof(st->raft), "%s/%s/%s", st->data, FSD_STATE_DIR, FSD_LOG_DIR);
	return st->options->data ? check_parent(st) : 0;
}

/* A daemon that was just unmounted, or killed, holds its lock until it has ended: wait for it, not
 * for one whose mount is there and alive. */
static int check_lock(struct start *st)
{
	struct fsd_mountinfo mount;
	pid_t owner;

	for (int waited_ms = 0;; waited_ms += 100) {
		st->fs->lock_fd = fsd_identity_lock(st->fs->state_fd, false, &owner);
		if (st->fs->lock_fd >= 0 || st->fs->lock_fd == -ENOENT)
			return 0;
		if (st->fs->lock_fd != -EWOULDBLOCK)
			return fail(st, st->fs->lock_fd, "cannot lock the data directory %s: %s",
				    st->data, strerror(-st->fs->lock_fd));
		if (!fsd_mountinfo_of_data(st->data, &mount) &&
		    !(st->fs->dead_mount && !strcmp(mount.mountpoint, st->mountpoint)))
			return fail(st, -EBUSY,
				    "the data directory %s is in use by the daemon of %s, pid %d: "
				    "'dqlitefs umount' it, or give another with --data DIR",
				    st->data, mount.mountpoint, owner);
		if (waited_ms >= LOCK_PATIENCE_MS)
			return fail(st, -EBUSY,
				    "the data directory %s is in use by a daemon, pid %d: end that "
				    "one, or give another with --data DIR",
				    st->data, owner);
		usleep(100000);
	}
}

/* Another node's data directory must stay its own. */
static int check_nesting(struct start *st)
{
	char parent[PATH_MAX], node[PATH_MAX + 32];
	char *slash;

	strcpy(parent, st->data);
	while ((slash = strrchr(parent, '/')) && slash != parent) {
		*slash = '\0';
		snprintf(node, sizeof(node), "%s/%s/%s", parent, FSD_STATE_DIR, FSD_NODE_FILE);
		if (!access(node, F_OK))
			return fail(st, -EINVAL,
				    "the data directory %s lies inside that of another node (%s): "
				    "give another with --data DIR",
				    st->data, parent);
	}
	return 0;
}

/* Only a new file system's lost+found may lie in a directory that is to become ours. */
static int check_foreign(struct start *st)
{
	DIR *dir = opendir(st->data);
	struct dirent *entry;
	int rv = 0;

	if (!dir)
		return fail(st, -errno, "cannot read the data directory %s: %s", st->data,
			    strerror(errno));
	while (!rv && (entry = readdir(dir))) {
		const char *name = entry->d_name;

		if (strcmp(name, ".") && strcmp(name, "..") && strcmp(name, FSD_STATE_DIR) &&
		    strcmp(name, "lost+found"))
			rv = fail(
				st, -ENOTEMPTY,
				"the data directory %s holds other files (%s) and no node: give an "
				"empty or a new one with --data DIR",
				st->data, name);
	}
	closedir(dir);
	return rv;
}

static int check_data(struct start *st)
{
	struct fsd *fs = st->fs;
	struct stat stat_buf;
	int rv;

	fs->data_fd = open(st->data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fs->data_fd < 0 && errno == ENOENT)
		return 0;
	if (fs->data_fd < 0)
		return fail(st, -errno,
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

static int check_identity(struct start *st)
{
	const struct fsd_options *options = st->options;
	struct fsd_identity *identity = &st->fs->identity;

	if (!st->has_identity)
		return 0;
	if (identity->state == FSD_RECOVERING)
		return fail(st, -EINPROGRESS,
			    "the recovery of the node in %s was begun and not finished: run "
			    "'dqlitefs recover --data DIR --yes' again",
			    st->data);
	if (st->has_raft)
		identity->state = FSD_MEMBER;
	else if (identity->state == FSD_MEMBER)
		return fail(st, -ENOENT,
			    "the log %s is gone: bring it back from a backup, or empty the data "
			    "directory and join again with --join",
			    st->raft);
	if (identity->state == FSD_JOINING && !options->join)
		return fail(st, -EINVAL,
			    "this node had not finished joining its cluster: say again --join "
			    "HOST:PORT");
	if (options->listen && strcmp(options->listen, identity->address))
		return fail(st, -EINVAL,
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
static int check_peer(struct start *st)
{
	uint64_t nowhere = fsd_identity_random64();
	int rv = rlog_join(st->options->join, fsd_identity_random32(), st->fs->identity.address,
			   &nowhere, JOIN_TIMEOUT_MS, st->errmsg);

	return rv == -EXDEV ? 0 : rv ? rv : -EPROTO;
}

static int check_network(struct start *st)
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
		return fail(st, -EINVAL,
			    "--join %s is this node's own address: give that of a running member",
			    options->join);
	rv = fsd_addr_probe(options->join, PROBE_TIMEOUT_MS, probe_error);
	/* A member finds its cluster by itself; what --join names may be down then. */
	if (rv && (rv == -EINVAL || !st->has_raft))
		return fail(st, rv, "%s", probe_error);
	if (!st->has_raft)
		return check_peer(st);
	if (!rv) {
		rv = rlog_join(options->join, identity->node, identity->address, &identity->cluster,
			       RECHECK_TIMEOUT_MS, st->errmsg);
		if (rv == -EXDEV)
			return fail(st, rv,
				    "the data directory %s belongs to cluster %016" PRIx64
				    ", %s to another: leave out --join, or give another --data "
				    "DIR; if that cluster was recovered without this node, empty "
				    "the data directory and join again",
				    st->data, identity->cluster, options->join);
	}
	return 0;
}

/* ---- the data directory ------------------------------------------------------------------------ */

static int make_parents(const char *path)
{
	char parent[PATH_MAX];

	strcpy(parent, path);
	for (char *c = parent + 1; *c; c++) {
		if (*c != '/')
			continue;
		*c = '\0';
		if (mkdir(parent, 0755) && errno != EEXIST)
			return -errno;
		*c = '/';
	}
	return 0;
}

static int make_directories(struct start *st)
{
	struct fsd *fs = st->fs;
	pid_t owner;
	int rv;

	if (fs->data_fd < 0) {
		rv = make_parents(st->data);
		if (!rv && mkdir(st->data, 0755))
			rv = -errno;
		st->made_data = !rv;
		if (!rv)
			fs->data_fd = open(st->data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fs->data_fd < 0)
			return fail(st, rv ? rv : -errno, "cannot make the data directory %s: %s",
				    st->data, strerror(rv ? -rv : errno));
	}
	if (fs->state_fd < 0) {
		if (!mkdirat(fs->data_fd, FSD_STATE_DIR, 0700))
			st->made_state = true;
		fs->state_fd = openat(fs->data_fd, FSD_STATE_DIR,
				      O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (fs->state_fd < 0 || fsync(fs->data_fd))
			return fail(st, -errno, "cannot make %s/%s: %s", st->data, FSD_STATE_DIR,
				    strerror(errno));
	}
	if (fs->lock_fd < 0)
		fs->lock_fd = fsd_identity_lock(fs->state_fd, true, &owner);
	if (fs->lock_fd < 0)
		return fail(st, fs->lock_fd, "cannot lock the data directory %s: %s", st->data,
			    strerror(-fs->lock_fd));
	rv = fsd_identity_sign_lock(fs->lock_fd);
	if (rv)
		return fail(st, rv, "cannot write in the data directory %s: %s", st->data,
			    strerror(-rv));
	return 0;
}

/* Take back what this start made, as long as nothing of the node has got out. */
static void unmake(struct start *st)
{
	struct fsd *fs = st->fs;

	if (!st->made_state)
		return;
	unlinkat(fs->state_fd, FSD_NODE_FILE, 0);
	unlinkat(fs->state_fd, FSD_LOCK_FILE, 0);
	unlinkat(fs->state_fd, FSD_LOG_FILE, 0);
	unlinkat(fs->data_fd, FSD_STATE_DIR, AT_REMOVEDIR);
	if (st->made_data)
		rmdir(st->data);
}

static int join(struct start *st)
{
	struct fsd_identity *identity = &st->fs->identity;
	int rv = rlog_join(st->options->join, identity->node, identity->address, &identity->cluster,
			   JOIN_TIMEOUT_MS, st->errmsg);

	if (rv) {
		/* These say that it was not added. After others it may have been, under this number:
		 * keep it for the next try. */
		if (rv == -EXDEV || rv == -EPROTO || rv == -EADDRINUSE)
			unmake(st);
		return rv;
	}
	rv = fsd_identity_write(st->fs->state_fd, identity, st->errmsg);
	if (!rv)
		rv = rlog_init_member(st->raft, identity->node, identity->cluster, st->errmsg);
	return rv;
}

static int make_node(struct start *st)
{
	struct fsd *fs = st->fs;
	struct fsd_identity *identity = &fs->identity;
	int rv;

	if (!st->has_identity) {
		identity->node = fsd_identity_random32();
		identity->state = st->options->join ? FSD_JOINING : FSD_STARTING;
		identity->cluster = st->options->join ? 0 : fsd_identity_random64();
	}
	if (!st->has_raft) {
		rv = fsd_identity_write(fs->state_fd, identity, st->errmsg);
		if (rv)
			return rv;
		rv = identity->state == FSD_JOINING
			     ? join(st)
			     : rlog_bootstrap(st->raft, identity->node, identity->cluster,
					      identity->address, st->errmsg);
		if (rv)
			return rv;
		fsync(fs->state_fd);
	}
	rlog_refound_forget(st->raft); /* of a recovery that got nowhere */
	identity->state = FSD_MEMBER;
	return fsd_identity_write(fs->state_fd, identity, st->errmsg);
}

/* SIGHUP opens it again by its name, from another working directory. */
static int open_log(struct start *st)
{
	const char *name = st->options->log;
	char cwd[PATH_MAX] = "", path[2 * PATH_MAX];
	int rv;

	if (st->options->foreground && !name)
		return 0;
	if (!name)
		snprintf(path, sizeof(path), "%s/%s/%s", st->data, FSD_STATE_DIR, FSD_LOG_FILE);
	else if (name[0] == '/' || !getcwd(cwd, sizeof(cwd)))
		snprintf(path, sizeof(path), "%s", name);
	else
		snprintf(path, sizeof(path), "%s/%s", cwd, name);
	rv = fsd_log_to(path);
	if (rv)
		return fail(st, rv, "cannot open the log %s: %s", path, strerror(-rv));
	return 0;
}

/* ---- all of it --------------------------------------------------------------------------------- */

static int check_all(struct start *st)
{
	struct fsd *fs = st->fs;
	int rv = 0;

	if (geteuid() != 0)
		return fail(st, -EPERM, "mount needs root: run it with sudo");
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
		return fail(st, -ENOMEM, "out of memory");
	return fsd_mount_prepare(fs, st->options->mount_options, st->errmsg);
}

static int start_replication(struct start *st)
{
	struct fsd *fs = st->fs;
	const struct wrep_config config = {
		.data_fd = fs->data_fd,
		.state_fd = fs->state_fd,
		.log_bytes = st->options->log_bytes,
		.scrub_rate = st->options->scrub_rate,
		.shm_fd = fs->shm_fd,
		.max_transaction_bytes = st->options->max_transaction_bytes,
		.match = st->options->match,
		.log = {.dir = st->raft,
			.id = fs->identity.node,
			.cluster_id = fs->identity.cluster,
			.address = fs->identity.address,
			.listen_fd = st->listen_fd,
			.election_timeout_ms = st->options->election_timeout_ms,
			.commit_timeout_ms = st->options->commit_timeout_ms},
		.host = fsd_host,
		.host_ctx = fs,
	};

	fs->commit_timeout_ms = st->options->commit_timeout_ms ? st->options->commit_timeout_ms
							       : RLOG_COMMIT_TIMEOUT_MS;
	fs->names_timeout_ms = NAMES_ELECTIONS * (st->options->election_timeout_ms
							  ? st->options->election_timeout_ms
							  : RLOG_ELECTION_TIMEOUT_MS);
	if (fs->names_timeout_ms > fs->commit_timeout_ms)
		fs->names_timeout_ms = fs->commit_timeout_ms;
	fsd_log('I', "starting node=%08" PRIx32 " cluster=%016" PRIx64 " address=%s",
		fs->identity.node, fs->identity.cluster, fs->identity.address);
	return wrep_open(&fs->wrep, &config, st->errmsg);
}

int fsd_start(struct fsd *fs, const struct fsd_options *options, int *control_fd,
	      char errmsg[FSD_ERRMSG_SIZE])
{
	struct start st = {.fs = fs, .options = options, .errmsg = errmsg, .listen_fd = -1};
	int rv;

	/* Entries of the log, about a MiB each, go from thread to thread: their memory goes back to the
	 * system when they go, and not into an arena of whoever allocated them. */
	mallopt(M_MMAP_THRESHOLD, 256 << 10);
	if ((rv = check_all(&st)) || (rv = make_directories(&st)) || (rv = open_log(&st)) ||
	    (rv = make_node(&st)))
		return rv;
	*control_fd = fsd_control_listen(fs->state_fd, errmsg);
	if (*control_fd < 0)
		return *control_fd;
	rv = start_replication(&st);
	if (rv)
		return rv;
	rv = fsd_mount_start(fs, errmsg);
	if (rv) {
		fsd_mount_drop_clone(fs);
		wrep_close(fs->wrep);
		unlinkat(fs->state_fd, FSD_CONTROL_SOCKET, 0);
	}
	return rv;
}
