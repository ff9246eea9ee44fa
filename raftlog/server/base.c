/* What all parts of a server stand on: its failure, its lines, what it knows of its leadership and its log. */
#include "server/base.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "log/compact.h"
#include "log/snapshot.h"

void rlog_server_log(struct rlog_server *s, char level, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (s->cb.log == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	s->cb.log(s->ctx, level, line);
}

void rlog_server_fail(struct rlog_server *s, const char *fmt, ...)
{
	va_list ap;

	if (s->failure[0] != 0)
		return;
	va_start(ap, fmt);
	vsnprintf(s->failure, sizeof s->failure, fmt, ap);
	va_end(ap);
}

bool rlog_server_failed(const struct rlog_server *s)
{
	return s->failure[0] != 0;
}

const char *rlog_server_failure(const struct rlog_server *s)
{
	return rlog_server_failed(s) ? s->failure : NULL;
}

bool rlog_server_leads(const struct rlog_server *s)
{
	return s->led_term != 0;
}

bool rlog_server_ready(const struct rlog_server *s)
{
	return s->led_term != 0 && s->barrier_index != 0 && s->applied >= s->barrier_index;
}

uint64_t rlog_server_term_of(const struct rlog_server *s, uint64_t index)
{
	const struct rlog_snapshot *snapshot = rlog_log_snapshot(s->log);
	uint64_t term;
	uint8_t type;
	size_t len;

	if (rlog_log_describe(s->log, index, &term, &type, &len) == 0)
		return term;
	return snapshot != NULL && snapshot->index == index ? snapshot->term : 0;
}

int rlog_server_scratch(struct rlog_server *s, size_t count)
{
	struct raft_entry *entries;
	struct rlog_record *records;

	if (count <= s->scratch_count)
		return 0;
	entries = realloc(s->entries, count * sizeof *entries);
	if (entries == NULL)
		return -ENOMEM;
	s->entries = entries;
	records = realloc(s->records, count * sizeof *records);
	if (records == NULL)
		return -ENOMEM;
	s->records = records;
	s->scratch_count = count;
	return 0;
}
