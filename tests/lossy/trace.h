/* The operations of a run, kept to be done again up to any of them.
 *
 * One run of a program gives the disk as each power cut in it would have left it, always the same. The
 * file of a trace is for this machine and this build only.
 */
#ifndef TESTS_LOSSY_TRACE_H
#define TESTS_LOSSY_TRACE_H

#include "disk.h"

struct trace {
	struct disk_op *ops;
	size_t count;
};

/* Copies it. `name`: of the file, where the operation has none itself. */
void trace_add(struct trace *t, const struct disk_op *op, const char *name);
void trace_clear(struct trace *t);
/* A new disk on which the first `count` were done, the last of them in flight. */
struct disk *trace_replay(const struct trace *t, size_t count);
int trace_save(const struct trace *t, const char *path); /* 0 or -errno */
int trace_load(struct trace *t, const char *path);	 /* in place of what it was */

#endif
