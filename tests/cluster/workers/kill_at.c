/* A preloaded library that kills its process at a chosen system call, to hit instants that no
 * timer hits. Settings (environment):
 *
 *   KILL_CALL    pwrite, ftruncate, unlink, fdatasync
 *   KILL_SUFFIX  only calls on files whose path ends so
 *   KILL_WHEN    before, after: the call itself is made, or not
 *   KILL_N       which of them, from 1; 0: none, only count
 *   KILL_COUNT   file that gets the number of calls when the process ends by itself
 *
 * SQLite looks its system calls up as ordinary symbols, so that this stands before libc's.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int seen;

static const char *setting(const char *name)
{
	const char *value = getenv(name);

	return value ? value : "";
}

static int path_matches(const char *path)
{
	const char *suffix = setting("KILL_SUFFIX");
	size_t path_bytes = strlen(path), suffix_bytes = strlen(suffix);

	return path_bytes >= suffix_bytes && !strcmp(path + path_bytes - suffix_bytes, suffix);
}

static int fd_matches(int fd)
{
	char link[32], path[PATH_MAX];
	ssize_t len;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof path - 1);
	if (len < 0)
		return 0;
	path[len] = 0;
	return path_matches(path);
}

/* Kills at the chosen one; `before` and `after` are called around every call. */
static void before(int counts)
{
	if (!counts)
		return;
	seen++;
	if (seen == atoi(setting("KILL_N")) && !strcmp(setting("KILL_WHEN"), "before"))
		kill(getpid(), SIGKILL);
}

static void after(int counts)
{
	if (counts && seen == atoi(setting("KILL_N")) && strcmp(setting("KILL_WHEN"), "before"))
		kill(getpid(), SIGKILL);
}

#define NEXT(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t off)
{
	int counts = !strcmp(setting("KILL_CALL"), "pwrite") && fd_matches(fd);
	ssize_t done;

	before(counts);
	done = NEXT(pwrite64)(fd, buf, len, off);
	after(counts);
	return done;
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
	return pwrite64(fd, buf, len, off);
}

int ftruncate64(int fd, off64_t len)
{
	int counts = !strcmp(setting("KILL_CALL"), "ftruncate") && fd_matches(fd), rc;

	before(counts);
	rc = NEXT(ftruncate64)(fd, len);
	after(counts);
	return rc;
}

int fdatasync(int fd)
{
	int counts = !strcmp(setting("KILL_CALL"), "fdatasync") && fd_matches(fd), rc;

	before(counts);
	rc = NEXT(fdatasync)(fd);
	after(counts);
	return rc;
}

int unlink(const char *path)
{
	int counts = !strcmp(setting("KILL_CALL"), "unlink") && path_matches(path), rc;

	before(counts);
	rc = NEXT(unlink)(path);
	after(counts);
	return rc;
}

__attribute__((destructor)) static void report(void)
{
	const char *path = setting("KILL_COUNT");
	FILE *out = *path ? fopen(path, "w") : NULL;

	if (out) {
		fprintf(out, "%d\n", seen);
		fclose(out);
	}
}
