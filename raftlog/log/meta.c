/* Term and vote: two slots, one block each, written in turn.
 *
 *   0          4096         8192
 *   +----------+------------+
 *   | slot 0   | slot 1     |      update number n goes to slot n % 2
 *   +----------+------------+
 *
 *    0 checksum       XXH3-64 of the rest of the block
 *    8 magic          "dqfsmeta"
 *   16 version        1 or 2
 *   20 format level   in version 2: that the log needs, above 1 (format.h); zero in version 1
 *   24 cluster id
 *   32 node id
 *   40 epoch          of the log in this directory
 *   48 counter        number of the update
 *   56 term
 *   64 voted for      0: nobody
 *   72 durable batch  the log's writes up to this one were durable when this was written
 *   80 zeros to 4096
 *
 * An update touches only the slot that does not hold the current value, so a torn one leaves the
 * current value whole. On opening, the valid slot with the higher counter wins.
 *
 * One bad slot is taken for a torn update. Such an update was never acknowledged: nothing was sent
 * in its term, and forgetting it is safe. (All that an update changes is in the first sector of the
 * slot, so a disk that writes sectors whole leaves none torn; not every disk does.) The limit of
 * this: if the medium damages the slot of an update that had been acknowledged, it looks the same,
 * and the node could vote twice in that term. log.c refuses the case it can prove (the log has an
 * entry of a later term than `term`); the rest is logged. Two bad slots are damage, never a crash.
 *
 * Versions: 1, the first.
 *   2: the log needs a format level above 1. Builds that know no levels read version 1 only, and do not open
 *      such a log; one that needs level 1 stays what it was. */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "log/meta.h"
#include "log/scan.h"

#define META_VERSION 1
#define META_VERSION_FORMAT 2

static const char meta_magic[8] = "dqfsmeta";

struct disk_meta {
	uint64_t checksum;
	char magic[8];
	uint32_t version, format;
	uint64_t cluster_id, node_id, epoch, counter, term, voted_for, durable_batch;
};
static_assert(offsetof(struct disk_meta, version) == 16, "meta layout");
static_assert(offsetof(struct disk_meta, format) == 20, "meta layout");
static_assert(offsetof(struct disk_meta, cluster_id) == 24, "meta layout");
static_assert(offsetof(struct disk_meta, counter) == 48, "meta layout");
static_assert(offsetof(struct disk_meta, durable_batch) == 72, "meta layout");
static_assert(sizeof(struct disk_meta) == 80, "meta layout");

static void slot_encode(uint8_t *block, const struct rlog_meta *m)
{
	struct disk_meta d = {
		.version = htole32(m->format > 1 ? META_VERSION_FORMAT : META_VERSION),
		.format = htole32(m->format > 1 ? m->format : 0),
		.cluster_id = htole64(m->cluster_id),
		.node_id = htole64(m->node_id),
		.epoch = htole64(m->epoch),
		.counter = htole64(m->counter),
		.term = htole64(m->term),
		.voted_for = htole64(m->voted_for),
		.durable_batch = htole64(m->durable_batch),
	};

	memcpy(d.magic, meta_magic, sizeof(d.magic));
	memset(block, 0, RLOG_BLOCK);
	memcpy(block, &d, sizeof(d));
	d.checksum = htole64(XXH3_64bits(block + 8, RLOG_BLOCK - 8));
	memcpy(block, &d.checksum, 8);
}

static int slot_decode(const uint8_t *block, unsigned slot, struct rlog_meta *m)
{
	struct disk_meta d;
	uint32_t version;

	memcpy(&d, block, sizeof(d));
	version = le32toh(d.version);
	if (memcmp(d.magic, meta_magic, sizeof(d.magic)) != 0 ||
	    le64toh(d.checksum) != XXH3_64bits(block + 8, RLOG_BLOCK - 8))
		return -EBADMSG;
	if (version != META_VERSION && version != META_VERSION_FORMAT)
		return -ENOTSUP;
	if (version == META_VERSION_FORMAT && le32toh(d.format) < 2)
		return -EBADMSG;
	*m = (struct rlog_meta){
		.cluster_id = le64toh(d.cluster_id),
		.node_id = le64toh(d.node_id),
		.epoch = le64toh(d.epoch),
		.counter = le64toh(d.counter),
		.term = le64toh(d.term),
		.voted_for = le64toh(d.voted_for),
		.durable_batch = le64toh(d.durable_batch),
		.format = version == META_VERSION ? 1 : le32toh(d.format),
	};
	return m->counter % 2 == slot ? 0 : -EBADMSG;
}

int rlog_meta_create(struct rlog_disk *d, const struct rlog_meta *m)
{
	struct rlog_meta slots[2] = {*m, *m};
	int64_t rv = -ENOMEM;
	int handle, err;
	uint8_t *blocks = aligned_alloc(RLOG_BLOCK, 2 * RLOG_BLOCK);

	if (!blocks)
		return -ENOMEM;
	slots[0].counter = 2;
	slots[1].counter = 1;
	for (int i = 0; i < 2; i++)
		slot_encode(blocks + i * RLOG_BLOCK, &slots[i]);
	handle = d->open(d, RLOG_META_NAME, true);
	if (handle >= 0) {
		struct iovec iov = {blocks, 2 * RLOG_BLOCK};

		rv = d->pwritev(d, handle, &iov, 1, 0);
		err = d->close(d, handle);
		if (rv >= 0 && err < 0)
			rv = err;
	} else {
		rv = handle;
	}
	free(blocks);
	return rv < 0 ? (int)rv : 0;
}

int rlog_meta_open(struct rlog_disk *d, struct rlog_meta *m, int *bad_slots,
		   char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_meta slots[2];
	bool valid[2];
	int handle;
	int64_t got;
	uint8_t *blocks = aligned_alloc(RLOG_BLOCK, 2 * RLOG_BLOCK);

	if (!blocks) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "out of memory opening the raft log");
		return -ENOMEM;
	}
	handle = d->open(d, RLOG_META_NAME, false);
	if (handle < 0) {
		free(blocks);
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot open the raft log file=%s: %s%s",
			 RLOG_META_NAME, strerror(-handle),
			 handle == -ENOENT ? ": " RLOG_RESTORE_HINT : "");
		return handle;
	}
	memset(blocks, 0, 2 * RLOG_BLOCK);
	got = d->pread(d, handle, blocks, 2 * RLOG_BLOCK, 0);
	for (unsigned i = 0; i < 2 && got >= 0; i++) {
		int err = slot_decode(blocks + i * RLOG_BLOCK, i, &slots[i]);

		if (err == -ENOTSUP)
			got = err;
		valid[i] = err == 0;
	}
	free(blocks);
	if (got == -ENOTSUP)
		snprintf(errmsg, RLOG_ERRMSG_SIZE,
			 "the raft log was written by a later version file=%s: upgrade this node",
			 RLOG_META_NAME);
	else if (got < 0)
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot read the raft log file=%s: %s",
			 RLOG_META_NAME, strerror((int)-got));
	else if (!valid[0] && !valid[1]) {
		snprintf(
			errmsg, RLOG_ERRMSG_SIZE,
			"raft log damaged file=%s offset=0 (no valid slot): restore this node from "
			"its peers: remove its data directory and join again",
			RLOG_META_NAME);
		got = -EBADMSG;
	}
	if (got < 0) {
		d->close(d, handle);
		return (int)got;
	}
	*bad_slots = !valid[0] + !valid[1];
	if (valid[0] && valid[1])
		*m = slots[slots[1].counter > slots[0].counter];
	else
		*m = slots[valid[1]];
	return handle;
}

int rlog_meta_readable(const struct rlog_meta *m, unsigned reads, char errmsg[RLOG_ERRMSG_SIZE])
{
	if (m->format <= reads)
		return 0;
	snprintf(errmsg, RLOG_ERRMSG_SIZE,
		 "the raft log was written by a later version file=%s format=%u reads=%u: upgrade "
		 "this node",
		 RLOG_META_NAME, m->format, reads);
	return -ENOTSUP;
}

int rlog_meta_store(struct rlog_disk *d, int handle, struct rlog_meta *m)
{
	struct rlog_meta next = *m;
	int64_t rv;
	uint8_t *block = aligned_alloc(RLOG_BLOCK, RLOG_BLOCK);
	struct iovec iov = {block, RLOG_BLOCK};

	if (!block)
		return -ENOMEM;
	next.counter++;
	slot_encode(block, &next);
	rv = d->pwritev(d, handle, &iov, 1, next.counter % 2 * RLOG_BLOCK);
	free(block);
	if (rv < 0)
		return (int)rv;
	*m = next;
	return 0;
}
