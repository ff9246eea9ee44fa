#include "daemon/clients.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "daemon/control.h"
#include "mount/mount.h"
#include "node/log.h"
#include "node/stop.h"

#define REQUEST_MAX 4096
#define PATIENCE_MS 10000 /* with a client that neither sends nor takes anything */
#define SHORTAGE_MS 100	  /* between attempts to accept, when there are no descriptors */

enum client_state {
	CLIENT_FREE,
	CLIENT_ASKS,	/* its request is not complete yet */
	CLIENT_WAITS,	/* a thread is at it */
	CLIENT_LISTENS, /* it is being sent the answer */
};

struct client {
	struct fsd_clients *clients;
	enum client_state state;
	int fd;
	unsigned polled;   /* where it stands in what is polled; 0, the listener's place: nowhere */
	uint64_t moved_ms; /* when it last sent or took something */
	char request[REQUEST_MAX];
	size_t request_len;
	pthread_t thread;
	_Atomic bool answered; /* the thread is done with `answer` */
	char *answer;
	size_t answer_len, sent;
};

struct fsd_clients {
	struct fsd *fs;
	int listen_fd, reserve_fd;
	uint64_t accept_ms; /* not before */
	struct client all[FSD_CLIENTS_MAX];
};

static void keep_reserve(struct fsd_clients *c)
{
	if (c->reserve_fd < 0)
		c->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void hang_up(struct client *client)
{
	close(client->fd);
	free(client->answer);
	client->answer = NULL;
	client->state = CLIENT_FREE;
	keep_reserve(client->clients);
}

/* ---- answering ----------------------------------------------------------------------------------- */

static void *answer_main(void *arg)
{
	struct client *client = arg;

	prctl(PR_SET_NAME, "fsd-control");
	client->answer = fsd_control_answer(client->clients->fs, client->request);
	atomic_store(&client->answered, true);
	fsd_stop_wake(client->clients->fs->stop);
	return NULL;
}

static void ask(struct client *client)
{
	atomic_store(&client->answered, false);
	if (pthread_create(&client->thread, NULL, answer_main, client)) {
		fsd_log('W',
			"a request is not answered: no thread for it; raise the limit (ulimit -u)");
		hang_up(client);
		return;
	}
	client->state = CLIENT_WAITS;
}

static void send_on(struct client *client)
{
	while (client->sent < client->answer_len) {
		ssize_t n = send(client->fd, client->answer + client->sent,
				 client->answer_len - client->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0)
			break;
		client->sent += (size_t)n;
		client->moved_ms = rlog_clock_ms();
	}
	hang_up(client);
}

/* Its thread is done, or is waited for. */
static void take_answer(struct client *client)
{
	pthread_join(client->thread, NULL);
	client->state = CLIENT_LISTENS;
	client->moved_ms = rlog_clock_ms();
	client->answer_len = client->answer ? strlen(client->answer) : 0;
	client->sent = 0;
	send_on(client);
}

static void receive(struct client *client)
{
	const size_t room = sizeof(client->request) - 1 - client->request_len;
	ssize_t n = recv(client->fd, client->request + client->request_len, room, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		hang_up(client);
		return;
	}
	client->moved_ms = rlog_clock_ms();
	client->request_len += (size_t)n;
	client->request[client->request_len] = '\0';
	if (memchr(client->request, '\n', client->request_len))
		ask(client);
	else if (client->request_len == sizeof(client->request) - 1)
		hang_up(client); /* too long for any request */
}

/* ---- accepting ----------------------------------------------------------------------------------- */

/* The client that has been silent for longest, if no thread works for it; NULL: threads work for all. */
static struct client *most_silent(struct fsd_clients *c)
{
	struct client *found = NULL;

	for (unsigned i = 0; i < FSD_CLIENTS_MAX; i++) {
		struct client *client = &c->all[i];

		if ((client->state == CLIENT_ASKS || client->state == CLIENT_LISTENS) &&
		    (!found || client->moved_ms < found->moved_ms))
			found = client;
	}
	return found;
}

/* NULL: threads work for all of them. */
static struct client *free_place(struct fsd_clients *c)
{
	struct client *client;

	for (unsigned i = 0; i < FSD_CLIENTS_MAX; i++)
		if (c->all[i].state == CLIENT_FREE)
			return &c->all[i];
	client = most_silent(c);
	if (client)
		hang_up(client);
	return client;
}

static void no_descriptors(struct fsd_clients *c, int error)
{
	static uint64_t logged_ms;
	const uint64_t now = rlog_clock_ms();

	c->accept_ms = now + SHORTAGE_MS;
	if (logged_ms && now - logged_ms < 60000)
		return;
	logged_ms = now;
	fsd_log('W',
		"cannot take a command error=\"%s\": raise the limit on descriptors (ulimit -n)",
		strerror(error));
}

/* With the descriptor that was kept back, or that of a client that says nothing. */
static int accept_with_reserve(struct fsd_clients *c)
{
	struct client *silent = c->reserve_fd < 0 ? most_silent(c) : NULL;

	if (silent)
		hang_up(silent);
	if (c->reserve_fd >= 0)
		close(c->reserve_fd);
	c->reserve_fd = -1;
	return accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC);
}

static void accept_next(struct fsd_clients *c)
{
	struct client *client;
	int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0 && (errno == EMFILE || errno == ENFILE))
		fd = accept_with_reserve(c);
	if (fd < 0) {
		/* Whatever it is, poll() would say again at once that somebody waits. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			no_descriptors(c, errno);
		return;
	}
	client = free_place(c);
	if (!client) {
		close(fd);
		return;
	}
	*client = (struct client){.clients = c,
				  .state = CLIENT_ASKS,
				  .fd = fd,
				  .moved_ms = rlog_clock_ms()};
}

/* ---- the loop's side ----------------------------------------------------------------------------- */

static int sooner(int ms, uint64_t at_ms, uint64_t now_ms)
{
	const int left = at_ms > now_ms ? (int)(at_ms - now_ms) : 0;

	return ms < 0 || left < ms ? left : ms;
}

unsigned fsd_clients_watch(struct fsd_clients *c, struct pollfd *fds, int *ms)
{
	const uint64_t now = rlog_clock_ms();
	unsigned count = 1;
	bool place = false;

	*ms = -1;
	for (unsigned i = 0; i < FSD_CLIENTS_MAX; i++) {
		struct client *client = &c->all[i];

		place = place || client->state != CLIENT_WAITS;
		client->polled = 0;
		if (client->state != CLIENT_ASKS && client->state != CLIENT_LISTENS)
			continue;
		client->polled = count;
		fds[count++] = (struct pollfd){
			.fd = client->fd,
			.events = client->state == CLIENT_ASKS ? POLLIN : POLLOUT,
		};
		*ms = sooner(*ms, client->moved_ms + PATIENCE_MS, now);
	}
	fds[0] = (struct pollfd){.fd = -1, .events = POLLIN}; /* -1: poll() passes it over */
	if (place && now >= c->accept_ms)
		fds[0].fd = c->listen_fd;
	else if (place)
		*ms = sooner(*ms, c->accept_ms, now);
	return count;
}

void fsd_clients_turn(struct fsd_clients *c, const struct pollfd *fds)
{
	const uint64_t now = rlog_clock_ms();

	for (unsigned i = 0; i < FSD_CLIENTS_MAX; i++) {
		struct client *client = &c->all[i];
		const bool ready = client->polled && fds[client->polled].revents;

		if (client->state == CLIENT_WAITS && atomic_load(&client->answered))
			take_answer(client);
		else if (client->state == CLIENT_ASKS && ready)
			receive(client);
		else if (client->state == CLIENT_LISTENS && ready)
			send_on(client);
		if ((client->state == CLIENT_ASKS || client->state == CLIENT_LISTENS) &&
		    now >= client->moved_ms + PATIENCE_MS)
			hang_up(client);
	}
	if (fds[0].fd >= 0 && fds[0].revents)
		accept_next(c);
}

/* ---- life ---------------------------------------------------------------------------------------- */

struct fsd_clients *fsd_clients_new(struct fsd *fs, int listen_fd)
{
	struct fsd_clients *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->fs = fs;
	c->listen_fd = listen_fd;
	c->reserve_fd = -1;
	keep_reserve(c);
	return c;
}

void fsd_clients_free(struct fsd_clients *c)
{
	for (unsigned i = 0; i < FSD_CLIENTS_MAX; i++) {
		struct client *client = &c->all[i];

		if (client->state == CLIENT_WAITS)
			take_answer(client);
		if (client->state != CLIENT_FREE)
			hang_up(client);
	}
	if (c->reserve_fd >= 0)
		close(c->reserve_fd);
	close(c->listen_fd);
	free(c);
}
