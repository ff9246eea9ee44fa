/* The daemon's main loop, and its end.
 *
 * The loop sleeps until a signal asks it to stop, a client of the control socket (clients.c) says
 * something, the table of mounts changes, or somebody wakes it. It ends when the visible mount is gone and
 * no application has a file open: `umount` refuses while one has, `umount -l` does not, and then the
 * applications go on until they close their files, but not as the leader's (handover.c), nor with what they
 * were writing under a rollback journal (wrep_unmounted()).
 *
 * The end, in order: leadership goes to another node, so that the others do not wait for an election;
 * the control socket closes; what applications change is refused; walrepl stops, while the session still
 * answers its own requests, and those that read; then the visible mount goes; then these are refused as well,
 * walrepl closes, and the clone and the session go.
 *
 * The visible mount goes that late because of rollback journals. SQLite finds them by their path. A reader
 * that does not see a -journal takes what a writer left half done for committed, and a writer whose -journal is
 * not where he made it cannot finish. So the names stay until walrepl has taken back whatever is not
 * committed.
 */
#include "daemon/serve.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "daemon/clients.h"
#include "daemon/daemon.h"
#include "daemon/handover.h"
#include "mount/place.h"
#include "node/log.h"
#include "node/stop.h"
#include "ops/admission.h"
#include "ops/handle.h"
#include "ops/open_queue.h"
#include "ops/standin.h"

static void shut_down(struct fsd *fs, struct fsd_clients *clients, struct fsd_handover *handover)
{
	fsd_log('I', "shutting down");
	if (!fsd_stop_exit_code(fs->stop))
		fsd_hand_over(fs);
	/* Their threads use walrepl. */
	if (clients)
		fsd_clients_free(clients);
	if (handover)
		fsd_handover_free(handover);
	fsd_admission_restrict(fs, FSD_ADMITS_READING);
	fsd_standins_stop(fs);
	wrep_stop(fs->wrep);
	fsd_place_detach(fs);
	fsd_admission_restrict(fs, FSD_ADMITS_NONE);
	wrep_close(fs->wrep);
	fsd_end_session(fs);
	unlinkat(fs->state_fd, FSD_CONTROL_SOCKET, 0);
	fsd_log('I', "ended exit=%d", fsd_stop_exit_code(fs->stop));
}

static int signals_open(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* SIGHUP: what is read from files once is read again, and what is written to files goes to those that have
 * the names now. Certificates will be reread here, too. */
static void reopen(void)
{
	fsd_log_reopen();
}

static void take_signals(struct fsd *fs, int fd)
{
	struct signalfd_siginfo info;

	while (read(fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGHUP) {
			reopen();
			continue;
		}
		fsd_log('I', "asked to stop by a signal");
		fsd_stop_ask(fs->stop, 0);
	}
}

static int sooner(int a_ms, int b_ms)
{
	return a_ms < 0 || (b_ms >= 0 && b_ms < a_ms) ? b_ms : a_ms;
}

int fsd_serve(struct fsd *fs, int control_fd)
{
	enum { SIGNALS, WAKE, MOUNTS, CLIENTS, ROOM = CLIENTS + FSD_CLIENTS_POLLED };
	struct fsd_clients *clients = fsd_clients_new(fs, control_fd);
	struct fsd_handover *handover = fsd_handover_new(fs);
	struct pollfd fds[ROOM] = {
		[SIGNALS] = {.fd = signals_open(), .events = POLLIN},
		[WAKE] = {.fd = fsd_stop_fd(fs->stop), .events = POLLIN},
		[MOUNTS] = {.events = POLLPRI},
	};
	bool visible;
	int tick_ms, clients_ms;
	unsigned count;

	fds[MOUNTS].fd = fsd_place_watch(fs->place);
	if (fds[SIGNALS].fd < 0 || fds[MOUNTS].fd < 0 || !clients || !handover) {
		fsd_log('E', "cannot watch for signals, mounts or commands: is /proc mounted?");
		fsd_stop_ask(fs->stop, 1);
	}
	/* It may have gone before we watched. */
	visible = fsd_place_is_visible(fs);
	if (!visible)
		wrep_unmounted(fs->wrep);

	while (!fsd_stop_is_asked(fs->stop)) {
		if (!visible && !fsd_app_opens(fs)) {
			fsd_log('I', "unmounted");
			fsd_stop_ask(fs->stop, 0);
			break;
		}
		count = CLIENTS + fsd_clients_watch(clients, fds + CLIENTS, &clients_ms);
		tick_ms = sooner(fsd_opens_tick(fs), clients_ms);
		if (!visible)
			tick_ms = sooner(tick_ms, fsd_handover_look(handover));
		if (poll(fds, count, tick_ms) < 0) {
			if (errno == EINTR)
				continue;
			fsd_log('E', "poll failed error=%s", strerror(errno));
			fsd_stop_ask(fs->stop, 1);
			break;
		}
		fsd_stop_drain(fs->stop);
		if (fds[SIGNALS].revents & POLLIN)
			take_signals(fs, fds[SIGNALS].fd);
		if ((fds[MOUNTS].revents & (POLLPRI | POLLERR)) && visible) {
			visible = fsd_place_is_visible(fs);
			if (!visible)
				wrep_unmounted(fs->wrep);
			if (!visible && fsd_app_opens(fs))
				fsd_log('I',
					"unmounted, serving until the last file is closed; "
					"leadership goes to another node open=%ld",
					fsd_app_opens(fs));
		}
		fsd_clients_turn(clients, fds + CLIENTS);
	}
	shut_down(fs, clients, handover);
	if (fds[SIGNALS].fd >= 0)
		close(fds[SIGNALS].fd);
	if (fds[MOUNTS].fd >= 0)
		close(fds[MOUNTS].fd);
	return fsd_stop_exit_code(fs->stop);
}
