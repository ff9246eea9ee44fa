/* Reading entries back, from memory or through a window of a segment. */
#include "log/read.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "log/cache.h"
#include "log/inside.h"
#include "log/line.h"
#include "log/scan.h"

#define READ_BYTES (256u << 10) /* read ahead from a segment */
#define READ_KEEP (1u << 20)

/* Make the window hold [offset, offset + bytes) of segment `seq`. */
static int window_load(struct rlog_log *l, uint64_t seq, uint64_t offset, size_t bytes)
{
	uint64_t base = offset / RLOG_BLOCK * RLOG_BLOCK;
	size_t need = (size_t)(offset - base) + bytes;
	char name[RLOG_SEGMENT_NAME_SIZE];
	int handle = l->tail.handle;
	int64_t got;

	need = (need + RLOG_BLOCK - 1) / RLOG_BLOCK * RLOG_BLOCK;
	if (need < READ_BYTES)
		need = READ_BYTES;
	if (need > l->window.room || l->window.room > READ_KEEP) {
		free(l->window.bytes);
		l->window.room = 0;
		l->window.bytes = aligned_alloc(RLOG_BLOCK, need);
		if (!l->window.bytes) {
			l->window.len = 0;
			return -ENOMEM;
		}
		l->window.room = need;
	}
	l->window.len = 0;
	if (l->window.handle >= 0 && (seq == l->tail.seq || seq != l->window.seq)) {
		l->d->close(l->d, l->window.handle);
		l->window.handle = -1;
	}
	l->window.seq = seq;
	if (seq != l->tail.seq && l->window.handle < 0) {
		rlog_segment_name(name, seq);
		l->window.handle = l->d->open(l->d, name, false);
		if (l->window.handle < 0)
			return l->window.handle;
	}
	if (seq != l->tail.seq)
		handle = l->window.handle;
	got = l->d->pread(l->d, handle, l->window.bytes, need, base);
	if (got < 0)
		return (int)got;
	/* Behind the end of what is durable, bytes still change: they are not to be kept. */
	if (seq == l->tail.seq && base + (uint64_t)got > l->tail.durable_offset)
		got = (int64_t)(l->tail.durable_offset - base);
	l->window.offset = base;
	l->window.len = (size_t)got;
	return 0;
}

static bool window_has(const struct rlog_log *l, uint64_t seq, uint64_t offset, size_t bytes)
{
	return l->window.seq == seq && offset >= l->window.offset &&
	       offset + bytes <= l->window.offset + l->window.len;
}

static int read_record(struct rlog_log *l, uint64_t index, const struct rlog_index_entry *e,
		       struct rlog_buf **buf)
{
	size_t bytes = rlog_record_bytes(e->len);
	char name[RLOG_SEGMENT_NAME_SIZE];
	struct rlog_record_header r;
	const uint8_t *at;
	int err = 0;

	rlog_segment_name(name, e->seq);
	if (!window_has(l, e->seq, e->offset, bytes))
		err = window_load(l, e->seq, e->offset, bytes);
	if (err < 0) {
		rlog_log_line(l, 'E',
			      "cannot read the raft log file=%s offset=%" PRIu64 " error=\"%s\"",
			      name, e->offset, strerror(-err));
		return err;
	}
	at = l->window.bytes + (e->offset - l->window.offset);
	if (!window_has(l, e->seq, e->offset, bytes) ||
	    !rlog_record_decode(at, bytes, l->meta.epoch, &r) || r.index != index ||
	    r.term != e->term || r.type != e->type || r.len != e->len) {
		l->window.len = 0;
		rlog_log_line(l, 'E',
			      "raft log damaged file=%s offset=%" PRIu64 " index=%" PRIu64
			      " (the record is not valid): " RLOG_RESTORE_HINT,
			      name, e->offset, index);
		return -EBADMSG;
	}
	*buf = rlog_buf_new(r.len);
	if (!*buf)
		return -ENOMEM;
	memcpy((*buf)->data, at + RLOG_RECORD_HEADER, r.len);
	return 0;
}

int rlog_log_read(struct rlog_log *l, uint64_t index, struct rlog_record *out)
{
	struct rlog_index_entry e;
	int err;

	if (!rlog_index_get(&l->index, index, &e))
		return -ENOENT;
	*out = (struct rlog_record){.index = index, .term = e.term, .type = e.type};
	if (index >= l->cache_first) {
		out->buf = rlog_buf_ref(*rlog_cache_at(l, index));
		return 0;
	}
	assert(index <= l->durable);
	err = read_record(l, index, &e, &out->buf);
	return err;
}
