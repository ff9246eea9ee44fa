/* The log: what is staged, what is being written, what is on disk, and how to read it back.
 *
 * In the good case rlog_log_append() only takes references. rlog_log_write_begin() lays the staged
 * entries out as records in one aligned buffer, behind the bytes of the block in which the log ends
 * (kept in memory for this), and hands that out as one write; rlog_log_write_end() makes them
 * durable entries. Entries are read from memory while they are there, and else from their segment.
 *
 * Nothing on disk is ever changed: dropping entries is a record too, written in front of the
 * entries that replace them. Only the last one that is pending counts, since dropping from a lower
 * index includes the higher ones, and what was staged behind it is dropped in memory. So what is
 * staged is always: at most one truncation, then the entries (placed, last].
 *
 *     first                    durable        placed                   last
 *     +------------------------+--------------+------------------------+
 *     | on disk                | in flight    | staged                 |
 *     +------------------------+--------------+------------------------+
 *                    | cache_first: payloads in memory from here on
 *
 * New segments: segments.c. Opening and closing: open.c. Reading back: read.c, and cache.c for what is in
 * memory. Formats: segment.c and meta.c. What a crash leaves: scan.c. */
#include "log/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "log/cache.h"
#include "log/inside.h"
#include "log/line.h"

#define WRITE_BYTES (4u << 20) /* records in one write, unless one alone is larger */
#define STAGE_KEEP (WRITE_BYTES + 2 * RLOG_BLOCK)

/* ---- writing ------------------------------------------------------------------------------ */

static bool nothing_staged(const struct rlog_log *l)
{
	return l->truncate_from == 0 && l->placed == l->index.last;
}

static size_t staged_bytes(struct rlog_log *l, uint64_t index)
{
	return rlog_record_bytes((*rlog_cache_at(l, index))->len);
}

int rlog_log_append(struct rlog_log *l, const struct rlog_record *records, size_t count)
{
	if (l->failed)
		return -EIO;
	for (size_t i = 0; i < count; i++) {
		assert(records[i].index == l->index.last + 1 + i);
		assert(records[i].type < RLOG_RECORD_TRUNCATE);
		if (records[i].buf->len > RLOG_RECORD_PAYLOAD_MAX)
			return -EFBIG;
	}
	if (rlog_index_reserve(&l->index, count) < 0 || rlog_cache_reserve(l, count) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		const struct rlog_record *r = &records[i];

		rlog_index_add(&l->index, r->term, r->type, (uint32_t)r->buf->len);
		*rlog_cache_at(l, r->index) = rlog_buf_ref(r->buf);
		l->cache_bytes += rlog_cache_cost(r->buf);
		l->bytes_since += rlog_record_bytes(r->buf->len);
	}
	rlog_cache_trim(l);
	return 0;
}

int rlog_log_truncate(struct rlog_log *l, uint64_t index)
{
	if (l->failed)
		return -EIO;
	if (index < l->index.first)
		return -EINVAL;
	if (index > l->index.last)
		return 0;
	for (uint64_t i = l->index.last; i >= index && i >= l->cache_first; i--)
		rlog_cache_drop(l, i);
	if (l->cache_first > index)
		l->cache_first = index;
	rlog_index_truncate(&l->index, index);
	if (index <= l->placed) {
		assert(l->truncate_from == 0 || index <= l->truncate_from);
		l->truncate_from = index;
		l->placed = index - 1;
	}
	if (l->durable >= index)
		l->durable = index - 1;
	if (l->write_last >= index)
		l->write_last = index - 1;
	return 0;
}

/* How many of the staged entries, after the staged truncation, go into the next write. */
static uint64_t choose_batch(struct rlog_log *l, size_t *bytes)
{
	uint64_t room = l->tail.bytes - l->tail.offset, last = l->placed;

	*bytes = l->truncate_from ? RLOG_RECORD_HEADER : 0;
	while (last < l->index.last) {
		size_t more = staged_bytes(l, last + 1);

		if (*bytes + more > room || (*bytes > 0 && *bytes + more > WRITE_BYTES))
			break;
		*bytes += more;
		last++;
	}
	return last;
}

int rlog_log_stage_reserve(struct rlog_log *l, size_t need)
{
	size_t room = l->stage_room;
	uint8_t *bigger;

	if (need <= room)
		return 0;
	/* Grow in steps up to what most writes need, and to the exact size beyond it. */
	for (room = room ? room : 16 * RLOG_BLOCK; room < need && room < STAGE_KEEP;)
		room *= 2;
	if (room > STAGE_KEEP)
		room = STAGE_KEEP;
	if (room < need)
		room = need;
	bigger = aligned_alloc(RLOG_BLOCK, room);
	if (!bigger)
		return -ENOMEM;
	if (l->stage)
		memcpy(bigger, l->stage, RLOG_BLOCK);
	free(l->stage);
	l->stage = bigger;
	l->stage_room = room;
	return 0;
}

static void stage_record(struct rlog_log *l, struct rlog_record_header *r, const void *payload)
{
	r->epoch = l->meta.epoch;
	r->batch = l->batch;
	r->chain = l->chain;
	rlog_record_encode(l->stage + (l->tail.offset - l->write_base), r, payload);
	l->chain = r->checksum;
	l->tail.offset += rlog_record_bytes(r->len);
}

static void stage_entry(struct rlog_log *l, uint64_t index, bool last)
{
	struct rlog_buf *buf = *rlog_cache_at(l, index);
	struct rlog_index_entry e;
	struct rlog_record_header r;

	rlog_index_get(&l->index, index, &e);
	r = (struct rlog_record_header){
		.type = e.type,
		.last = last,
		.index = index,
		.term = e.term,
		.len = e.len,
	};
	rlog_index_place(&l->index, index, l->tail.seq, l->tail.offset);
	stage_record(l, &r, buf->data);
	l->next_index = index + 1;
}

int rlog_log_write_begin(struct rlog_log *l, struct rlog_log_write *w)
{
	size_t bytes, total;
	uint64_t last;
	int err;

	assert(l->write_bytes == 0);
	if (l->failed)
		return -EIO;
	if (nothing_staged(l))
		return 0;
	bytes = l->truncate_from ? RLOG_RECORD_HEADER : staged_bytes(l, l->placed + 1);
	if (bytes > l->tail.bytes - l->tail.offset) {
		err = rlog_log_next_segment(l, bytes);
		if (err < 0)
			return err;
	}
	last = choose_batch(l, &bytes);
	l->write_base = l->tail.offset / RLOG_BLOCK * RLOG_BLOCK;
	total = (size_t)(l->tail.offset - l->write_base) + bytes;
	total = (total + RLOG_BLOCK - 1) / RLOG_BLOCK * RLOG_BLOCK;
	if (rlog_log_stage_reserve(l, total) < 0 || rlog_index_reserve(&l->index, 0) < 0)
		return -ENOMEM;

	/* From here on nothing fails. */
	l->batch++;
	l->write_truncates = l->truncate_from != 0;
	if (l->truncate_from) {
		struct rlog_record_header r = {
			.type = RLOG_RECORD_TRUNCATE,
			.last = last == l->placed,
			.index = l->truncate_from,
		};

		stage_record(l, &r, NULL);
		l->next_index = l->truncate_from;
		l->truncate_from = 0;
	}
	while (l->placed < last) {
		l->placed++;
		stage_entry(l, l->placed, l->placed == last);
	}
	bytes = (size_t)(l->tail.offset - l->write_base);
	memset(l->stage + bytes, 0, total - bytes);
	l->write_last = last;
	l->write_bytes = total;
	*w = (struct rlog_log_write){
		.handle = l->tail.handle,
		.offset = l->write_base,
		.iov_count = 1,
		.iov = {{l->stage, total}},
		.bytes = total,
	};
	return 1;
}

void rlog_log_write_end(struct rlog_log *l, int64_t result)
{
	uint64_t base = l->tail.offset / RLOG_BLOCK * RLOG_BLOCK;
	char name[RLOG_SEGMENT_NAME_SIZE];

	assert(l->write_bytes > 0);
	if (result != (int64_t)l->write_bytes) {
		rlog_segment_name(name, l->tail.seq);
		rlog_log_line(l, 'E',
			      "raft log write failed file=%s offset=%" PRIu64
			      " bytes=%zu error=\"%s\"",
			      name, l->write_base, l->write_bytes,
			      result < 0 ? strerror((int)-result) : "short write");
		l->failed = true;
		l->write_bytes = 0;
		return;
	}
	memmove(l->stage, l->stage + (base - l->write_base), (size_t)(l->tail.offset - base));
	l->write_bytes = 0;
	l->durable = l->write_last;
	l->tail.durable_offset = l->tail.offset;
	if (l->stage_room > STAGE_KEEP) {
		/* One large entry does not keep its size in memory for ever. */
		uint8_t *small = aligned_alloc(RLOG_BLOCK, RLOG_BLOCK);

		if (small) {
			memcpy(small, l->stage, RLOG_BLOCK);
			free(l->stage);
			l->stage = small;
			l->stage_room = RLOG_BLOCK;
		}
	}
	rlog_cache_trim(l);
}

/* ---- what there is ------------------------------------------------------------------------- */

int rlog_log_describe(const struct rlog_log *l, uint64_t index, uint64_t *term, uint8_t *type,
		      size_t *len)
{
	struct rlog_index_entry e;

	if (!rlog_index_get(&l->index, index, &e))
		return -ENOENT;
	*term = e.term;
	*type = e.type;
	*len = e.len;
	return 0;
}

void rlog_log_applied(struct rlog_log *l, uint64_t index)
{
	if (index > l->applied)
		l->applied = index;
	rlog_cache_trim(l);
}

uint64_t rlog_log_first(const struct rlog_log *l)
{
	return l->index.first;
}

uint64_t rlog_log_last(const struct rlog_log *l)
{
	return l->index.last;
}

uint64_t rlog_log_durable(const struct rlog_log *l)
{
	return l->durable;
}

/* ---- term and vote ------------------------------------------------------------------------ */

void rlog_log_meta(const struct rlog_log *l, uint64_t *term, uint64_t *voted_for)
{
	*term = l->meta.term;
	*voted_for = l->meta.voted_for;
}

/* Store `next`, which then counts. */
static int store_meta(struct rlog_log *l, struct rlog_meta *next)
{
	int err;

	if (l->failed)
		return -EIO;
	next->durable_batch = l->batch - (l->write_bytes > 0);
	err = rlog_meta_store(l->d, l->meta_handle, next);
	if (err == -ENOMEM)
		return err;
	if (err < 0) {
		/* Which of the two is on disk is unknown; only opening again can tell. */
		rlog_log_line(l, 'E',
			      "cannot write the raft term file=" RLOG_META_NAME " error=\"%s\"",
			      strerror(-err));
		l->failed = true;
		return err;
	}
	l->meta = *next;
	return 0;
}

int rlog_log_set_meta(struct rlog_log *l, uint64_t term, uint64_t voted_for)
{
	struct rlog_meta next = l->meta;

	next.term = term;
	next.voted_for = voted_for;
	return store_meta(l, &next);
}

unsigned rlog_log_format(const struct rlog_log *l)
{
	return rlog_format_or_first(l->meta.format);
}

int rlog_log_raise_format(struct rlog_log *l, unsigned level)
{
	struct rlog_meta next = l->meta;
	int err;

	if (level <= rlog_log_format(l))
		return 0;
	next.format = level;
	err = store_meta(l, &next);
	/* The other slot, too: if the medium damages one, the other must not say less. */
	return err < 0 ? err : store_meta(l, &next);
}
