/* How `dqlitefs log` shows what the log holds: for programs (log_json.c), or for people (log_text.c).
 *
 * Each function prints a line or more on stdout as soon as it is called. It returns 0 or -errno.
 */
#ifndef FUSEFS_LOG_PRINTER_H
#define FUSEFS_LOG_PRINTER_H

#include <stdint.h>
#include "walrepl.h"

/* Counted on the way. */
struct fsd_log_totals {
	uint64_t segments, entries, first_index, last_index, terms, first_term, last_term;
};

struct fsd_log_printer {
	/* `address` is "-" when it is not known. */
	int (*node)(const struct rlog_dump_node *node, const char *address);
	/* `history` was started with it. */
	int (*snapshot)(const struct rlog_dump_node *node, struct wrep_history *history);
	int (*segment)(const struct rlog_dump_segment *segment);
	/* `d`: NULL, or what a command says; `effect`: what wrep_history_add() said of it. */
	int (*entry)(const struct rlog_dump_entry *entry, const struct wrep_description *d,
		     int effect);
	/* All that is there at the end of what was read. */
	void (*end)(struct wrep_history *history);
	int (*summary)(const struct fsd_log_totals *totals, uint64_t torn_bytes);
	int (*damage)(const char *file, uint64_t offset, const char *message, uint64_t unread);
};

/* The entry's type in a word; "unknown": this version does not understand it. */
const char *fsd_log_type_word(const struct rlog_dump_entry *entry,
			      const struct wrep_description *d);

#endif
