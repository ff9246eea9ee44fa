/* Segment files, byte by byte. All numbers are little-endian.
 *
 *   0        4096                                                                       bytes
 *   +--------+--------+--------+-----+--------+---------------------------------------------+
 *   | header | record | record | ... | record | zeros                                       |
 *   +--------+--------+--------+-----+--------+---------------------------------------------+
 *
 * Header: one block, written before the file gets its name and never again.
 *
 *    0 checksum     XXH3-64 of the rest of the block
 *    8 magic        "dqfs-seg"
 *   16 version      1
 *   20 flags        1: the log was replaced by the snapshot, older segments do not count
 *   24 cluster id
 *   32 node id
 *   40 epoch        random, drawn when the log was made; a record of another epoch is no record
 *   48 sequence     as in the file's name
 *   56 bytes        size of the file
 *   64 first index  of the next entry when the segment was taken into use
 *   72 batch        number of the last write before this segment
 *   80 chain        checksum of the last record before this segment, or the epoch
 *   88 zeros to 4096
 *
 * Record: at a multiple of 8, directly behind the one before.
 *
 *    0 checksum     XXH3-64 of the rest, the padding included
 *    8 chain        checksum of the record before
 *   16 magic        "rlgR"
 *   20 type         libraft's entry type, or 0x80: drop the entries from `index` on
 *   21 flags        1: the last record of its batch
 *   22 zero
 *   24 epoch
 *   32 index
 *   40 term         0 in a truncation
 *   48 batch        number of the write that the record was part of: 1, 2, 3, ...
 *   56 length       of the payload
 *   60 zero
 *   64 payload, zeros to a multiple of 8
 *
 * The checksum stands first so that what it covers is one run of bytes. The chain makes a record
 * valid in one place only: behind exactly the records it was written behind.
 *
 * Versions: 1, the first. */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>
#include "log/segment.h"

#define SEGMENT_VERSION 1
#define RECORD_LAST 1
#define SEGMENT_REPLACED 1

static const char segment_magic[8] = "dqfs-seg";
static const char record_magic[4] = "rlgR";

struct disk_header {
	uint64_t checksum;
	char magic[8];
	uint32_t version, flags;
	uint64_t cluster_id, node_id, epoch, seq, bytes, first_index, batch, chain;
};
static_assert(offsetof(struct disk_header, magic) == 8, "segment header layout");
static_assert(offsetof(struct disk_header, version) == 16, "segment header layout");
static_assert(offsetof(struct disk_header, cluster_id) == 24, "segment header layout");
static_assert(offsetof(struct disk_header, epoch) == 40, "segment header layout");
static_assert(offsetof(struct disk_header, first_index) == 64, "segment header layout");
static_assert(offsetof(struct disk_header, chain) == 80, "segment header layout");
static_assert(sizeof(struct disk_header) == 88, "segment header layout");

struct disk_record {
	uint64_t checksum, chain;
	char magic[4];
	uint8_t type, flags;
	uint16_t zero;
	uint64_t epoch, index, term, batch;
	uint32_t len, zero2;
};
static_assert(offsetof(struct disk_record, magic) == 16, "record layout");
static_assert(offsetof(struct disk_record, type) == 20, "record layout");
static_assert(offsetof(struct disk_record, epoch) == 24, "record layout");
static_assert(offsetof(struct disk_record, batch) == 48, "record layout");
static_assert(offsetof(struct disk_record, len) == 56, "record layout");
static_assert(sizeof(struct disk_record) == RLOG_RECORD_HEADER, "record layout");

void rlog_segment_name(char name[RLOG_SEGMENT_NAME_SIZE], uint64_t seq)
{
	/* Numbers of more than 16 digits would take 10^16 segments. */
	assert(seq < UINT64_C(10000000000000000));
	snprintf(name, RLOG_SEGMENT_NAME_SIZE, "segment-%016" PRIu64 ".log", seq);
}

bool rlog_segment_name_parse(const char *name, uint64_t *seq)
{
	static const char front[] = "segment-", back[] = ".log";
	const char *at = name + sizeof(front) - 1;

	if (strncmp(name, front, sizeof(front) - 1) != 0)
		return false;
	*seq = 0;
	for (int digits = 0; digits < 16; digits++, at++) {
		if (*at < '0' || *at > '9')
			return false;
		*seq = *seq * 10 + (uint64_t)(*at - '0');
	}
	return strcmp(at, back) == 0;
}

bool rlog_segment_name_is_spare(const char *name)
{
	size_t len = strlen(name);

	return len > 4 && strncmp(name, "spare-", 6) == 0 && strcmp(name + len - 4, ".tmp") == 0;
}

void rlog_segment_header_encode(uint8_t block[RLOG_BLOCK], const struct rlog_segment_header *h)
{
	struct disk_header d = {
		.version = htole32(SEGMENT_VERSION),
		.flags = htole32(h->replaced ? SEGMENT_REPLACED : 0),
		.cluster_id = htole64(h->cluster_id),
		.node_id = htole64(h->node_id),
		.epoch = htole64(h->epoch),
		.seq = htole64(h->seq),
		.bytes = htole64(h->bytes),
		.first_index = htole64(h->first_index),
		.batch = htole64(h->batch),
		.chain = htole64(h->chain),
	};

	memcpy(d.magic, segment_magic, sizeof(d.magic));
	memset(block, 0, RLOG_BLOCK);
	memcpy(block, &d, sizeof(d));
	d.checksum = htole64(XXH3_64bits(block + 8, RLOG_BLOCK - 8));
	memcpy(block, &d.checksum, 8);
}

int rlog_segment_header_decode(const uint8_t block[RLOG_BLOCK], struct rlog_segment_header *h)
{
	struct disk_header d;

	memcpy(&d, block, sizeof(d));
	if (memcmp(d.magic, segment_magic, sizeof(d.magic)) != 0 ||
	    le64toh(d.checksum) != XXH3_64bits(block + 8, RLOG_BLOCK - 8))
		return -EBADMSG;
	if (le32toh(d.version) != SEGMENT_VERSION)
		return -ENOTSUP;
	*h = (struct rlog_segment_header){
		.cluster_id = le64toh(d.cluster_id),
		.node_id = le64toh(d.node_id),
		.epoch = le64toh(d.epoch),
		.seq = le64toh(d.seq),
		.bytes = le64toh(d.bytes),
		.first_index = le64toh(d.first_index),
		.batch = le64toh(d.batch),
		.chain = le64toh(d.chain),
		.replaced = (le32toh(d.flags) & SEGMENT_REPLACED) != 0,
	};
	return 0;
}

void rlog_record_encode(uint8_t *at, struct rlog_record_header *h, const void *payload)
{
	size_t bytes = rlog_record_bytes(h->len);
	struct disk_record d = {
		.chain = htole64(h->chain),
		.type = h->type,
		.flags = h->last ? RECORD_LAST : 0,
		.epoch = htole64(h->epoch),
		.index = htole64(h->index),
		.term = htole64(h->term),
		.batch = htole64(h->batch),
		.len = htole32(h->len),
	};

	assert(h->len <= RLOG_RECORD_PAYLOAD_MAX);
	memcpy(d.magic, record_magic, sizeof(d.magic));
	memcpy(at, &d, sizeof(d));
	if (h->len > 0) {
		memset(at + bytes - 8, 0, 8);
		memcpy(at + sizeof(d), payload, h->len);
	}
	h->checksum = XXH3_64bits(at + 8, bytes - 8);
	d.checksum = htole64(h->checksum);
	memcpy(at, &d.checksum, 8);
}

bool rlog_record_decode(const uint8_t *at, size_t room, uint64_t epoch,
			struct rlog_record_header *h)
{
	struct disk_record d;

	if (room < sizeof(d))
		return false;
	memcpy(&d, at, sizeof(d));
	/* The cheap tests first: recovery asks this for every position of a torn area. */
	if (memcmp(d.magic, record_magic, sizeof(d.magic)) != 0 || le64toh(d.epoch) != epoch)
		return false;
	*h = (struct rlog_record_header){
		.type = d.type,
		.last = d.flags & RECORD_LAST,
		.epoch = epoch,
		.index = le64toh(d.index),
		.term = le64toh(d.term),
		.batch = le64toh(d.batch),
		.len = le32toh(d.len),
		.chain = le64toh(d.chain),
		.checksum = le64toh(d.checksum),
	};
	if (h->len > RLOG_RECORD_PAYLOAD_MAX || rlog_record_bytes(h->len) > room)
		return false;
	return XXH3_64bits(at + 8, rlog_record_bytes(h->len) - 8) == h->checksum;
}
