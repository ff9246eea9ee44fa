/* The daemon's main loop, and its end.
 *
 * The loop sleeps until a signal asks it to stop, a command comes to the control socket, the table
 * of mounts changes, or somebody wakes it. It ends when the visible mount is gone and no application
 * has a file open: `umount` refuses while one has, `umount -l` does not, and then the applications
 * go on until they close their files.
 *
 * The end, in order: the visible mount goes; leadership goes to another node, so that the others do
 * not wait for an election; what applications change is refused; walrepl stops, while the session still
 * answers its own requests, and those that read; then these are refused as well, walrepl closes, and the
 * clone, the session, the control socket go. Until walrepl has stopped a reader must be able to see a
 * -journal: where it cannot, SQLite takes what a writer left half done for committed.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "log.h"
#include "mount.h"
#include "opens.h"

#define TRANSFER_TIMEOUT_MS 2000

static void hand_over(struct fsd *fs)
{
	struct rlog *log = wrep_log(fs->wrep);
	struct rlog_status status;
	unsigned voters = 0;
	int rv;

	rlog_status(log, &status);
	for (unsigned i = 0; i < status.member_count; i++)
		voters += status.members[i].role == RLOG_VOTER;
	if (status.view.role != RLOG_LEADER || voters < 2)
		return;
	rv = rlog_transfer(log, 0, TRANSFER_TIMEOUT_MS);
	if (rv && rv != -EALREADY)
		fsd_log('W', "leadership was not handed over error=%s: the others elect a leader",
			strerror(-rv));
}

static void shut_down(struct fsd *fs, int control_fd)
{
	fsd_log('I', "shutting down");
	fsd_mount_detach(fs);
	if (!atomic_load(&fs->exit_code))
		hand_over(fs);
	atomic_store(&fs->applier, wrep_applier_tid(fs->wrep));
	fsd_ops_close_gate(fs, FSD_GATE_READING);
	wrep_stop(fs->wrep);
	fsd_ops_close_gate(fs, FSD_GATE_SHUT);
	wrep_close(fs->wrep);
	fsd_mount_stop(fs);
	unlinkat(fs->state_fd, FSD_CONTROL_SOCKET, 0);
	close(control_fd);
	fsd_log('I', "ended exit=%d", atomic_load(&fs->exit_code));
}

/* Empties a signalfd or an eventfd. */
static bool drain(int fd)
{
	struct signalfd_siginfo buf;
	bool any = false;

	while (read(fd, &buf, sizeof(buf)) > 0)
		any = true;
	return any;
}

int fsd_serve(struct fsd *fs, int control_fd)
{
	enum { SIGNALS, WAKE, CONTROL, MOUNTS, COUNT };
	struct pollfd fds[COUNT] = {
		[WAKE] = {.fd = fs->wake_fd, .events = POLLIN},
		[CONTROL] = {.fd = control_fd, .events = POLLIN},
		[MOUNTS] = {.events = POLLPRI},
	};
	bool visible = true;
	sigset_t signals;
	int tick_ms = -1;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	fds[SIGNALS].fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	fds[SIGNALS].events = POLLIN;
	fds[MOUNTS].fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	if (fds[SIGNALS].fd < 0 || fds[MOUNTS].fd < 0) {
		fsd_log('E', "cannot watch for signals or mounts error=%s: is /proc mounted?",
			strerror(errno));
		fsd_stop(fs, 1);
	}
	/* It may have gone before we watched. */
	visible = fsd_mount_visible(fs);

	while (!atomic_load(&fs->stopping)) {
		if (!visible && !atomic_load(&fs->app_opens)) {
			fsd_log('I', "unmounted");
			fsd_stop(fs, 0);
			break;
		}
		if (poll(fds, COUNT, tick_ms) < 0 && errno != EINTR) {
			fsd_log('E', "poll failed error=%s", strerror(errno));
			fsd_stop(fs, 1);
			break;
		}
		drain(fs->wake_fd);
		if ((fds[SIGNALS].revents & POLLIN) && drain(fds[SIGNALS].fd)) {
			fsd_log('I', "asked to stop by a signal");
			fsd_stop(fs, 0);
		}
		if ((fds[MOUNTS].revents & (POLLPRI | POLLERR)) && visible) {
			visible = fsd_mount_visible(fs);
			if (!visible && atomic_load(&fs->app_opens))
				fsd_log('I',
					"unmounted, serving until the last file is closed "
					"open=%ld",
					atomic_load(&fs->app_opens));
		}
		if (fds[CONTROL].revents & POLLIN)
			fsd_control_accept(fs, control_fd);
		tick_ms = fsd_opens_tick(fs);
	}
	shut_down(fs, control_fd);
	if (fds[SIGNALS].fd >= 0)
		close(fds[SIGNALS].fd);
	if (fds[MOUNTS].fd >= 0)
		close(fds[MOUNTS].fd);
	return atomic_load(&fs->exit_code);
}
