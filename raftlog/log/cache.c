/* Payloads in memory. */
#include "log/cache.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "log/inside.h"

size_t rlog_cache_cost(const struct rlog_buf *buf)
{
	return sizeof(*buf) + buf->len;
}

int rlog_cache_reserve(struct rlog_log *l, size_t count)
{
	size_t need = (size_t)(l->index.last + 1 - l->cache_first) + count, room = l->cache_room;
	struct rlog_buf **bigger;

	if (need <= room)
		return 0;
	for (room = room ? room : 64; room < need;)
		room *= 2;
	bigger = malloc(room * sizeof(struct rlog_buf *));
	if (!bigger)
		return -ENOMEM;
	for (uint64_t i = l->cache_first; i <= l->index.last; i++)
		bigger[i % room] = l->cache[i % l->cache_room];
	free(l->cache);
	l->cache = bigger;
	l->cache_room = room;
	return 0;
}

struct rlog_buf **rlog_cache_at(struct rlog_log *l, uint64_t index)
{
	assert(index >= l->cache_first && index <= l->index.last);
	return &l->cache[index % l->cache_room];
}

void rlog_cache_drop(struct rlog_log *l, uint64_t index)
{
	struct rlog_buf **at = rlog_cache_at(l, index);

	l->cache_bytes -= rlog_cache_cost(*at);
	rlog_buf_unref(*at);
	*at = NULL;
}

void rlog_cache_trim(struct rlog_log *l)
{
	uint64_t limit = l->applied < l->durable ? l->applied : l->durable;

	for (; l->cache_bytes > l->opt.cache_bytes && l->cache_first <= limit; l->cache_first++)
		rlog_cache_drop(l, l->cache_first);
}
