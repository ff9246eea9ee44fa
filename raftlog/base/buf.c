/* Entry payloads: one allocation, counted references, never changed once shared. */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "raftlog.h"

struct rlog_buf *rlog_buf_new(size_t len)
{
	struct rlog_buf *buf;

	if (len > SIZE_MAX - sizeof(*buf))
		return NULL;
	buf = malloc(sizeof(*buf) + len);
	if (!buf)
		return NULL;
	atomic_init(&buf->refs, 1);
	buf->len = len;
	return buf;
}

struct rlog_buf *rlog_buf_ref(struct rlog_buf *buf)
{
	unsigned before = atomic_fetch_add_explicit(&buf->refs, 1, memory_order_relaxed);

	assert(before > 0);
	return buf;
}

void rlog_buf_unref(struct rlog_buf *buf)
{
	unsigned before;

	if (!buf)
		return;
	/* The release makes this thread's reads happen before another thread's free. */
	before = atomic_fetch_sub_explicit(&buf->refs, 1, memory_order_acq_rel);
	assert(before > 0);
	if (before == 1)
		free(buf);
}
