/* Starts a node: the checks, the data directory, the identity, the log, the mount.
 *
 * All checks come first and leave no trace (checks.c). Everything else is made so that a crash at any point
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

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/checks.h"
#include "daemon/control.h"
#include "daemon/daemon.h"
#include "daemon/host.h"
#include "mount/place.h"
#include "node/log.h"
#include "node/stop.h"
#include "ops/refusals.h"

#define NAMES_ELECTIONS 4 /* timeouts, after which one would have had a result */

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

static int make_directories(struct fsd_start *st)
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
			return fsd_fail(st->errmsg, rv ? rv : -errno,
					"cannot make the data directory %s: %s", st->data,
					strerror(rv ? -rv : errno));
	}
	if (fs->state_fd < 0) {
		if (!mkdirat(fs->data_fd, FSD_STATE_DIR, 0700))
			st->made_state = true;
		fs->state_fd = openat(fs->data_fd, FSD_STATE_DIR,
				      O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (fs->state_fd < 0 || fsync(fs->data_fd))
			return fsd_fail(st->errmsg, -errno, "cannot make %s/%s: %s", st->data,
					FSD_STATE_DIR, strerror(errno));
	}
	if (fs->lock_fd < 0)
		fs->lock_fd = fsd_identity_lock(fs->state_fd, true, &owner);
	if (fs->lock_fd < 0)
		return fsd_fail(st->errmsg, fs->lock_fd, "cannot lock the data directory %s: %s",
				st->data, strerror(-fs->lock_fd));
	rv = fsd_identity_sign_lock(fs->lock_fd);
	if (rv)
		return fsd_fail(st->errmsg, rv, "cannot write in the data directory %s: %s",
				st->data, strerror(-rv));
	return 0;
}

/* Take back what this start made, as long as nothing of the node has got out. */
static void unmake(struct fsd_start *st)
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

static int join(struct fsd_start *st)
{
	struct fsd_identity *identity = &st->fs->identity;
	struct rlog_joiner self = {.id = identity->node,
				   .address = identity->address,
				   .cluster_id = identity->cluster};
	int rv = rlog_join(st->options->join, &self, FSD_JOIN_TIMEOUT_MS, st->errmsg);

	identity->cluster = self.cluster_id;
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

static int make_node(struct fsd_start *st)
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
	rlog_new_cluster_forget(st->raft); /* of a recovery that got nowhere */
	identity->state = FSD_MEMBER;
	return fsd_identity_write(fs->state_fd, identity, st->errmsg);
}

/* SIGHUP opens it again by its name, from another working directory. */
static int open_log(struct fsd_start *st)
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
		return fsd_fail(st->errmsg, rv, "cannot open the log %s: %s", path, strerror(-rv));
	return 0;
}

/* ---- all of it --------------------------------------------------------------------------------- */

static int start_replication(struct fsd_start *st)
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
		.host = fsd_host_calls,
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

static int start_serving(struct fsd *fs, char errmsg[FSD_ERRMSG_SIZE])
{
	int rv = fsd_refusals_start(fs);

	if (!rv)
		return fsd_place_mount(fs, errmsg);
	return fsd_fail(errmsg, rv,
			"the kernel did not start the file system: see its log (dmesg)");
}

int fsd_start(struct fsd *fs, const struct fsd_options *options, int *control_fd,
	      char errmsg[FSD_ERRMSG_SIZE])
{
	struct fsd_start st = {.fs = fs, .options = options, .errmsg = errmsg, .listen_fd = -1};
	int rv;

	/* Entries of the log, about a MiB each, go from thread to thread: their memory goes back to the
	 * system when they go, and not into an arena of whoever allocated them. */
	mallopt(M_MMAP_THRESHOLD, 256 << 10);
	if ((rv = fsd_start_check(&st)) || (rv = make_directories(&st)) || (rv = open_log(&st)) ||
	    (rv = make_node(&st)))
		return rv;
	*control_fd = fsd_control_listen(fs->state_fd, errmsg);
	if (*control_fd < 0)
		return *control_fd;
	rv = start_replication(&st);
	if (rv)
		return rv;
	rv = start_serving(fs, errmsg);
	if (rv) {
		fsd_stop_ask(fs->stop, 0);
		fsd_place_detach(fs);
		fsd_end_session(fs);
		wrep_close(fs->wrep);
		unlinkat(fs->state_fd, FSD_CONTROL_SOCKET, 0);
	}
	return rv;
}
