/* Reading a log from its first segment to its end, deciding what a crash may have torn and what is
 * damage. Read-only: used when the log is opened, and by whoever wants to print one. */
#ifndef RAFTLOG_RECOVER_H
#define RAFTLOG_RECOVER_H

#include "log/meta.h"
#include "log/segment.h"

#define RLOG_RESTORE_HINT \
	"restore this node from its peers: remove its data directory and join again"

/* Called in log order; a value other than 0 ends the scan and is returned. Either may be NULL. */
struct rlog_scan_ops {
	/* `void_before`: what was handed over so far does not count, the log begins here with
	 * h->first_index. So it is for the first segment, and for one that replaced the log. */
	int (*segment)(void *arg, const struct rlog_segment_header *h, bool void_before);
	/* A truncation may lie below all that was handed over: the log begins there then. */
	/* A record of a complete batch, at `offset` of segment `seq`. Its payload is valid during the
	 * call only. */
	int (*record)(void *arg, const struct rlog_record_header *r, const uint8_t *payload,
		      uint64_t seq, uint64_t offset);
};

/* Where the log ends; of one that is damaged, only where and why. */
struct rlog_scan_end {
	struct rlog_segment_header segment; /* the last one */
	uint64_t offset;		    /* in it: where the next record goes */
	uint64_t chain, batch, next_index;
	uint64_t first_index; /* of the log */
	uint64_t first_seq;   /* the file that the log begins in */
	/* What a torn write left behind `offset`: from the first to behind the last 8 bytes that are
	 * not zero. Both 0 when there is nothing. */
	uint64_t torn_from, torn_to;
	uint64_t damage_seq, damage_offset; /* which file, and where in it */
	const char *damage;		    /* a constant; NULL when nothing is damaged */
};

/* Which log, and what is known of it before. */
struct rlog_scan_of {
	struct rlog_disk *d;
	const struct rlog_meta *meta; /* the epoch, and a batch known to be durable */
	uint64_t snapshot_index;      /* 0 when there is none */
};

/* 0 or -errno with a line in `errmsg` (damage: -EBADMSG; another cluster's or node's log: -EXDEV). */
int rlog_scan(const struct rlog_scan_of *of, const struct rlog_scan_ops *ops, void *arg,
	      struct rlog_scan_end *end, char errmsg[RLOG_ERRMSG_SIZE]);

#endif
