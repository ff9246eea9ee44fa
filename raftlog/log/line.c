/* Log lines of the log. */
#include "log/line.h"

#include <stdarg.h>
#include <stdio.h>
#include "log/inside.h"

void rlog_log_line(const struct rlog_log *l, char level, const char *format, ...)
{
	char line[512];
	va_list args;

	if (!l->opt.log)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	l->opt.log(l->opt.ctx, level, line);
}
