/* The formats of a segment: its name, its header block and its records. Only bytes are turned into
 * values here and back; what follows from them is decided in scan.c and log.c. */
#ifndef RAFTLOG_SEGMENT_H
#define RAFTLOG_SEGMENT_H

#include "log/disk.h"
#include "raftlog.h"

#define RLOG_SEGMENT_NAME_SIZE 32

/* "segment-0000000000000001.log" */
void rlog_segment_name(char name[RLOG_SEGMENT_NAME_SIZE], uint64_t seq);
/* True, with the number, when `name` is exactly what rlog_segment_name() makes of it. */
bool rlog_segment_name_parse(const char *name, uint64_t *seq);
/* True for a segment that was made ahead, or half made, and never taken into use. */
bool rlog_segment_name_is_spare(const char *name);

struct rlog_segment_header {
	uint64_t cluster_id, node_id;
	uint64_t epoch;	      /* random, one per life of a log */
	uint64_t seq;	      /* as in the name */
	uint64_t bytes;	      /* size of the file */
	uint64_t first_index; /* of the next entry when the segment was taken into use */
	uint64_t batch;	      /* the last write before this segment, 0 if there was none */
	uint64_t chain;	      /* checksum of the last record before it; of none: the epoch */
	bool replaced; /* the log begins here, with first_index: older segments do not count */
};

void rlog_segment_header_encode(uint8_t block[RLOG_BLOCK], const struct rlog_segment_header *h);
/* 0, -EBADMSG, or -ENOTSUP for a valid header of a later version. */
int rlog_segment_header_decode(const uint8_t block[RLOG_BLOCK], struct rlog_segment_header *h);

#define RLOG_RECORD_HEADER 64
/* A record goes out in one write, and Linux writes no more than 2 GiB at once. */
#define RLOG_RECORD_PAYLOAD_MAX 0x7f000000u

/* Types below 0x80 are libraft's entry types. */
#define RLOG_RECORD_TRUNCATE 0x80 /* entries >= index are dropped; no payload */

struct rlog_record_header {
	uint8_t type;
	bool last; /* the last record of its batch */
	uint64_t epoch, index, term, batch;
	uint32_t len;	/* payload, without padding */
	uint64_t chain; /* checksum of the record before */
	uint64_t checksum;
};

/* Bytes that a record with `len` bytes of payload takes. */
static inline size_t rlog_record_bytes(size_t len)
{
	return RLOG_RECORD_HEADER + ((len + 7) & ~(size_t)7);
}

/* Write the record to `at` (rlog_record_bytes(h->len) bytes) and set h->checksum. */
void rlog_record_encode(uint8_t *at, struct rlog_record_header *h, const void *payload);
/* True when the `room` bytes at `at` start with a whole valid record of `epoch`; its payload is at
 * `at` + RLOG_RECORD_HEADER. */
bool rlog_record_decode(const uint8_t *at, size_t room, uint64_t epoch,
			struct rlog_record_header *h);

#endif
