/* What is kept of databases in the state directory: moved-ID is the file of one while it has no name (names/rename.c). */
#include "db/state_files.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include "base/wrep.h"
#include "pages/sumfile.h"

#define MOVED_PREFIX "moved-"

void wrep_moved_name(char name[WREP_MOVED_SIZE], uint64_t id)
{
	snprintf(name, WREP_MOVED_SIZE, MOVED_PREFIX "%" PRIu64, id);
}

int wrep_moved_place(struct wrep *w, uint64_t id, const char *name)
{
	char moved[WREP_MOVED_SIZE];

	wrep_moved_name(moved, id);
	if (renameat(w->config.state_fd, moved, w->config.data_fd, name) == 0 || errno == ENOENT)
		return 0;
	return -errno;
}

static bool no_file(void *arg, uint64_t id)
{
	(void)arg;
	(void)id;
	return false;
}

int wrep_moved_tidy(struct wrep *w)
{
	return wrep_numbered_tidy(w->config.state_fd, MOVED_PREFIX, no_file, NULL);
}
