/* Showing a log to people: recovery's own scan (log/scan.c), without what recovery then changes.
 *
 * The scan goes over the log twice. The first time it counts what stands in each segment, so that a
 * segment can be told before its entries, and notes the truncations, so that an entry can be told
 * together with its end: an entry is dropped when a truncation behind it names its index or a lower
 * one. The second time everything is handed over. Damage stops both at the same place.
 *
 * What opening would do about a snapshot that the log does not belong to (match_snapshot() in log/open.c)
 * is told, too: all entries are dropped, or it is damage.
 */
#include "offline/dump.h"

#include <errno.h>
#include <inttypes.h>
#include <raft.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/configuration.h"
#include "log/scan.h"
#include "log/snapshot.h"

struct counted {
	uint64_t seq, entries, used_bytes;
};

struct dump {
	struct rlog_disk *d;
	const struct rlog_dump_ops *ops;
	void *arg;
	char *errmsg;
	struct rlog_dump_end *end;
	struct rlog_meta meta;
	struct rlog_snapshot snapshot;
	/* of the first pass */
	struct counted *segments;
	size_t segment_count, segment_room;
	uint64_t *truncations; /* afterwards: the lowest index of this one and all behind it */
	size_t truncation_count, truncation_room;
	bool has_snapshot_entry; /* the log has the snapshot's last entry, of its term */
	struct rlog_scan_end scan_end;
	int scanned;
	/* of the second pass: how many were passed */
	size_t segments_passed, truncations_passed;
	uint64_t last_term;
	char file[RLOG_SEGMENT_NAME_SIZE];
};

/* The array with room for one more; NULL (it stays as it is) when out of memory. */
static void *with_room(void *array, size_t count, size_t *room, size_t element_bytes)
{
	size_t wanted = *room ? 2 * *room : 64;

	if (count < *room)
		return array;
	array = realloc(array, wanted * element_bytes);
	if (array)
		*room = wanted;
	return array;
}

static int damaged(struct dump *w, const char *file, uint64_t offset, const char *why)
{
	snprintf(w->end->damage_file, sizeof(w->end->damage_file), "%s", file);
	w->end->damage_offset = offset;
	w->end->damage = why;
	snprintf(w->errmsg, RLOG_ERRMSG_SIZE,
		 "raft log damaged file=%s offset=%" PRIu64 " (%s): " RLOG_RESTORE_HINT, file,
		 offset, why);
	return -EBADMSG;
}

/* ---- the first pass ----------------------------------------------------------------------- */

static int count_truncation(struct dump *w, uint64_t index)
{
	uint64_t *truncations = with_room(w->truncations, w->truncation_count, &w->truncation_room,
					  sizeof(*truncations));

	if (!truncations)
		return -ENOMEM;
	w->truncations = truncations;
	w->truncations[w->truncation_count++] = index;
	return 0;
}

static int count_segment(void *arg, const struct rlog_segment_header *h, bool void_before)
{
	struct dump *w = arg;
	struct counted *segments =
		with_room(w->segments, w->segment_count, &w->segment_room, sizeof(*segments));

	if (!segments)
		return -ENOMEM;
	w->segments = segments;
	w->segments[w->segment_count++] = (struct counted){.seq = h->seq, .used_bytes = RLOG_BLOCK};
	/* A log that begins anew drops all that was in front. */
	if (!void_before || w->segment_count == 1)
		return 0;
	w->has_snapshot_entry = false;
	return count_truncation(w, 1);
}

static int count_record(void *arg, const struct rlog_record_header *r, const uint8_t *payload,
			uint64_t seq, uint64_t offset)
{
	struct dump *w = arg;
	struct counted *segment = &w->segments[w->segment_count - 1];

	(void)payload, (void)seq;
	segment->used_bytes = offset + rlog_record_bytes(r->len);
	if (r->type != RLOG_RECORD_TRUNCATE) {
		segment->entries++;
		if (r->index == w->snapshot.index)
			w->has_snapshot_entry = r->term == w->snapshot.term;
		return 0;
	}
	if (r->index <= w->snapshot.index)
		w->has_snapshot_entry = false;
	return count_truncation(w, r->index);
}

static int count(struct dump *w)
{
	static const struct rlog_scan_ops ops = {.segment = count_segment, .record = count_record};
	const struct rlog_scan_of of = {w->d, &w->meta, w->snapshot.index};

	w->scanned = rlog_scan(&of, &ops, w, &w->scan_end, w->errmsg);
	if (w->scanned == 0 && w->snapshot.image && !w->has_snapshot_entry &&
	    w->scan_end.first_index != w->snapshot.index + 1)
		w->scanned = count_truncation(w, 1);
	if (w->scanned == -ENOMEM)
		snprintf(w->errmsg, RLOG_ERRMSG_SIZE, "out of memory reading the raft log");
	for (size_t i = w->truncation_count; i-- > 1;)
		if (w->truncations[i] < w->truncations[i - 1])
			w->truncations[i - 1] = w->truncations[i];
	return w->scanned == -ENOMEM ? -ENOMEM : 0;
}

/* ---- the second pass ---------------------------------------------------------------------- */

static enum rlog_dump_state state_of(const struct dump *w, size_t i)
{
	if (w->scanned == -EBADMSG && w->segments[i].seq == w->scan_end.damage_seq)
		return RLOG_SEGMENT_DAMAGED;
	if (w->scanned < 0 || i + 1 < w->segment_count)
		return RLOG_SEGMENT_FULL;
	return w->scan_end.torn_to > 0 ? RLOG_SEGMENT_TORN : RLOG_SEGMENT_LAST;
}

/* The file is not what it was a moment ago. */
static int changed(struct dump *w)
{
	snprintf(w->errmsg, RLOG_ERRMSG_SIZE,
		 "the raft log changed while it was read: stop the node that uses it");
	return -EBUSY;
}

static int tell_segment(void *arg, const struct rlog_segment_header *h, bool void_before)
{
	struct dump *w = arg;
	size_t i = w->segments_passed++;
	struct rlog_dump_segment segment = {
		.file = w->file,
		.first_index = h->first_index,
		.all_bytes = h->bytes,
	};

	if (i >= w->segment_count || w->segments[i].seq != h->seq)
		return changed(w);
	if (void_before && i > 0 && w->truncations_passed++ >= w->truncation_count)
		return changed(w);
	rlog_segment_name(w->file, h->seq);
	segment.entries = w->segments[i].entries;
	segment.used_bytes = w->segments[i].used_bytes;
	segment.state = state_of(w, i);
	return w->ops->segment ? w->ops->segment(w->arg, &segment) : 0;
}

/* How many there are, or -EBADMSG. */
static int read_members(const uint8_t *payload, size_t len,
			struct rlog_member members[RLOG_MEMBERS_MAX])
{
	struct raft_buffer bytes = {.base = (void *)(uintptr_t)payload, .len = len};
	struct raft_configuration conf;
	int count;

	if (rlog_configuration_check(payload, len) != 0 ||
	    raft_configuration_decode(&bytes, &conf) != 0)
		return -EBADMSG;
	count = (int)rlog_configuration_members(&conf, members);
	raft_configuration_close(&conf);
	return count;
}

static int tell_members(struct dump *w, const uint8_t *payload, struct rlog_dump_entry *entry)
{
	struct rlog_member members[RLOG_MEMBERS_MAX];
	int count = read_members(payload, entry->bytes, members);

	if (count < 0)
		return damaged(w, entry->file, entry->offset, "not a membership");
	entry->members = members;
	entry->member_count = (unsigned)count;
	return w->ops->entry(w->arg, entry);
}

static int tell_command(struct dump *w, const uint8_t *payload, struct rlog_dump_entry *entry)
{
	int rv;

	entry->buf = rlog_buf_new(entry->bytes);
	if (!entry->buf) {
		snprintf(w->errmsg, RLOG_ERRMSG_SIZE, "out of memory reading the raft log");
		return -ENOMEM;
	}
	memcpy(entry->buf->data, payload, entry->bytes);
	rv = w->ops->entry(w->arg, entry);
	rlog_buf_unref(entry->buf);
	return rv;
}

static int tell_record(void *arg, const struct rlog_record_header *r, const uint8_t *payload,
		       uint64_t seq, uint64_t offset)
{
	struct dump *w = arg;
	struct rlog_dump_entry entry = {
		.index = r->index,
		.term = r->term,
		.file = w->file,
		.offset = offset,
		.bytes = r->len,
	};

	(void)seq;
	if (r->type == RLOG_RECORD_TRUNCATE) {
		entry.type = RLOG_DUMP_TRUNCATION;
		if (w->truncations_passed++ >= w->truncation_count)
			return changed(w);
	} else {
		entry.dropped = w->truncations_passed < w->truncation_count &&
				w->truncations[w->truncations_passed] <= r->index;
		if (r->term > w->last_term)
			w->last_term = r->term;
	}
	if (!w->ops->entry)
		return 0;
	switch (r->type) {
	case RAFT_COMMAND:
		return tell_command(w, payload, &entry);
	case RAFT_CHANGE:
		entry.type = RLOG_DUMP_MEMBERS;
		return tell_members(w, payload, &entry);
	case RAFT_BARRIER:
		entry.type = RLOG_DUMP_BARRIER;
		break;
	case RLOG_RECORD_TRUNCATE:
		break;
	default:
		entry.type = RLOG_DUMP_UNKNOWN;
		break;
	}
	return w->ops->entry(w->arg, &entry);
}

static void count_unread(void *arg, const char *name)
{
	struct dump *w = arg;
	uint64_t seq, last = w->segment_count ? w->segments[w->segment_count - 1].seq : 0;

	if (rlog_segment_name_parse(name, &seq) && seq > last)
		w->end->segments_unread++;
}

static int tell(struct dump *w)
{
	static const struct rlog_scan_ops ops = {.segment = tell_segment, .record = tell_record};
	const struct rlog_scan_of of = {w->d, &w->meta, w->snapshot.index};
	struct rlog_scan_end end;
	int err = rlog_scan(&of, &ops, w, &end, w->errmsg);

	if (end.damage) {
		char name[RLOG_SEGMENT_NAME_SIZE];

		rlog_segment_name(name, end.damage_seq);
		return damaged(w, name, end.damage_offset, end.damage);
	}
	if (err)
		return err;
	if (w->snapshot.image && end.first_index > w->snapshot.index + 1)
		return damaged(w, RLOG_SNAPSHOT_NAME, 0, "the log begins later than it ends");
	if (end.torn_to > 0)
		w->end->torn_bytes = end.torn_to - end.offset;
	if (w->snapshot.image && end.first_index > w->snapshot.index + 1)
		return damaged(w, RLOG_SNAPSHOT_NAME, 0, "entries behind it are missing");
	/* A term is durable before an entry of it is written. */
	if (w->last_term > w->meta.term)
		return damaged(w, RLOG_META_NAME, 0, "its term is older than the log's");
	return 0;
}

static int dump_all(struct dump *w)
{
	struct rlog_member members[RLOG_MEMBERS_MAX];
	struct rlog_dump_node node;
	struct rlog_buf *payload = NULL;
	int bad_slots, err, handle = rlog_meta_open(w->d, &w->meta, &bad_slots, w->errmsg);

	if (handle == -EBADMSG)
		return damaged(w, RLOG_META_NAME, 0, "no valid slot");
	if (handle < 0)
		return handle;
	w->d->close(w->d, handle);
	err = rlog_meta_readable(&w->meta, RLOG_FORMAT_LEVEL, w->errmsg);
	if (err < 0)
		return err;
	err = rlog_snapshot_load(w->d, w->meta.cluster_id, &w->snapshot, w->errmsg);
	if (err == -EBADMSG)
		return damaged(w, RLOG_SNAPSHOT_NAME, 0, "the snapshot is not valid");
	if (err < 0)
		return err;
	node = (struct rlog_dump_node){
		.id = w->meta.node_id,
		.cluster_id = w->meta.cluster_id,
		.term = w->meta.term,
		.voted_for = w->meta.voted_for,
		.torn = bad_slots > 0,
		.snapshot_index = w->snapshot.index,
		.snapshot_term = w->snapshot.term,
	};
	if (w->snapshot.image) {
		int count = read_members(w->snapshot.conf, w->snapshot.conf_len, members);

		if (count < 0)
			return damaged(w, RLOG_SNAPSHOT_NAME, 0, "not a membership");
		payload = rlog_buf_new(w->snapshot.payload_len);
		if (!payload) {
			snprintf(w->errmsg, RLOG_ERRMSG_SIZE, "out of memory reading the raft log");
			return -ENOMEM;
		}
		memcpy(payload->data, w->snapshot.payload, w->snapshot.payload_len);
		node.snapshot_payload = payload;
		node.snapshot_members = members;
		node.snapshot_member_count = (unsigned)count;
	}
	err = w->ops->node ? w->ops->node(w->arg, &node) : 0;
	rlog_buf_unref(payload);
	if (err == 0)
		err = count(w);
	return err ? err : tell(w);
}

int rlog_dump_disk(struct rlog_disk *d, const struct rlog_dump_ops *ops, void *arg,
		   struct rlog_dump_end *end, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct dump w = {.d = d, .ops = ops, .arg = arg, .end = end, .errmsg = errmsg};
	int err;

	*end = (struct rlog_dump_end){0};
	err = dump_all(&w);
	if (end->damage)
		d->list(d, count_unread, &w);
	rlog_snapshot_clear(&w.snapshot);
	free(w.segments);
	free(w.truncations);
	return err;
}

int rlog_dump(const char *dir, const struct rlog_dump_ops *ops, void *arg,
	      struct rlog_dump_end *end, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_disk *disk;
	int err = rlog_disk_open_read_only(&disk, dir);

	*end = (struct rlog_dump_end){0};
	if (err < 0) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot open the raft log %.150s: %s", dir,
			 strerror(-err));
		return err;
	}
	err = rlog_dump_disk(disk, ops, arg, end, errmsg);
	rlog_disk_close(disk);
	return err;
}
