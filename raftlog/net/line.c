/* Log lines of the connections. */
#include "net/line.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include "net/inside.h"

#define LOG_INTERVAL_MS 10000

void rlog_net_line(const struct rlog_net *net, char level, const char *format, ...)
{
	const struct rlog_net_owner *owner = &net->config.owner;
	char line[512];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	owner->log(owner->ctx, level, line);
}

bool rlog_net_may_log(const struct rlog_net *net, uint64_t *logged_ms)
{
	if (*logged_ms != 0 && net->now - *logged_ms < LOG_INTERVAL_MS)
		return false;
	*logged_ms = net->now;
	return true;
}

void rlog_net_line_closed(struct rlog_net *net, uint64_t id, const char *address, int error)
{
	if (error == 0 || !rlog_net_may_log(net, &net->logged_ms))
		return;
	rlog_net_line(net, 'W', "closed a connection: %s node=%08llx address=%s",
		      error == -ENOMEM	 ? "out of memory"
		      : error == -EPROTO ? "it speaks something else"
					 : "damaged message",
		      (unsigned long long)id, address);
}
