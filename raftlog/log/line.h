/* Log lines of the log. */
#ifndef RAFTLOG_LINE_H
#define RAFTLOG_LINE_H

#include "log/log.h"

/* One line to the owner's log. */
__attribute__((format(printf, 3, 4))) void rlog_log_line(const struct rlog_log *l, char level,
							 const char *format, ...);

#endif
