/* A preloaded library that kills its process at a chosen system call, to hit instants that no
 * timer hits. Settings (environment):
 *
 *   KILL_CALL    pwrite, ftruncate, unlink, fdatasync; "state": whatever changes a node's state
 *                directory: these and write, pwritev2, mkdir, rmdir, rename, renameat, renameat2,
 *                unlinkat, fsync
 *   KILL_SUFFIX  only calls on files whose path ends so; a pattern, as of fnmatch()
 *   KILL_WHEN    before, after: the call itself is made, or not
 *   KILL_N       which of them, from 1; 0: none, only count
 *   KILL_COUNT   file that gets the number of calls when the process ends by itself
 *
 * SQLite looks its system calls up as ordinary symbols, so that this stands before libc's.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fnmatch.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int seen;

static const char *setting(const char *name)
{
	const char *value = getenv(name);

	return value ? value : "";
}

static int path_matches(const char *path)
{
	char pattern[PATH_MAX];

	snprintf(pattern, sizeof pattern, "*%s", setting("KILL_SUFFIX"));
	return !fnmatch(pattern, path, 0);
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

static int is_chosen(const char *call)
{
	return !strcmp(setting("KILL_CALL"), call);
}

static int is_state(void)
{
	return is_chosen("state");
}

/* Of the calls that only "state" means: is it a file of a state directory? */
static int fd_is_state(int fd)
{
	char link[32], path[PATH_MAX];
	ssize_t len;

	if (!is_state())
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof path - 1);
	if (len < 0)
		return 0;
	path[len] = 0;
	return strstr(path, "/.dqlitefs") != NULL;
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
	int counts = (is_chosen("pwrite") && fd_matches(fd)) || fd_is_state(fd);
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
	int counts = (is_chosen("ftruncate") && fd_matches(fd)) || fd_is_state(fd), rc;

	before(counts);
	rc = NEXT(ftruncate64)(fd, len);
	after(counts);
	return rc;
}

int fdatasync(int fd)
{
	int counts = (is_chosen("fdatasync") && fd_matches(fd)) || fd_is_state(fd), rc;

	before(counts);
	rc = NEXT(fdatasync)(fd);
	after(counts);
	return rc;
}

int unlink(const char *path)
{
	int counts = (is_chosen("unlink") && path_matches(path)) || is_state(), rc;

	before(counts);
	rc = NEXT(unlink)(path);
	after(counts);
	return rc;
}

/* ---- of "state" only ---- */

#define WRAP(type, name, counts, parameters, ...) \
	type name parameters                      \
	{                                         \
		int counts_ = counts;             \
		type done;                        \
                                                  \
		before(counts_);                  \
		done = NEXT(name)(__VA_ARGS__);   \
		after(counts_);                   \
		return done;                      \
	}

WRAP(ssize_t, write, fd_is_state(fd), (int fd, const void *buf, size_t len), fd, buf, len)
WRAP(ssize_t, pwritev64v2, fd_is_state(fd),
     (int fd, const struct iovec *iov, int count, off64_t off, int flags), fd, iov, count, off,
     flags)
WRAP(int, fsync, fd_is_state(fd), (int fd), fd)
WRAP(int, mkdir, is_state(), (const char *path, mode_t mode), path, mode)
WRAP(int, rmdir, is_state(), (const char *path), path)
WRAP(int, rename, is_state(), (const char *from, const char *to), from, to)
WRAP(int, renameat, is_state(), (int from_fd, const char *from, int to_fd, const char *to), from_fd,
     from, to_fd, to)
WRAP(int, renameat2, is_state(),
     (int from_fd, const char *from, int to_fd, const char *to, unsigned flags), from_fd, from,
     to_fd, to, flags)
WRAP(int, unlinkat, is_state(), (int fd, const char *path, int flags), fd, path, flags)

__attribute__((destructor)) static void report(void)
{
	const char *path = setting("KILL_COUNT");
	FILE *out = *path ? fopen(path, "w") : NULL;

	if (out) {
		fprintf(out, "%d\n", seen);
		fclose(out);
	}
}
