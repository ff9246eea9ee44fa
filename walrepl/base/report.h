/* Log lines, and the end of a node that cannot go on. [any thread, any lock] */
#ifndef WALREPL_BASE_REPORT_H
#define WALREPL_BASE_REPORT_H

#include <stdarg.h>
#include "walrepl.h"

struct wrep;

void wrep_logf(struct wrep *w, char level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* A line that says what is damaged here; wrep_health() tells of it, too. */
void wrep_damagef(struct wrep *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void wrep_fatalf(struct wrep *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
