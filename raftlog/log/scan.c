/* Recovery: which bytes are the log, which were torn by a crash, and which prove damage.
 *
 * In the good case every segment is a run of valid records, each chained to the one before, and the
 * header of the next segment names the checksum and the write at which the run ends; in the last
 * segment the run is followed by zeros.
 *
 * What a crash can do. Records are written in batches, numbered 1, 2, 3, ...; a batch is one write
 * within one segment, its last record is marked, and batch n + 1 is not begun before batch n is
 * durable. So at most one batch is in doubt. Sectors of it may be missing in any combination;
 * sectors are atomic, and what was durable before stays (the block that a batch shares with the one
 * before is rewritten with the same bytes). A segment gets its name when its zeros and its header
 * are durable, after the last batch before it is.
 *
 * The unit of recovery is the batch: it is there whole, or it was never acknowledged to anybody and
 * all of it may go. Let n be the last batch that is there whole, up to position P of segment S.
 *
 *   behind P                                             | decision
 *   -----------------------------------------------------+-----------------------------------------
 *   S is not the last segment; the next one's header     | S is full: go on in the next one
 *   names the chain and the batch that P has             |
 *   S is not the last segment; the header names others   | damage: a segment is begun only when all
 *                                                        | before it is durable
 *   S is the last, `meta` knows a later batch than n     | damage: that batch was durable when it
 *   to be durable                                        | was noted there
 *   S is the last, a valid record of this epoch with     | damage: batch n + 2 is begun only when
 *   a batch later than n + 1 stands anywhere behind P    | n + 1 is durable
 *   the same, and the next one's header says "replaced"  | the log was replaced by a snapshot: all
 *                                                        | before does not count, it begins there
 *   S is the last, and only zeros                        | the end of the log
 *   S is the last, anything else                         | torn: batch n + 1, dropped; the caller
 *                                                        | makes it zeros before it writes again
 *
 * The first segment is number 1, whose chain begins with the epoch, as long as there is no snapshot.
 * With one, segments in front have been let go, and the first that is left says in its header where
 * the run stands. The log then begins at its first index, or, when a truncation in what is left goes
 * below that, at the truncation's: what it left standing in front had gone with the older segments.
 * Wherever it begins, nothing between it and the snapshot may be missing; that is for the caller to see,
 * who knows what the snapshot is.
 *
 * Everywhere: a header that is not valid is damage, for it was durable before the file had its
 * name; so are a gap in the file names, a header whose number is not its name's (a copied or
 * renamed file), one of another epoch (a segment of an earlier life of this node), a file shorter
 * than its header says. A record that is valid and chained, but whose index does not follow, is our
 * own mistake and stops the node too. A valid header with another cluster's or node's id gets its
 * own error, since the remedy is another.
 *
 * "Valid" for the search means: magic, epoch, length and checksum, at any multiple of 8. The chain
 * is not asked, since it is broken there by definition. Application data cannot fake such a record:
 * the epoch is random, and a copy of an older record has a batch that is not later than n + 1.
 *
 * Why dropping by zeroing is right, a second crash included: the zeroing overwrites only what is
 * behind P (the block that P is in keeps its bytes in front of P). Whatever subset of its sectors
 * is written, P is still the end of batch n; what is left behind P are still pieces of batch n + 1,
 * a batch that misses a piece and gets none back; so the second recovery decides the same. After it
 * the number n + 1 is used again. Had a piece been left standing, then a new batch n + 1 with the
 * same bytes in front of it could have chained to it, and brought back entries that the node had
 * since denied to have.
 *
 * The limits. Damage within the very last batch cannot be told from a torn write, unless `meta`
 * notes the batch: it does from every change of term or vote and every orderly close on. The same
 * goes for a last segment that is missing altogether. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "log/scan.h"

struct scan {
	struct rlog_disk *d;
	const struct rlog_meta *meta;
	uint64_t snapshot_index;
	const struct rlog_scan_ops *ops;
	void *arg;
	char *errmsg;
	uint64_t *seqs;
	size_t seq_count, seq_room;
	bool out_of_memory;
	/* the segment being read, whole */
	uint8_t *bytes;
	size_t room;
	struct rlog_segment_header header;
	/* the run so far */
	uint64_t chain, batch, next_index, first_index, first_seq;
	struct rlog_scan_end *end;
};

static int damaged(struct scan *s, uint64_t seq, uint64_t offset, const char *why)
{
	char name[RLOG_SEGMENT_NAME_SIZE];

	rlog_segment_name(name, seq);
	snprintf(s->errmsg, RLOG_ERRMSG_SIZE,
		 "raft log damaged file=%s offset=%" PRIu64 " (%s): " RLOG_RESTORE_HINT, name,
		 offset, why);
	*s->end = (struct rlog_scan_end){
		.damage_seq = seq,
		.damage_offset = offset,
		.damage = why,
	};
	return -EBADMSG;
}

static int failed(struct scan *s, uint64_t seq, const char *what, int err)
{
	char name[RLOG_SEGMENT_NAME_SIZE];

	rlog_segment_name(name, seq);
	snprintf(s->errmsg, RLOG_ERRMSG_SIZE, "cannot %s the raft log file=%s: %s", what, name,
		 strerror(-err));
	return err;
}

static int no_memory(struct scan *s)
{
	snprintf(s->errmsg, RLOG_ERRMSG_SIZE, "out of memory reading the raft log");
	return -ENOMEM;
}

/* ---- the files ---------------------------------------------------------------------------- */

static void note_name(void *arg, const char *name)
{
	struct scan *s = arg;
	uint64_t seq;

	if (!rlog_segment_name_parse(name, &seq))
		return;
	if (s->seq_count == s->seq_room) {
		size_t room = s->seq_room ? 2 * s->seq_room : 16;
		uint64_t *more = realloc(s->seqs, room * sizeof(*more));

		if (!more) {
			s->out_of_memory = true;
			return;
		}
		s->seqs = more;
		s->seq_room = room;
	}
	s->seqs[s->seq_count++] = seq;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int find_segments(struct scan *s)
{
	int err = s->d->list(s->d, note_name, s);

	if (err < 0) {
		snprintf(s->errmsg, RLOG_ERRMSG_SIZE, "cannot list the raft log's directory: %s",
			 strerror(-err));
		return err;
	}
	if (s->out_of_memory)
		return no_memory(s);
	if (s->seq_count > 0)
		qsort(s->seqs, s->seq_count, sizeof(*s->seqs), by_number);
	if (s->seq_count > 0 && s->snapshot_index == 0 && s->seqs[0] != 1)
		return damaged(s, 1, 0, "the segment is missing");
	for (size_t i = 1; i < s->seq_count; i++)
		if (s->seqs[i] != s->seqs[0] + i)
			return damaged(s, s->seqs[0] + i, 0, "the segment is missing");
	return s->seq_count > 0 ? 0 : damaged(s, 1, 0, "the segment is missing");
}

static int load_segment(struct scan *s, uint64_t seq)
{
	char name[RLOG_SEGMENT_NAME_SIZE];
	int64_t size, got = 0;
	int handle;

	rlog_segment_name(name, seq);
	handle = s->d->open(s->d, name, false);
	if (handle < 0)
		return failed(s, seq, "open", handle);
	size = s->d->size(s->d, handle);
	if (size > 0 && (uint64_t)size > s->room) {
		size_t room = ((size_t)size + RLOG_BLOCK - 1) / RLOG_BLOCK * RLOG_BLOCK;

		free(s->bytes);
		s->room = 0;
		s->bytes = aligned_alloc(RLOG_BLOCK, room);
		if (!s->bytes) {
			s->d->close(s->d, handle);
			return no_memory(s);
		}
		s->room = room;
	}
	if (size > 0)
		got = s->d->pread(s->d, handle, s->bytes,
				  ((size_t)size + RLOG_BLOCK - 1) / RLOG_BLOCK * RLOG_BLOCK, 0);
	s->d->close(s->d, handle);
	if (size < 0 || got < 0)
		return failed(s, seq, "read", (int)(size < 0 ? size : got));
	if (got < RLOG_BLOCK)
		return damaged(s, seq, 0, "the file has no header");
	switch (rlog_segment_header_decode(s->bytes, &s->header)) {
	case 0:
		break;
	case -ENOTSUP:
		snprintf(s->errmsg, RLOG_ERRMSG_SIZE,
			 "the raft log was written by a later version file=%s: upgrade this node",
			 name);
		return -ENOTSUP;
	default:
		return damaged(s, seq, 0, "the header is not valid");
	}
	if (s->header.cluster_id != s->meta->cluster_id || s->header.node_id != s->meta->node_id) {
		snprintf(s->errmsg, RLOG_ERRMSG_SIZE,
			 "raft log of another %s file=%s cluster=%016" PRIx64 " node=%08" PRIx64
			 ": give the data directory of this node, or remove it and join again",
			 s->header.cluster_id != s->meta->cluster_id ? "cluster" : "node", name,
			 s->header.cluster_id, s->header.node_id);
		return -EXDEV;
	}
	if (s->header.epoch != s->meta->epoch)
		return damaged(s, seq, 0, "the segment belongs to an earlier log of this node");
	if (s->header.seq != seq)
		return damaged(s, seq, 0, "the segment has another number than its name");
	if (s->header.bytes != (uint64_t)got || got % RLOG_BLOCK)
		return damaged(s, seq, (uint64_t)got, "the file's size is not the header's");
	return 0;
}

/* ---- the records -------------------------------------------------------------------------- */

/* The end of the batch that starts at `at`, or 0 when it is not there whole; then `*missing` is
 * where its first missing record should be. */
static uint64_t batch_end(struct scan *s, uint64_t at, uint64_t *missing)
{
	uint64_t chain = s->chain;
	struct rlog_record_header r;

	do {
		*missing = at;
		if (!rlog_record_decode(s->bytes + at, s->header.bytes - at, s->meta->epoch, &r) ||
		    r.chain != chain || r.batch != s->batch + 1)
			return 0;
		chain = r.checksum;
		at += rlog_record_bytes(r.len);
	} while (!r.last);
	return at;
}

/* Hand over the records of the batch from `at` to `end`, which batch_end() found valid. */
static int take_batch(struct scan *s, uint64_t at, uint64_t end)
{
	struct rlog_record_header r;
	int err;

	for (; at < end; at += rlog_record_bytes(r.len)) {
		rlog_record_decode(s->bytes + at, s->header.bytes - at, s->meta->epoch, &r);
		if (r.type == RLOG_RECORD_TRUNCATE) {
			if (r.index >= s->next_index ||
			    (r.index < s->first_index && s->snapshot_index == 0))
				return damaged(s, s->header.seq, at, "truncation outside the log");
			s->next_index = r.index;
			if (s->first_index > r.index)
				s->first_index = r.index;
		} else {
			if (r.index != s->next_index || r.type > RLOG_RECORD_TRUNCATE)
				return damaged(s, s->header.seq, at, "not the next entry");
			s->next_index++;
		}
		s->chain = r.checksum;
		err = s->ops->record
			      ? s->ops->record(s->arg, &r, s->bytes + at + RLOG_RECORD_HEADER,
					       s->header.seq, at)
			      : 0;
		if (err)
			return err;
	}
	s->batch++;
	return 0;
}

static uint64_t word_at(const struct scan *s, uint64_t at)
{
	uint64_t word;

	memcpy(&word, s->bytes + at, sizeof(word));
	return word;
}

/* What is not zero behind `from`, in steps of 8 bytes as all records are. */
static void find_torn(const struct scan *s, uint64_t from, struct rlog_scan_end *end)
{
	uint64_t to = s->header.bytes;

	while (to > from && word_at(s, to - 8) == 0)
		to -= 8;
	if (to == from)
		return;
	while (word_at(s, from) == 0)
		from += 8;
	end->torn_from = from;
	end->torn_to = to;
}

/* Is there a record in [from, to) that was written when what is missing at `from` was durable? */
static bool later_write_exists(const struct scan *s, uint64_t from, uint64_t to)
{
	struct rlog_record_header r;

	for (uint64_t at = from; at < to; at += 8) {
		if (rlog_record_decode(s->bytes + at, s->header.bytes - at, s->meta->epoch, &r) &&
		    r.batch > s->batch + 1)
			return true;
	}
	return false;
}

static int scan_segments(struct scan *s, struct rlog_scan_end *end)
{
	uint64_t at = 0, missing = 0, next;
	int err = find_segments(s);

	for (size_t i = 0; err == 0 && i < s->seq_count; i++) {
		uint64_t before = at;
		bool void_before = i == 0;

		err = load_segment(s, s->seqs[i]);
		if (err)
			return err;
		if (i == 0) {
			s->chain = s->meta->epoch;
			s->first_index = s->next_index = s->header.first_index;
			s->first_seq = s->header.seq;
			if (s->snapshot_index > 0 && s->header.seq > 1) {
				s->chain = s->header.chain;
				s->batch = s->header.batch;
			}
		} else if (s->header.replaced) {
			s->first_index = s->next_index = s->header.first_index;
			s->first_seq = s->header.seq;
			void_before = true;
		}
		if (s->header.chain != s->chain || s->header.batch != s->batch ||
		    s->header.first_index != s->next_index) {
			if (i == 0)
				return damaged(s, s->seqs[0], 0, "not the first segment of a log");
			return damaged(s, s->seqs[i - 1], missing ? missing : before,
				       "records are missing, a later segment exists");
		}
		if (s->ops->segment) {
			err = s->ops->segment(s->arg, &s->header, void_before);
			if (err)
				return err;
		}
		at = RLOG_BLOCK;
		while (err == 0 && (next = batch_end(s, at, &missing)) > 0) {
			err = take_batch(s, at, next);
			at = next;
		}
	}
	if (err)
		return err;
	if (s->batch < s->meta->durable_batch)
		return damaged(s, s->header.seq, missing,
			       "a record is missing that is known to have been durable");
	*end = (struct rlog_scan_end){
		.segment = s->header,
		.offset = at,
		.chain = s->chain,
		.batch = s->batch,
		.next_index = s->next_index,
		.first_index = s->first_index,
		.first_seq = s->first_seq,
	};
	find_torn(s, at, end);
	if (later_write_exists(s, missing, end->torn_to))
		return damaged(s, s->header.seq, missing, "a record is missing, later ones follow");
	return 0;
}

int rlog_scan(const struct rlog_scan_of *of, const struct rlog_scan_ops *ops, void *arg,
	      struct rlog_scan_end *end, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct scan s = {
		.d = of->d,
		.meta = of->meta,
		.snapshot_index = of->snapshot_index,
		.ops = ops,
		.arg = arg,
		.errmsg = errmsg,
		.end = end,
	};
	int err;

	*end = (struct rlog_scan_end){0};
	err = scan_segments(&s, end);
	free(s.seqs);
	free(s.bytes);
	return err;
}
