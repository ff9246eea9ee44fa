/* Making, opening and closing a log. */
#ifndef RAFTLOG_OPEN_H
#define RAFTLOG_OPEN_H

#include "base/record.h"
#include "log/disk.h"
#include "log/log.h"

struct rlog_log_options {
	uint64_t cluster_id, node_id; /* stand in every segment's header and must match on open */
	size_t segment_bytes;	      /* 0: the default, 8 MiB */
	size_t cache_bytes;	      /* payloads kept in memory, 0: the default, 32 MiB */
	unsigned format_reads;	      /* the level that this node reads; 0: RLOG_FORMAT_LEVEL */
	unsigned format_needed;	      /* that a log which is made needs; 0: 1 */
	void (*log)(void *ctx, char level, const char *line);
	void *ctx;
};

/* Make the files of an empty log (term 0, or `first` as durable entry 1 with its term) in an empty directory. */
int rlog_log_create(struct rlog_disk *d, const struct rlog_log_options *opt,
		    const struct rlog_record *first, char errmsg[RLOG_ERRMSG_SIZE]);

struct rlog_log_begin {
	uint64_t first_index, term, voted_for;
};

/* Make the files of an empty log that begins somewhere else. Where first_index is not 1, it wants a snapshot
 * that ends in front of it, or right there, before it is opened. */
int rlog_log_create_at(struct rlog_disk *d, const struct rlog_log_options *opt,
		       const struct rlog_log_begin *begin, char errmsg[RLOG_ERRMSG_SIZE]);

/* Open and check everything. A torn tail is dropped (and made durable as dropped) only when it
 * belongs to the last write batch; damage anywhere else is -EBADMSG with the file and the offset in
 * `errmsg`. */
int rlog_log_open(struct rlog_log **out, struct rlog_disk *d, const struct rlog_log_options *opt,
		  char errmsg[RLOG_ERRMSG_SIZE]);
void rlog_log_close(struct rlog_log *l);

/* All writes that are due, one after the other: for whoever has nothing else to do. 0 or -errno. */
int rlog_log_flush(struct rlog_log *l);

#endif
