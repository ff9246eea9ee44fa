/* Making, opening and closing a log. Opening reads all of it (scan.c), builds the index in
 * memory, drops what a crash tore, and leaves the log where the next write goes on. */
#include "log/open.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "log/cache.h"
#include "log/compact.h"
#include "log/inside.h"
#include "log/line.h"
#include "log/scan.h"

#define SEGMENT_BYTES (8u << 20)
#define CACHE_BYTES (32u << 20)

static void options_default(struct rlog_log_options *opt)
{
	if (opt->segment_bytes == 0)
		opt->segment_bytes = SEGMENT_BYTES;
	if (opt->segment_bytes < 2 * RLOG_BLOCK)
		opt->segment_bytes = 2 * RLOG_BLOCK;
	opt->segment_bytes = (opt->segment_bytes + RLOG_BLOCK - 1) / RLOG_BLOCK * RLOG_BLOCK;
	if (opt->format_reads == 0)
		opt->format_reads = RLOG_FORMAT_LEVEL;
	if (opt->cache_bytes == 0)
		opt->cache_bytes = CACHE_BYTES;
}

static int make_files(struct rlog_disk *d, const struct rlog_log_options *o, struct rlog_meta *m,
		      uint64_t first_index, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_log_spare spare = {.name = "spare-00000000.tmp", .bytes = o->segment_bytes};
	struct rlog_segment_header h;
	bool renamed;
	int rv;

	m->cluster_id = o->cluster_id;
	m->node_id = o->node_id;
	m->format = o->format_needed;
	if (getrandom(&m->epoch, sizeof(m->epoch), 0) != sizeof(m->epoch)) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot make the raft log: no random numbers");
		return -EIO;
	}
	h = (struct rlog_segment_header){
		.cluster_id = o->cluster_id,
		.node_id = o->node_id,
		.epoch = m->epoch,
		.seq = 1,
		.bytes = o->segment_bytes,
		.first_index = first_index,
		.chain = m->epoch,
	};
	rv = rlog_meta_create(d, m);
	if (rv >= 0)
		rv = rlog_log_spare_make(d, &spare);
	if (rv >= 0)
		rv = rlog_log_segment_install(d, spare.name, &h, &renamed);
	if (rv >= 0)
		rv = d->close(d, rv);
	if (rv < 0)
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot make the raft log: %s", strerror(-rv));
	return rv;
}

int rlog_log_flush(struct rlog_log *l)
{
	struct rlog_log_write w;
	int64_t rv;
	int err;

	while ((err = rlog_log_write_begin(l, &w)) == 1) {
		rv = l->d->pwritev(l->d, w.handle, w.iov, w.iov_count, w.offset);
		rlog_log_write_end(l, rv);
		if (rv < 0)
			return (int)rv;
	}
	return err;
}

static int write_first(struct rlog_disk *d, const struct rlog_log_options *opt,
		       const struct rlog_record *first, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_log *l;
	int err = rlog_log_open(&l, d, opt, errmsg);

	if (err < 0)
		return err;
	err = rlog_log_append(l, first, 1);
	if (err == 0)
		err = rlog_log_flush(l);
	rlog_log_close(l);
	if (err < 0)
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot write the first raft log entry: %s",
			 strerror(-err));
	return err;
}

int rlog_log_create(struct rlog_disk *d, const struct rlog_log_options *opt,
		    const struct rlog_record *first, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_log_options o = *opt;
	struct rlog_meta m = {.term = first ? first->term : 0};
	int rv;

	assert(!first || first->index == 1);
	options_default(&o);
	rv = make_files(d, &o, &m, 1, errmsg);
	return rv == 0 && first ? write_first(d, &o, first, errmsg) : rv;
}

int rlog_log_create_at(struct rlog_disk *d, const struct rlog_log_options *opt,
		       const struct rlog_log_begin *begin, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_log_options o = *opt;
	struct rlog_meta m = {.term = begin->term, .voted_for = begin->voted_for};

	options_default(&o);
	return make_files(d, &o, &m, begin->first_index, errmsg);
}

struct opening {
	struct rlog_log *l;
	uint64_t term; /* the latest of any record */
};

static void begin_at(struct rlog_log *l, uint64_t index)
{
	rlog_index_free(&l->index);
	rlog_index_init(&l->index, index);
	l->bytes_since = 0;
}

static int open_segment(void *arg, const struct rlog_segment_header *h, bool void_before)
{
	struct opening *o = arg;

	if (void_before)
		begin_at(o->l, h->first_index);
	return rlog_log_note_segment(o->l, h->seq, h->bytes);
}

static int open_record(void *arg, const struct rlog_record_header *r, const uint8_t *payload,
		       uint64_t seq, uint64_t offset)
{
	struct opening *o = arg;
	struct rlog_index *x = &o->l->index;

	(void)payload;
	if (r->type == RLOG_RECORD_TRUNCATE) {
		if (r->index < x->first)
			begin_at(o->l, r->index);
		else
			rlog_index_truncate(x, r->index);
		return 0;
	}
	if (r->index > o->l->snapshot.index)
		o->l->bytes_since += rlog_record_bytes(r->len);
	if (rlog_index_reserve(x, 1) < 0)
		return -ENOMEM;
	rlog_index_add(x, r->term, r->type, r->len);
	rlog_index_place(x, r->index, seq, offset);
	if (r->term > o->term)
		o->term = r->term;
	return 0;
}

/* Read the block in which the log ends, and make what a torn write left behind it zeros. */
static int open_tail(struct rlog_log *l, const struct rlog_scan_end *end)
{
	uint64_t base = end->offset / RLOG_BLOCK * RLOG_BLOCK, at, to;
	size_t used = (size_t)(end->offset - base);
	char name[RLOG_SEGMENT_NAME_SIZE];
	int64_t rv;

	rlog_segment_name(name, end->segment.seq);
	rv = l->d->open(l->d, name, false);
	if (rv < 0)
		return (int)rv;
	l->tail.handle = (int)rv;
	l->tail.seq = end->segment.seq;
	l->tail.bytes = end->segment.bytes;
	l->tail.offset = l->tail.durable_offset = end->offset;
	l->chain = end->chain;
	l->batch = end->batch;
	l->next_index = end->next_index;
	if (rlog_log_stage_reserve(l, RLOG_BLOCK) < 0)
		return -ENOMEM;
	memset(l->stage, 0, RLOG_BLOCK);
	if (used > 0) {
		rv = l->d->pread(l->d, l->tail.handle, l->stage, RLOG_BLOCK, base);
		if (rv < 0)
			return (int)rv;
		if (rv != RLOG_BLOCK)
			return -EIO;
		memset(l->stage + used, 0, RLOG_BLOCK - used);
	}
	if (end->torn_to == 0)
		return 0;
	rlog_log_line(l, 'W',
		      "dropped a torn write at the raft log's end file=%s offset=%" PRIu64
		      " bytes=%" PRIu64,
		      name, end->offset, end->torn_to - end->offset);
	at = end->torn_from / RLOG_BLOCK * RLOG_BLOCK;
	to = (end->torn_to + RLOG_BLOCK - 1) / RLOG_BLOCK * RLOG_BLOCK;
	if (at == base && used > 0) {
		struct iovec iov = {l->stage, RLOG_BLOCK};

		rv = l->d->pwritev(l->d, l->tail.handle, &iov, 1, base);
		if (rv < 0)
			return (int)rv;
		at += RLOG_BLOCK;
	}
	return rlog_log_write_zeros(l->d, l->tail.handle, at, to);
}

struct spares {
	char names[64][32];
	size_t count;
};

static void note_spare(void *arg, const char *name)
{
	struct spares *s = arg;

	if (rlog_segment_name_is_spare(name) && strlen(name) < sizeof(s->names[0]) &&
	    s->count < sizeof(s->names) / sizeof(s->names[0]))
		strcpy(s->names[s->count++], name);
}

/* Segments made ahead by an earlier process. How far they got is not known, so they go. */
static void remove_spares(struct rlog_log *l)
{
	struct spares s = {.count = 0};

	if (l->d->list(l->d, note_spare, &s) < 0)
		return;
	for (size_t i = 0; i < s.count; i++)
		l->d->unlink(l->d, s.names[i]);
}

/* The snapshot and the log must belong together:
 *
 *   the log                              | what that is
 *   -------------------------------------+----------------------------------------------------------
 *   has the snapshot's entry, of its     | the good case
 *   term, or begins right behind it      |
 *   ends before that entry, or has one   | rlog_install() was cut short between storing the snapshot
 *   of another term there                | and replacing the log: that is done now, as is taking over
 *                                        | the term in which the snapshot was taken
 *   begins later                         | damage: entries between the two are missing
 *
 * Files in front of where the log begins are what was not removed in time. */
static int match_snapshot(struct rlog_log *l, const struct rlog_scan_end *end,
			  char errmsg[RLOG_ERRMSG_SIZE])
{
	const uint64_t index = l->snapshot.index;
	struct rlog_index_entry e;
	int err;

	if (!l->snapshot.image)
		return 0;
	if (l->index.first > index + 1) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE,
			 "raft log damaged file=" RLOG_SNAPSHOT_NAME
			 " offset=0 (the log begins at %" PRIu64 ", the snapshot ends at %" PRIu64
			 "): " RLOG_RESTORE_HINT,
			 l->index.first, index);
		return -EBADMSG;
	}
	rlog_log_remove_before(l, end->first_seq);
	if (l->index.first == index + 1 ||
	    (rlog_index_get(&l->index, index, &e) && e.term == l->snapshot.term))
		return 0;
	err = rlog_log_replace(l);
	if (err < 0)
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot replace the raft log: %s",
			 strerror(-err));
	return err;
}

static int open_all(struct rlog_log *l, char errmsg[RLOG_ERRMSG_SIZE])
{
	static const struct rlog_scan_ops ops = {.segment = open_segment, .record = open_record};
	struct opening o = {.l = l};
	struct rlog_scan_of of;
	struct rlog_scan_end end;
	int bad_slots, err;

	l->meta_handle = rlog_meta_open(l->d, &l->meta, &bad_slots, errmsg);
	if (l->meta_handle < 0)
		return l->meta_handle;
	err = rlog_meta_readable(&l->meta, l->opt.format_reads, errmsg);
	if (err < 0)
		return err;
	if (l->meta.cluster_id != l->opt.cluster_id || l->meta.node_id != l->opt.node_id) {
		bool cluster = l->meta.cluster_id != l->opt.cluster_id;

		snprintf(errmsg, RLOG_ERRMSG_SIZE,
			 "raft log of another %s file=%s cluster=%016" PRIx64 " node=%08" PRIx64
			 ": give the data directory of this node",
			 cluster ? "cluster" : "node", RLOG_META_NAME, l->meta.cluster_id,
			 l->meta.node_id);
		return -EXDEV;
	}
	if (bad_slots)
		rlog_log_line(l, 'W',
			      "dropped a torn update of the raft term file=%s term=%" PRIu64
			      " voted_for=%08" PRIx64,
			      RLOG_META_NAME, l->meta.term, l->meta.voted_for);
	err = rlog_snapshot_load(l->d, l->opt.cluster_id, &l->snapshot, errmsg);
	if (err < 0)
		return err;
	of = (struct rlog_scan_of){l->d, &l->meta, l->snapshot.index};
	err = rlog_scan(&of, &ops, &o, &end, errmsg);
	if (err == -ENOMEM)
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "out of memory reading the raft log");
	if (err < 0)
		return err;
	/* A term is durable before an entry of it is written. */
	if (o.term > l->meta.term) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE,
			 "raft log damaged file=%s offset=0 (term %" PRIu64
			 " but the log has entries of term %" PRIu64 "): " RLOG_RESTORE_HINT,
			 RLOG_META_NAME, l->meta.term, o.term);
		return -EBADMSG;
	}
	err = open_tail(l, &end);
	if (err < 0) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE,
			 "cannot open the end of the raft log segment=%" PRIu64 ": %s",
			 end.segment.seq, strerror(-err));
		return err;
	}
	l->durable = l->placed = l->index.last;
	l->cache_first = l->index.last + 1;
	remove_spares(l);
	if (l->snapshot.image && l->snapshot.taken_term > l->meta.term) {
		err = rlog_log_set_meta(l, l->snapshot.taken_term, 0);
		if (err < 0) {
			snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot store the snapshot's term: %s",
				 strerror(-err));
			return err;
		}
	}
	return match_snapshot(l, &end, errmsg);
}

static void log_free(struct rlog_log *l)
{
	if (l->meta_handle >= 0)
		l->d->close(l->d, l->meta_handle);
	if (l->tail.handle >= 0)
		l->d->close(l->d, l->tail.handle);
	if (l->window.handle >= 0)
		l->d->close(l->d, l->window.handle);
	for (; l->cache_first <= l->index.last && l->cache; l->cache_first++)
		rlog_cache_drop(l, l->cache_first);
	rlog_index_free(&l->index);
	rlog_snapshot_clear(&l->snapshot);
	free(l->segments);
	free(l->cache);
	free(l->stage);
	free(l->window.bytes);
	free(l);
}

int rlog_log_open(struct rlog_log **out, struct rlog_disk *d, const struct rlog_log_options *opt,
		  char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_log *l = calloc(1, sizeof(*l));
	int err;

	if (!l) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "out of memory opening the raft log");
		return -ENOMEM;
	}
	l->d = d;
	l->opt = *opt;
	options_default(&l->opt);
	l->meta_handle = l->tail.handle = l->window.handle = -1;
	err = open_all(l, errmsg);
	if (err < 0) {
		log_free(l);
		return err;
	}
	*out = l;
	return 0;
}

void rlog_log_close(struct rlog_log *l)
{
	struct rlog_meta last;

	if (!l)
		return;
	/* Note how far the log is durable: damage of its last write can then be told from a torn
	 * one. A failure costs only that. */
	last = l->meta;
	last.durable_batch = l->batch;
	if (!l->failed && l->write_bytes == 0 && last.durable_batch > l->meta.durable_batch)
		rlog_meta_store(l->d, l->meta_handle, &last);
	log_free(l);
}
