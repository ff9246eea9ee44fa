/* New segments: made of zeros under a temporary name, ahead of time when the owner has a thread for
 * it, given a header when they are taken into use, and only then their name. A crash on the way
 * leaves a file that the next opening removes. */
#include "log/segments.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log/inside.h"
#include "log/line.h"

/* Left for barriers and membership changes: a node with a full disk can be started, and lead, often. */
#define ROOM_RESERVE (64u << 10)

/* A full disk is the one failure that may pass by itself. */
static bool disk_is_full(int err)
{
	return err == -ENOSPC || err == -EDQUOT;
}

int rlog_log_write_zeros(struct rlog_disk *d, int handle, uint64_t from, uint64_t to)
{
	static _Alignas(RLOG_BLOCK) uint8_t zeros[64u << 10];
	struct iovec iov[16];
	int64_t rv;

	for (; from < to; from += (uint64_t)rv) {
		uint64_t left = to - from;
		int count = 0;

		for (; count < 16 && left > 0; count++) {
			size_t len = left < sizeof(zeros) ? (size_t)left : sizeof(zeros);

			iov[count] = (struct iovec){zeros, len};
			left -= len;
		}
		rv = d->pwritev(d, handle, iov, count, from);
		if (rv < 0)
			return (int)rv;
	}
	return 0;
}

int rlog_log_spare_make(struct rlog_disk *d, const struct rlog_log_spare *s)
{
	int handle, err, close_err;

	/* What is too little is left to others, to whom it may be enough. */
	if (d->space != NULL && d->space(d) < s->bytes)
		return -ENOSPC;
	handle = d->open(d, s->name, true);
	if (handle == -EEXIST) {
		/* Left by an earlier process that could not remove it; nobody else has this
		 * name. */
		err = d->unlink(d, s->name);
		handle = err < 0 ? err : d->open(d, s->name, true);
	}
	if (handle < 0)
		return handle;
	/* Zeros are written rather than blocks allocated: the first write to an allocated extent
	 * has to record in the file system's journal that it is no longer empty. */
	err = rlog_log_write_zeros(d, handle, 0, s->bytes);
	close_err = d->close(d, handle);
	if (err == 0)
		err = close_err;
	if (err < 0)
		d->unlink(d, s->name);
	return err;
}

static void spare_fill(struct rlog_log *l, struct rlog_log_spare *s, uint64_t bytes)
{
	s->bytes = bytes;
	snprintf(s->name, sizeof(s->name), "spare-%08" PRIu64 ".tmp", l->spare_count++ % 100000000);
}

bool rlog_log_spare_begin(struct rlog_log *l, struct rlog_log_spare *s)
{
	if (l->failed ||
	    (l->spare_state != SPARE_NONE && !(l->spare_state == SPARE_FAILED && l->spare_again)))
		return false;
	spare_fill(l, &l->spare, l->opt.segment_bytes);
	l->spare_state = SPARE_MAKING;
	*s = l->spare;
	return true;
}

void rlog_log_spare_end(struct rlog_log *l, int result)
{
	assert(l->spare_state == SPARE_MAKING);
	/* A failure is not told again until the segment is needed: then it either works or
	 * counts. */
	l->spare_state = result < 0 ? SPARE_FAILED : SPARE_READY;
	l->spare_error = result;
	l->spare_again = false;
}

void rlog_log_spare_again(struct rlog_log *l)
{
	l->spare_again = true;
}

size_t rlog_log_record_bytes(size_t payload_bytes)
{
	return rlog_record_bytes(payload_bytes);
}

static uint64_t staged_bytes(const struct rlog_log *l)
{
	uint64_t bytes = l->truncate_from ? RLOG_RECORD_HEADER : 0;
	struct rlog_index_entry e;

	for (uint64_t i = l->placed + 1; i <= l->index.last; i++)
		if (rlog_index_get(&l->index, i, &e))
			bytes += rlog_record_bytes(e.len);
	return bytes;
}

void rlog_log_room(struct rlog_log *l, struct rlog_log_room *room)
{
	const uint64_t staged = staged_bytes(l) + ROOM_RESERVE;
	uint64_t bytes = l->tail.bytes - l->tail.offset;

	*room = (struct rlog_log_room){.idle = l->placed == l->index.last,
				       .spare = l->spare_state == SPARE_READY};
	/* The end of the tail may be too short for a record. */
	if (l->spare_state == SPARE_READY && l->spare.bytes - RLOG_BLOCK > bytes)
		bytes = l->spare.bytes - RLOG_BLOCK;
	room->bytes = bytes > staged ? bytes - staged : 0;
	/* As long as nothing failed, what finds no spare has its segment made (rlog_log_next_segment()). */
	if (l->spare_state == SPARE_READY)
		room->beyond = -EAGAIN;
	else if (l->spare_state != SPARE_NONE && disk_is_full(l->spare_error))
		room->beyond = l->spare_state == SPARE_MAKING ? -EAGAIN : -ENOSPC;
}

int rlog_log_spare_now(struct rlog_log *l)
{
	struct rlog_log_spare spare;
	int err;

	if (l->failed)
		return -EIO;
	if (l->spare_state == SPARE_READY)
		return 0;
	assert(l->spare_state != SPARE_MAKING);
	spare_fill(l, &spare, l->opt.segment_bytes);
	err = rlog_log_spare_make(l->d, &spare);
	if (err < 0)
		return err;
	l->spare = spare;
	l->spare_state = SPARE_READY;
	return 0;
}

int rlog_log_segment_install(struct rlog_disk *d, const char *from,
			     const struct rlog_segment_header *h, bool *renamed)
{
	char name[RLOG_SEGMENT_NAME_SIZE];
	uint8_t *block = aligned_alloc(RLOG_BLOCK, RLOG_BLOCK);
	struct iovec iov = {block, RLOG_BLOCK};
	int handle, err;
	int64_t rv;

	*renamed = false;
	if (!block)
		return -ENOMEM;
	rlog_segment_header_encode(block, h);
	rlog_segment_name(name, h->seq);
	handle = d->open(d, from, false);
	if (handle < 0) {
		free(block);
		return handle;
	}
	rv = d->pwritev(d, handle, &iov, 1, 0);
	free(block);
	if (rv >= 0) {
		err = d->rename(d, from, name);
		*renamed = err != -ENOSPC && err != -EDQUOT;
		if (err == 0)
			err = d->sync_dir(d);
		rv = err;
	}
	if (rv < 0) {
		d->close(d, handle);
		return (int)rv;
	}
	return handle;
}

int rlog_log_note_segment(struct rlog_log *l, uint64_t seq, uint64_t bytes)
{
	if (l->segment_count == l->segment_room) {
		size_t room = l->segment_room ? 2 * l->segment_room : 16;
		struct rlog_log_segment *more = reallocarray(l->segments, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		l->segments = more;
		l->segment_room = room;
	}
	l->segments[l->segment_count++] = (struct rlog_log_segment){seq, bytes};
	return 0;
}

int rlog_log_next_segment(struct rlog_log *l, size_t record_bytes)
{
	uint64_t bytes = (2 * RLOG_BLOCK + record_bytes - 1) / RLOG_BLOCK * RLOG_BLOCK;
	struct rlog_segment_header h = {
		.cluster_id = l->opt.cluster_id,
		.node_id = l->opt.node_id,
		.epoch = l->meta.epoch,
		.seq = l->tail.seq + 1,
		.first_index = l->next_index,
		.batch = l->batch,
		.chain = l->chain,
		.replaced = l->replacing,
	};
	struct rlog_log_spare spare;
	bool renamed = false;
	int handle, err = 0;

	if (bytes < l->opt.segment_bytes)
		bytes = l->opt.segment_bytes;
	if (rlog_log_note_segment(l, h.seq, bytes) < 0)
		return -ENOMEM;
	if (l->spare_state == SPARE_READY && l->spare.bytes == bytes) {
		spare = l->spare;
		l->spare_state = SPARE_NONE;
	} else {
		spare_fill(l, &spare, bytes);
		err = rlog_log_spare_make(l->d, &spare);
	}
	if (l->spare_state == SPARE_FAILED)
		l->spare_state = SPARE_NONE;
	h.bytes = bytes;
	handle = err < 0 ? err : rlog_log_segment_install(l->d, spare.name, &h, &renamed);
	if (handle < 0) {
		l->segment_count--;
		if (err == 0 && !renamed)
			l->d->unlink(l->d, spare.name);
		if (!renamed && disk_is_full(handle))
			return -ENOSPC;
		if (!renamed && handle == -ENOMEM)
			return -ENOMEM;
		l->failed = true;
		rlog_log_line(l, 'E',
			      "cannot make a raft log segment segment=%" PRIu64 " error=\"%s\"",
			      h.seq, strerror(-handle));
		return -EIO;
	}
	l->d->close(l->d, l->tail.handle);
	l->tail.seq = h.seq;
	l->tail.bytes = bytes;
	l->tail.offset = l->tail.durable_offset = RLOG_BLOCK;
	l->tail.handle = handle;
	return 0;
}
