/* Writes log lines, each with a single write(2), so that lines of several threads never mix and a
 * line is in the kernel before the next thing happens: a daemon that dies leaves its last words.
 */
#include "node/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "node/escape.h"

/* Two paths, and what is said of them. */
#define TEXT_SIZE (2 * PATH_MAX + 1024)

/* Once it is a file's, it stays that number: fsd_log_reopen() puts another file behind it, so that no line
 * of another thread meets a closed descriptor. */
static _Atomic int log_fd = STDERR_FILENO;
static char *log_path; /* NULL: stderr */

static int open_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);

	return fd < 0 ? -errno : fd;
}

int fsd_log_to(const char *path)
{
	int fd = open_file(path);

	if (fd < 0)
		return fd;
	log_path = strdup(path);
	if (!log_path) {
		close(fd);
		return -ENOMEM;
	}
	atomic_store(&log_fd, fd);
	return 0;
}

void fsd_log_reopen(void)
{
	int fd = log_path ? open_file(log_path) : 0;

	if (!log_path) {
		fsd_log('I', "asked by SIGHUP to reopen the log: it goes to stderr, nothing to do");
	} else if (fd < 0 || dup3(fd, atomic_load(&log_fd), O_CLOEXEC) < 0) {
		fsd_log('E',
			"cannot reopen the log, it goes on in the file of before path=%s "
			"error=\"%s\": send SIGHUP again when that is mended",
			log_path, strerror(fd < 0 ? -fd : errno));
	} else {
		fsd_log('I', "log reopened by SIGHUP path=%s", log_path);
	}
	if (log_path && fd >= 0)
		close(fd);
}

static void log_va(char level, unsigned held_back, const char *format, va_list args)
{
	char text[TEXT_SIZE], line[64 + FSD_ESCAPED_SIZE(TEXT_SIZE)];
	struct timespec now;
	struct tm tm;
	size_t len;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	len = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
	len += (size_t)snprintf(line + len, sizeof(line) - len, ".%03ldZ %c ",
				now.tv_nsec / 1000000, level);
	vsnprintf(text, sizeof(text), format, args);
	len += fsd_escape(FSD_FOR_PEOPLE, text, line + len, sizeof(line) - len);
	if (held_back)
		len += (size_t)snprintf(line + len, sizeof(line) - len, " held_back=%u", held_back);
	line[len++] = '\n'; /* in the place of the 0 */

	/* A log that cannot be written (its disk is full) stops nothing. */
	while (write(atomic_load(&log_fd), line, len) < 0 && errno == EINTR)
		;
}

void fsd_log(char level, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_va(level, 0, format, args);
	va_end(args);
}

void fsd_log_limited(struct fsd_log_limit *limit, char level, const char *format, ...)
{
	struct timespec now;
	int64_t second = atomic_load(&limit->second);
	va_list args;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (second != now.tv_sec &&
	    atomic_compare_exchange_strong(&limit->second, &second, now.tv_sec))
		atomic_store(&limit->lines, 0);
	if (atomic_fetch_add(&limit->lines, 1) >= FSD_LOG_BURST) {
		atomic_fetch_add(&limit->held_back, 1);
		return;
	}
	va_start(args, format);
	log_va(level, atomic_exchange(&limit->held_back, 0), format, args);
	va_end(args);
}
