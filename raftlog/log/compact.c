/* Letting go of the front of the log, and beginning it anew: what a snapshot is for.
 *
 * Segments go whole, oldest first, so that what is left is always a run of files without a gap. One may
 * go when no entry of it that counts is behind the snapshot. Which those are the index knows: entries
 * lie in the segments in the order of their indexes. (What a truncation in a later segment replaced does
 * not count. That the later segment's header may then name a first index that is higher than the
 * truncation's is why recovery lets a log begin at a truncation. As long as it is not durable, nothing
 * goes: the next snapshot does it.)
 *
 * Beginning anew is a segment whose header says so. Until it has its name the old log counts; from then
 * on nothing of it does, whatever is left of its files.
 */
#include "log/compact.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "log/cache.h"
#include "log/inside.h"
#include "log/line.h"

const struct rlog_snapshot *rlog_log_snapshot(const struct rlog_log *l)
{
	return l->snapshot.image ? &l->snapshot : NULL;
}

int rlog_log_set_snapshot(struct rlog_log *l, struct rlog_buf *image)
{
	struct rlog_snapshot next;
	struct rlog_index_entry e;
	int rv = rlog_snapshot_decode(image, l->opt.cluster_id, &next);

	if (rv < 0)
		return rv;
	rlog_snapshot_clear(&l->snapshot);
	l->snapshot = next;
	l->bytes_since = 0;
	for (uint64_t i = next.index + 1; rlog_index_get(&l->index, i, &e); i++)
		l->bytes_since += rlog_record_bytes(e.len);
	return 0;
}

static int remove_first(struct rlog_log *l)
{
	const uint64_t seq = l->segments[0].seq;
	char name[RLOG_SEGMENT_NAME_SIZE];
	int err;

	rlog_segment_name(name, seq);
	if (l->window.handle >= 0 && l->window.seq == seq) {
		l->d->close(l->d, l->window.handle);
		l->window.handle = -1;
		l->window.len = 0;
	}
	err = l->d->unlink(l->d, name);
	if (err < 0 && err != -ENOENT) {
		rlog_log_line(l, 'W',
			      "cannot remove a raft log segment, trying again later file=%s "
			      "error=\"%s\"",
			      name, strerror(-err));
		return err;
	}
	l->segment_count--;
	memmove(l->segments, l->segments + 1, l->segment_count * sizeof(*l->segments));
	return 0;
}

void rlog_log_remove_before(struct rlog_log *l, uint64_t seq)
{
	while (l->segment_count > 1 && l->segments[0].seq < seq)
		if (remove_first(l) < 0)
			return; /* a gap would be damage */
}

uint64_t rlog_log_cluster(const struct rlog_log *l)
{
	return l->opt.cluster_id;
}

uint64_t rlog_log_bytes(const struct rlog_log *l)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < l->segment_count; i++)
		bytes += l->segments[i].bytes;
	return bytes;
}

uint64_t rlog_log_bytes_since(const struct rlog_log *l)
{
	return l->bytes_since;
}

/* The segment of the first entry that must stay; the tail when there is none on disk. */
static uint64_t first_needed(const struct rlog_log *l)
{
	struct rlog_index_entry e;

	if (rlog_index_get(&l->index, l->snapshot.index + 1, &e) && e.seq)
		return e.seq;
	return l->tail.seq;
}

/* The first entry that lies in `seq` or later. */
static uint64_t first_in(const struct rlog_log *l, uint64_t seq)
{
	uint64_t low = l->index.first, high = l->index.last + 1;

	while (low < high) {
		uint64_t mid = low + (high - low) / 2;
		struct rlog_index_entry e;

		rlog_index_get(&l->index, mid, &e);
		if (e.seq && e.seq < seq)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

void rlog_log_compact(struct rlog_log *l, uint64_t keep_bytes)
{
	uint64_t needed = first_needed(l), bytes = rlog_log_bytes(l), first, seq;
	size_t gone = 0;

	if (!l->snapshot.image || l->failed)
		return;
	/* What a truncation replaces still counts on disk, and what it leaves may be behind the first
	 * entry of the segments that would stay. */
	if (l->truncate_from || (l->write_bytes > 0 && l->write_truncates))
		return;
	while (gone + 1 < l->segment_count && l->segments[gone].seq < needed &&
	       bytes - l->segments[gone].bytes >= keep_bytes)
		bytes -= l->segments[gone++].bytes;
	if (gone == 0)
		return;
	seq = l->segments[gone].seq;
	first = first_in(l, seq);
	assert(first <= l->snapshot.index + 1);
	/* Payloads in memory are of entries not applied yet, or recent: they may be in front. */
	for (; l->cache_first < first && l->cache_first <= l->index.last; l->cache_first++)
		rlog_cache_drop(l, l->cache_first);
	if (l->cache_first < first)
		l->cache_first = first;
	rlog_index_drop(&l->index, first);
	rlog_log_remove_before(l, seq);
}

int rlog_log_replace(struct rlog_log *l)
{
	const uint64_t first = l->snapshot.index + 1, next_index = l->next_index;
	int err;

	assert(l->snapshot.image && l->write_bytes == 0);
	if (l->failed)
		return -EIO;
	l->replacing = true;
	l->next_index = first;
	err = rlog_log_next_segment(l, 0);
	l->replacing = false;
	if (err < 0) {
		l->next_index = next_index;
		return err;
	}
	for (; l->cache && l->cache_first <= l->index.last; l->cache_first++)
		rlog_cache_drop(l, l->cache_first);
	rlog_index_free(&l->index);
	rlog_index_init(&l->index, first);
	l->truncate_from = 0;
	l->durable = l->placed = l->applied = l->write_last = first - 1;
	l->cache_first = first;
	l->bytes_since = 0;
	rlog_log_remove_before(l, l->tail.seq);
	rlog_log_line(l, 'I', "the raft log begins anew index=%" PRIu64, first);
	return 0;
}
