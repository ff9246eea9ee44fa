#include "node/stop.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct fsd_stop {
	int fd; /* an eventfd */
	_Atomic bool asked;
	_Atomic int exit_code;
};

struct fsd_stop *fsd_stop_new(void)
{
	struct fsd_stop *stop = calloc(1, sizeof(*stop));

	if (stop)
		stop->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return stop;
}

void fsd_stop_wake(struct fsd_stop *stop)
{
	uint64_t one = 1;

	/* Fails only when it is more than awake already. */
	if (write(stop->fd, &one, sizeof(one)) < 0)
		return;
}

void fsd_stop_ask(struct fsd_stop *stop, int exit_code)
{
	if (exit_code)
		atomic_store(&stop->exit_code, exit_code);
	atomic_store(&stop->asked, true);
	fsd_stop_wake(stop);
}

bool fsd_stop_is_asked(struct fsd_stop *stop)
{
	return atomic_load(&stop->asked);
}

int fsd_stop_exit_code(struct fsd_stop *stop)
{
	return atomic_load(&stop->exit_code);
}

int fsd_stop_fd(const struct fsd_stop *stop)
{
	return stop->fd;
}

void fsd_stop_drain(struct fsd_stop *stop)
{
	uint64_t count;

	while (read(stop->fd, &count, sizeof(count)) > 0)
		;
}
