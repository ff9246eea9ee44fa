/* The PAGES entries of a transaction whose COMMIT is still to come. Private to walrepl.
 *
 * What the COMMIT will be judged by (which parts have come, the number and hash of each page) is in memory, 12
 * bytes an image (and 44 while the COMMIT is looked at, where images do not come in the order of their pages). It
 * belongs to the replicated state, which guards it, until the transaction is decided. The images themselves are
 * elsewhere (db/spool.h).
 */
#ifndef WALREPL_PARTS_H
#define WALREPL_PARTS_H

#include <stdbool.h>
#include "pages/pagesum.h"
#include "record/entry.h"

struct wrep_parts {
	/* Constant. A transaction is of one term (see wrep_parts_complete()). */
	uint64_t origin, sequence, term;
	uint64_t first_index; /* of its first entry in the log */

	void *data; /* the owner's; NULL at first */

	/* They change until the COMMIT has come. */
	uint32_t count; /* PAGES entries that came */
	uint32_t page_size;
	bool malformed; /* page sizes do not fit together */
	bool ordered;	/* the page numbers ascend from image to image */
	bool sets_wal_mode, wal_mode;
	/* image_count of them: of each image, in the order of the log; from wrep_parts_settle() on of each
	 * page that counts, ascending. */
	struct wrep_page_change *changes;
	uint32_t image_count;
	size_t capacity; /* of `changes` */
	uint32_t
		*slots; /* settled: which image in the file each is; NULL: they are in that order */
};

/* For the transaction of PAGES entry `e`, delivered as (index, term). NULL: no memory. */
struct wrep_parts *wrep_parts_new(const struct wrep_entry *e, uint64_t index, uint64_t term);
void wrep_parts_free(struct wrep_parts *p); /* NULL is allowed */

bool wrep_parts_same(const struct wrep_parts *p, uint64_t origin, uint64_t sequence);

/* PAGES entry `e` is delivered: the next (e->part is p->count). 0 or -ENOMEM. What does not fit is
 * remembered in `malformed`. */
int wrep_parts_add(struct wrep_parts *p, const struct wrep_entry *e);

/* And after all of them their COMMIT, which brings the last images: now it is known which pages count.
 * 0, -ENOMEM, -EBADMSG (entries and COMMIT do not fit together). */
int wrep_parts_settle(struct wrep_parts *p, const struct wrep_entry *e);

/* Did all parts come of COMMIT `e`, delivered in `term`, and in the same term? A function of the log
 * alone, hence the same on every node. `p` may be NULL. */
bool wrep_parts_complete(const struct wrep_parts *p, const struct wrep_entry *e, uint64_t term);

#endif
