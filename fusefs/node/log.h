/* The daemon's log: one line for each thing that happened, "time level what key=value ...".
 *
 * All functions may be called from any thread. The data path is silent: what a caller could repeat
 * at will goes through fsd_log_limited().
 */
#ifndef FUSEFS_LOG_H
#define FUSEFS_LOG_H

#include <stdatomic.h>
#include <stdint.h>

/* Log to the file at `path` (absolute) from now on; to stderr before the first call. 0 or -errno. */
int fsd_log_to(const char *path);

/* Open that file by its name again, and make it where it is missing: somebody has moved it away. When that
 * fails the log goes on where it was. A line in the new file says so; with stderr the line is all. */
void fsd_log_reopen(void);

/* `level` is 'I', 'W' or 'E'. The line is escaped as a whole (escape.h): callers put names and texts of others
 * into it as they are. */
void fsd_log(char level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* At most FSD_LOG_BURST lines a second for each `limit`; the next line that gets through says how
 * many were held back. Zero it before its first use. */
#define FSD_LOG_BURST 10
struct fsd_log_limit {
	_Atomic int64_t second;
	_Atomic unsigned lines, held_back;
};
void fsd_log_limited(struct fsd_log_limit *limit, char level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
