/* Where each entry of the log is: 8 bytes an entry, plus runs of what rarely changes.
 *
 * Covers [first, last]; one thread. An entry is added with its term, type and length and gets its
 * place on disk later. */
#ifndef RAFTLOG_INDEX_H
#define RAFTLOG_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rlog_index_run {
	uint64_t first; /* from this index on, up to the next run */
	uint64_t value; /* the term, or the segment's number */
	uint8_t type;
};

struct rlog_index_runs {
	struct rlog_index_run *at;
	size_t count, room;
};

struct rlog_index {
	uint64_t first, last;
	struct rlog_index_place *places;
	size_t room;
	struct rlog_index_runs terms, segments;
};

struct rlog_index_entry {
	uint64_t term;
	uint8_t type;
	uint32_t len;
	uint64_t seq, offset; /* 0 while it has no place */
};

void rlog_index_init(struct rlog_index *x, uint64_t first);
void rlog_index_free(struct rlog_index *x);
/* -ENOMEM, or the next `count` adds cannot fail, nor can the next places within one segment. */
int rlog_index_reserve(struct rlog_index *x, size_t count);
void rlog_index_add(struct rlog_index *x, uint64_t term, uint8_t type, uint32_t len);
/* In the order of the indexes. */
void rlog_index_place(struct rlog_index *x, uint64_t index, uint64_t seq, uint64_t offset);
/* Forget the entries < index, which is at most last + 1. */
void rlog_index_drop(struct rlog_index *x, uint64_t index);
void rlog_index_truncate(struct rlog_index *x, uint64_t index); /* drop the entries >= index */
bool rlog_index_get(const struct rlog_index *x, uint64_t index, struct rlog_index_entry *e);

#endif
