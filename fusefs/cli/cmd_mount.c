/* dqlitefs mount: reads the options, becomes a daemon, and tells its parent when the directory is
 * mounted.
 *
 * The daemon is forked before anything else is done, so that descriptors, locks and threads are its
 * own from the beginning. Until it is ready it keeps the terminal, for its one line when it fails;
 * the parent waits at a pipe, and goes with the daemon's exit code or, with 0, once it is ready.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cli/cli.h"
#include "daemon/daemon.h"
#include "daemon/serve.h"
#include "daemon/start.h"
#include "mount/guard.h"
#include "node/addr.h"
#include "node/log.h"

enum {
	OPT_DATA = 256,
	OPT_LISTEN,
	OPT_JOIN,
	OPT_FOREGROUND,
	OPT_MATCH,
	OPT_URING,
	OPT_COMMIT,
	OPT_ELECTION,
	OPT_TRANSACTION,
	OPT_LOG,
	OPT_LOG_SIZE,
	OPT_SCRUB_RATE
};

static const struct option long_options[] = {
	{"data", required_argument, NULL, OPT_DATA},
	{"listen", required_argument, NULL, OPT_LISTEN},
	{"join", required_argument, NULL, OPT_JOIN},
	{"foreground", no_argument, NULL, OPT_FOREGROUND},
	{"match", required_argument, NULL, OPT_MATCH},
	{"fuse-uring", required_argument, NULL, OPT_URING},
	{"commit-timeout", required_argument, NULL, OPT_COMMIT},
	{"election-timeout", required_argument, NULL, OPT_ELECTION},
	{"max-transaction", required_argument, NULL, OPT_TRANSACTION},
	{"log", required_argument, NULL, OPT_LOG},
	{"log-size", required_argument, NULL, OPT_LOG_SIZE},
	{"scrub-rate", required_argument, NULL, OPT_SCRUB_RATE},
	{0},
};

static bool parse_uring(const char *text, enum fsd_uring *out)
{
	static const char *const names[] = {"auto", "on", "off"};

	for (int i = 0; i < 3; i++) {
		if (!strcmp(text, names[i])) {
			*out = (enum fsd_uring)i;
			return true;
		}
	}
	fsd_complain("--fuse-uring=%s is none of auto, on, off", text);
	return false;
}

/* A positive number, times `scale`, within what a timeout may be. */
static bool parse_timeout(const char *option, const char *text, double scale, unsigned min_ms,
			  unsigned *out_ms)
{
	const unsigned max_ms = 3600 * 1000;
	char *end;
	double value = strtod(text, &end) * scale;

	if (end == text || *end || !(value >= min_ms && value <= max_ms)) {
		fsd_complain("--%s %s: give a number from %g to %g", option, text, min_ms / scale,
			     max_ms / scale);
		return false;
	}
	*out_ms = (unsigned)value;
	return true;
}

/* Bytes, within [min, max]; powers of 1024. */
static bool parse_size(const char *option, const char *text, uint64_t min, uint64_t max,
		       uint64_t *out)
{
	if (fsd_parse_size(text, out) || *out < min || *out > max) {
		fsd_complain("--%s %s: give a size from %lluM to %lluT, for example 64M", option,
			     text, (unsigned long long)(min >> 20),
			     (unsigned long long)(max >> 40));
		return false;
	}
	return true;
}

static bool parse_address(const char *option, const char *text, const char **out)
{
	char host[FSD_ADDRESS_SIZE], port[FSD_ADDRESS_SIZE];

	if (fsd_addr_split(text, host, port)) {
		fsd_complain("--%s %s is not an address: give HOST:PORT, for example "
			     "127.0.0.1:4001 or [::1]:4001",
			     option, text);
		return false;
	}
	*out = text;
	return true;
}

/* Several -o are one list. */
static bool add_mount_options(const char *text, const char **list)
{
	char *longer;

	if (!*list) {
		*list = text;
		return true;
	}
	if (asprintf(&longer, "%s,%s", *list, text) < 0)
		return false;
	*list = longer;
	return true;
}

static bool parse_match(const char *glob, struct fsd_options *o)
{
	size_t count = 0;

	while (o->match[count])
		count++;
	if (count == FSD_MATCH_MAX) {
		fsd_complain("--match may be given %d times", FSD_MATCH_MAX);
		return false;
	}
	if (!glob[0] || strchr(glob, '/')) {
		fsd_complain("--match '%s': give a file name pattern such as '*.data'", glob);
		return false;
	}
	o->match[count] = glob;
	return true;
}

static int parse(int argc, char **argv, struct fsd_options *o)
{
	int c;

	while ((c = fsd_next_option(argc, argv, ":o:", long_options)) != -1) {
		bool ok = true;

		switch (c) {
		case OPT_DATA:
			o->data = optarg;
			ok = optarg[0];
			if (!ok)
				fsd_complain("--data is empty: give a directory");
			break;
		case OPT_LISTEN:
			ok = parse_address("listen", optarg, &o->listen);
			break;
		case OPT_JOIN:
			ok = parse_address("join", optarg, &o->join);
			break;
		case OPT_FOREGROUND:
			o->foreground = true;
			break;
		case OPT_MATCH:
			ok = parse_match(optarg, o);
			break;
		case OPT_URING:
			ok = parse_uring(optarg, &o->uring);
			break;
		case OPT_COMMIT:
			ok = parse_timeout("commit-timeout", optarg, 1000, 100,
					   &o->commit_timeout_ms);
			break;
		case OPT_ELECTION:
			ok = parse_timeout("election-timeout", optarg, 1, 100,
					   &o->election_timeout_ms);
			break;
		case OPT_TRANSACTION:
			ok = parse_size("max-transaction", optarg, 1u << 20, (uint64_t)1 << 40,
					&o->max_transaction_bytes);
			break;
		case OPT_LOG:
			o->log = optarg;
			break;
		case OPT_LOG_SIZE:
			ok = parse_size("log-size", optarg, 16u << 20, (uint64_t)1 << 40,
					&o->log_bytes);
			break;
		case OPT_SCRUB_RATE:
			ok = parse_size("scrub-rate", optarg, 1u << 20, (uint64_t)1 << 40,
					&o->scrub_rate);
			break;
		case 'o':
			ok = add_mount_options(optarg, &o->mount_options);
			break;
		default:
			ok = false;
		}
		if (!ok)
			return FSD_EXIT_USAGE;
	}
	o->mountpoint = fsd_only_argument(argc, argv, "MOUNTPOINT");
	return o->mountpoint ? 0 : FSD_EXIT_USAGE;
}

static void prepare_process(void)
{
	struct rlimit files;
	sigset_t signals;

	umask(0);
	signal(SIGPIPE, SIG_IGN);
	/* serve.c reads them from a descriptor; threads inherit the mask. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

static void become_quiet(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	/* The data directory's file system, too, must not be held by where we were started. */
	if (chdir("/"))
		fsd_log('W', "cannot go to / error=%s", strerror(errno));
	if (fd < 0)
		return;
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

/* The daemon's life. `ready_fd` is the pipe to the parent, -1 in the foreground. */
static int run(const struct fsd_options *options, int ready_fd)
{
	char errmsg[FSD_ERRMSG_SIZE] = "";
	struct fsd *fs;
	int control_fd, rv;

	prepare_process();
	fs = fsd_new();
	rv = fs ? fsd_guard_start(&fs->guard, errmsg) : -ENOMEM;
	if (!rv) {
		rv = fsd_start(fs, options, &control_fd, errmsg);
		if (rv)
			fsd_guard_stop(fs->guard);
	}
	if (rv) {
		fsd_complain("%s", errmsg[0] ? errmsg : strerror(-rv));
		return FSD_EXIT_FAILED;
	}
	if (ready_fd >= 0) {
		become_quiet();
		if (write(ready_fd, "", 1) != 1)
			fsd_log('W', "nobody waits for the mount any more");
		close(ready_fd);
	}
	rv = fsd_serve(fs, control_fd);
	fsd_guard_stop(fs->guard);
	return rv;
}

static int wait_until_ready(pid_t child, int ready_fd)
{
	char byte;
	int status;

	if (read(ready_fd, &byte, 1) == 1)
		return 0;
	if (waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status))
		return WEXITSTATUS(status); /* it said why */
	fsd_complain("the daemon died while it started: see its log, or try --foreground");
	return FSD_EXIT_FAILED;
}

int fsd_cmd_mount(int argc, char **argv)
{
	struct fsd_options options = {0};
	int rv = parse(argc, argv, &options), pipe_fds[2];
	pid_t child;

	if (rv)
		return rv;
	if (options.foreground)
		return run(&options, -1);
	if (pipe2(pipe_fds, O_CLOEXEC) || (child = fork()) < 0) {
		fsd_complain("cannot start the daemon: %s", strerror(errno));
		return FSD_EXIT_FAILED;
	}
	if (!child) {
		close(pipe_fds[0]);
		setsid();
		exit(run(&options, pipe_fds[1]));
	}
	close(pipe_fds[1]);
	return wait_until_ready(child, pipe_fds[0]);
}
