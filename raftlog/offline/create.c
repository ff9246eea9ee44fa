/* Making a log's directory: aside, durable, then renamed, so that a crash leaves either nothing or a
 * whole log, and what it leaves of an attempt is removed by the next. */
#include "offline/create.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <raft.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/address.h"
#include "base/configuration.h"
#include "log/open.h"

static int fail(char errmsg[RLOG_ERRMSG_SIZE], int error, const char *what, const char *path)
{
	snprintf(errmsg, RLOG_ERRMSG_SIZE, "%s %.150s: %s", what, path, strerror(-error));
	return error;
}

int rlog_directory_sync_parent(const char *path)
{
	char parent[4096];
	char *slash;
	int fd, rv = 0;

	snprintf(parent, sizeof parent, "%s", path);
	slash = strrchr(parent, '/');
	if (slash == NULL)
		strcpy(parent, ".");
	else
		slash[slash == parent ? 1 : 0] = 0;
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fsync(fd) != 0)
		rv = -errno;
	close(fd);
	return rv;
}

int rlog_directory_remove(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int rv = 0;

	if (dir == NULL)
		return errno == ENOENT ? 0 : -errno;
	while ((entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (unlinkat(dirfd(dir), entry->d_name, 0) != 0)
			rv = -errno;
	}
	closedir(dir);
	if (rv == 0 && rmdir(path) != 0)
		rv = -errno;
	return rv;
}

/* Make the log aside, durable, then give it its name. */
static int make_log(const char *path, uint64_t id, uint64_t cluster_id,
		    const struct rlog_record *first, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_log_options options = {.cluster_id = cluster_id, .node_id = id};
	struct rlog_disk *disk;
	struct stat st;
	char aside[4096];
	int rv;

	if ((size_t)snprintf(aside, sizeof aside, "%s.tmp", path) >= sizeof aside)
		return fail(errmsg, -ENAMETOOLONG, "cannot make", path);
	if (lstat(path, &st) == 0)
		return fail(errmsg, -EEXIST, "cannot make", path);
	rv = rlog_directory_remove(aside);
	if (rv != 0)
		return fail(errmsg, rv, "cannot remove", aside);
	if (mkdir(aside, 0700) != 0)
		return fail(errmsg, -errno, "cannot make", aside);
	rv = rlog_disk_open(&disk, aside);
	if (rv != 0)
		return fail(errmsg, rv, "cannot open", aside);
	rv = rlog_log_create(disk, &options, first, errmsg);
	if (rv == 0) {
		rv = disk->sync_dir(disk);
		if (rv != 0)
			fail(errmsg, rv, "cannot sync", aside);
	}
	rlog_disk_close(disk);
	if (rv == 0 && rename(aside, path) != 0)
		rv = fail(errmsg, -errno, "cannot rename", aside);
	if (rv != 0) {
		rlog_directory_remove(aside);
		return rv;
	}
	rv = rlog_directory_sync_parent(path);
	if (rv != 0)
		return fail(errmsg, rv, "cannot sync the directory of", path);
	return 0;
}

int rlog_bootstrap(const char *dir, uint64_t id, uint64_t cluster_id, const char *address,
		   char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_record first = {.index = 1, .term = 1, .type = RAFT_CHANGE};
	int rv;

	if (strlen(address) >= RLOG_ADDRESS_MAX)
		return fail(errmsg, -ENAMETOOLONG, "cannot use the address", address);
	first.buf = rlog_configuration_alone(id, address);
	if (first.buf == NULL)
		return fail(errmsg, -ENOMEM, "cannot make a cluster in", dir);
	rv = make_log(dir, id, cluster_id, &first, errmsg);
	rlog_buf_unref(first.buf);
	return rv;
}

int rlog_init_member(const char *dir, uint64_t id, uint64_t cluster_id,
		     char errmsg[RLOG_ERRMSG_SIZE])
{
	return make_log(dir, id, cluster_id, NULL, errmsg);
}
