/* The one line that says why something failed, and what to do. */
#ifndef FUSEFS_ERRMSG_H
#define FUSEFS_ERRMSG_H

#include <limits.h>

#define FSD_ERRMSG_SIZE (2 * PATH_MAX + 512) /* two paths, and the remedy behind them */

/* Write the line, and return `rv`. */
int fsd_fail(char errmsg[FSD_ERRMSG_SIZE], int rv, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
