/* In the good case: a thread is made that does nothing but fork the guard and wait for its end. The
 * mount is there, and fsd_guard_watch() sends its number; the guard opens the connection's `abort`
 * file, answers, and sleeps. fsd_guard_hold() gives it a descriptor that keeps the mount. When the daemon
 * stops it says so, and the guard goes.
 *
 * Why the guard keeps the mount until the daemon is gone, threads and all: whoever drops the last
 * reference takes the file system down, and waits for the requests that are still in the rings. If that
 * is a dying thread of the daemon's whose ring holds one of them, it waits for itself (seen on Linux
 * 6.18): the process never ends, nor does any sync(2) on that machine.
 *
 * Three things wake the guard when the daemon dies, each for what the others do not see:
 *
 *   PDEATHSIG     The kernel sends it when the *thread* dies that forked, whatever becomes of the
 *                 daemon's other threads. That thread never touches the mount, so nothing keeps it
 *                 from dying; the main thread, which does, would not be good enough.
 *   the socket    is closed when the whole process is gone: before PDEATHSIG was set.
 *   a message     from the handler of signals that dump core. The kernel waits for all threads
 *                 before it dumps, and only then lets them die.
 *
 * To abort is not always enough then: a request that the kernel has put into a ring, but whose thread has
 * not been told yet, ends with that thread, and that one waits for the dump, which waits for the thread of
 * the daemon's that made the request (seen on Linux 6.18). So where the limit on core files says that no core
 * is wanted, none is dumped: the threads die at once.
 */
#include "mount/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "mount/kernel.h"
#include "mount/mountinfo.h"
#include "node/identity.h"
#include "node/log.h"
#include "node/process.h"

#define ANSWER_TIMEOUT_MS 5000
#define DEATH_SIGNAL SIGUSR1
#define SOCKET 0 /* the guard's only descriptor, at first */

/* The daemon's messages to it, a byte each. */
enum { CRASHING, HOLDS, STOPPED };

/* ---- in the guard ------------------------------------------------------------------------------ */

/* A fork of a process with threads: only what is safe in a signal handler may be called here. */

static int abort_fd = -1, daemon_fd = -1;

/* The mount that it holds goes with the guard. `dead`: not before the daemon. */
static void leave(bool dead) __attribute__((noreturn));
static void leave(bool dead)
{
	ssize_t written = abort_fd < 0 ? 0 : write(abort_fd, "1", 1);
	struct pollfd gone = {.fd = daemon_fd, .events = POLLIN};

	if (dead && daemon_fd >= 0)
		while (poll(&gone, 1, -1) < 0 && errno == EINTR)
			;
	_exit(written < 0);
}

static void on_death(int signal)
{
	(void)signal;
	leave(true);
}

/* The next message's byte; -1: the daemon is dead. A descriptor that comes along stays open. */
static int next_message(void)
{
	char control[CMSG_SPACE(sizeof(int))];
	uint8_t byte;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	ssize_t got;

	do
		got = recvmsg(SOCKET, &msg, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	return got == 1 ? byte : -1;
}

static void keep_nothing(int socket)
{
	dup2(socket, SOCKET);
	close_range(SOCKET + 1, ~0U, 0);
	if (chdir("/"))
		_exit(1);
}

/* Not to be killed along with the daemon by what looks for its name, its command line, or its process
 * group. ps shows the command line, killall and pkill go by the name. */
static void look_different(void)
{
	static const char line[] = "dqlitefs-guard";
	char *old = program_invocation_name; /* glibc: argv[0], which the other arguments follow */
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	char piece[256];
	size_t size = 0;
	ssize_t got;

	setsid();
	prctl(PR_SET_NAME, "fsd-guard");
	if (fd < 0)
		return;
	while ((got = read(fd, piece, sizeof(piece))) > 0)
		size += (size_t)got;
	close(fd);
	if (size >= sizeof(line)) {
		memset(old, 0, size);
		memcpy(old, line, sizeof(line));
	}
}

static void guard_main(int socket) __attribute__((noreturn));
static void guard_main(int socket)
{
	struct sigaction action = {.sa_handler = on_death};
	sigset_t signals;
	uint32_t connection;
	bool dead = false;
	int answer;

	sigaction(DEATH_SIGNAL, &action, NULL);
	sigfillset(&signals);
	sigdelset(&signals, DEATH_SIGNAL);
	sigprocmask(SIG_SETMASK, &signals, NULL);
	prctl(PR_SET_PDEATHSIG, DEATH_SIGNAL);
	keep_nothing(socket);
	daemon_fd = (int)syscall(SYS_pidfd_open, getppid(), 0);
	look_different();
	if (read(SOCKET, &connection, sizeof(connection)) == sizeof(connection)) {
		abort_fd = fsd_kernel_open_abort(connection);
		answer = abort_fd < 0 ? abort_fd : 0;
		if (write(SOCKET, &answer, sizeof(answer)) == sizeof(answer))
			while ((answer = next_message()) == HOLDS)
				;
		dead = answer != STOPPED;
	}
	leave(dead);
}

/* ---- in the daemon ----------------------------------------------------------------------------- */

struct fsd_guard {
	int fd, child_fd; /* the socket's ends */
	pid_t pid;
	pthread_t thread; /* the guard's parent */
	sem_t forked;
	bool is_there;
	_Atomic bool stopping;
};

static int crash_fd = -1;
static bool dumps_core;

static void on_crash(int signal)
{
	static const uint8_t crashing = CRASHING;

	if (!dumps_core)
		prctl(PR_SET_DUMPABLE, 0);
	send(crash_fd, &crashing, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	raise(signal); /* delivered when we return, to nobody's handler */
}

static void watch_crashes(int fd)
{
	static const int signals[] = {SIGABRT, SIGBUS,	SIGFPE, SIGILL,	 SIGQUIT,
				      SIGSEGV, SIGTRAP, SIGSYS, SIGXCPU, SIGXFSZ};
	const struct sigaction ours = {.sa_handler = on_crash, .sa_flags = SA_RESETHAND};
	struct sigaction now;
	struct rlimit core;

	dumps_core = getrlimit(RLIMIT_CORE, &core) || core.rlim_cur > 0;
	crash_fd = fd;
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		/* A sanitizer may have its own. */
		if (!sigaction(signals[i], NULL, &now) && now.sa_handler == SIG_DFL)
			sigaction(signals[i], &ours, NULL);
	}
}

static void *parent_main(void *arg)
{
	struct fsd_guard *guard = arg;

	prctl(PR_SET_NAME, "fsd-guarded");
	guard->pid = fork();
	if (!guard->pid)
		guard_main(guard->child_fd);
	if (guard->pid < 0)
		guard->pid = -errno;
	sem_post(&guard->forked);
	if (guard->pid < 0)
		return NULL;
	while (waitpid(guard->pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (!atomic_load(&guard->stopping))
		fsd_log('W',
			"the guard process died pid=%d: should this daemon be killed too, it may "
			"hang until its FUSE connection is aborted; mount again when convenient",
			guard->pid);
	return NULL;
}

/* Fork it. 0 or -errno. */
static int guard_fork(struct fsd_guard *guard)
{
	int ends[2], rv;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		return -errno;
	guard->fd = ends[0];
	guard->child_fd = ends[1];
	sem_init(&guard->forked, 0, 0);
	rv = -pthread_create(&guard->thread, NULL, parent_main, guard);
	if (!rv) {
		while (sem_wait(&guard->forked))
			;
		if (guard->pid < 0) {
			rv = guard->pid;
			pthread_join(guard->thread, NULL);
		}
	}
	close(guard->child_fd);
	if (rv) {
		close(guard->fd);
		sem_destroy(&guard->forked);
	}
	return rv;
}

int fsd_guard_start(struct fsd_guard **out, char errmsg[FSD_ERRMSG_SIZE])
{
	struct fsd_guard *guard = calloc(1, sizeof(*guard));
	int rv = guard ? guard_fork(guard) : -ENOMEM;

	if (rv) {
		free(guard);
		guard = NULL;
		snprintf(
			errmsg, FSD_ERRMSG_SIZE,
			"cannot start the daemon's guard process (%s): raise the limits on processes, open "
			"files or memory",
			strerror(-rv));
	} else {
		guard->is_there = true;
	}
	*out = guard;
	return rv;
}

int fsd_guard_watch(struct fsd_guard *guard, unsigned connection)
{
	struct pollfd pfd = {.fd = guard->fd, .events = POLLIN};
	uint32_t message = connection;
	int answer = -EPIPE;

	if (send(guard->fd, &message, sizeof(message), MSG_NOSIGNAL) < 0)
		return -errno;
	if (poll(&pfd, 1, ANSWER_TIMEOUT_MS) != 1)
		return -ETIMEDOUT;
	if (read(guard->fd, &answer, sizeof(answer)) < 0)
		return -errno;
	if (!answer)
		watch_crashes(guard->fd);
	return answer;
}

int fsd_guard_hold(struct fsd_guard *guard, int fd)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {.header = {.cmsg_level = SOL_SOCKET,
				.cmsg_type = SCM_RIGHTS,
				.cmsg_len = CMSG_LEN(sizeof(int))}};
	uint8_t holds = HOLDS;
	struct iovec iov = {.iov_base = &holds, .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};

	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	return sendmsg(guard->fd, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

void fsd_guard_stop(struct fsd_guard *guard)
{
	static const uint8_t stopped = STOPPED;

	if (!guard || !guard->is_there)
		return;
	guard->is_there = false;
	atomic_store(&guard->stopping, true);
	send(guard->fd, &stopped, 1, MSG_NOSIGNAL);
	shutdown(guard->fd, SHUT_RDWR); /* not closed: a crash at this moment still writes to it */
	pthread_join(guard->thread, NULL);
	sem_destroy(&guard->forked);
}

/* ---- in the next program ----------------------------------------------------------------------- */

/* The holder of the lock of a data directory; 0: nobody. */
static pid_t owner_of(const char *data)
{
	char path[PATH_MAX + 32];
	pid_t owner = 0;
	int fd, state_fd;

	snprintf(path, sizeof(path), "%s/%s", data, FSD_STATE_DIR);
	state_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (state_fd < 0)
		return 0;
	fd = fsd_identity_lock(state_fd, false, &owner);
	if (fd >= 0)
		close(fd);
	close(state_fd);
	return fd == -EWOULDBLOCK ? owner : 0;
}

void fsd_guard_stand_in(const char *mountpoint)
{
	struct fsd_mountinfo mount;
	struct statx stx;
	pid_t owner;
	int fd;

	if (fsd_mountinfo_at(mountpoint, &mount) || strcmp(mount.fstype, FSD_FSTYPE))
		return;
	owner = owner_of(mount.source);
	/* Nobody is asked for this: the device is the kernel's own knowledge. */
	if (!owner || !fsd_process_is_dying(owner) ||
	    statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &stx))
		return;
	fd = fsd_kernel_open_abort(stx.stx_dev_minor);
	if (fd < 0)
		return;
	if (write(fd, "1", 1) == 1)
		fsd_log('W', "the daemon pid=%d was killed and hung: its mount was aborted", owner);
	close(fd);
}
