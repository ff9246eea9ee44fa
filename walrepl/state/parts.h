/* The PAGES entries of a transaction whose COMMIT is still to come. Private to walrepl.
 *
 * Two halves. What the COMMIT will be judged by (which parts have come, the number and hash of each
 * page) is in memory, 12 bytes an image (and 44 while the COMMIT is looked at, where images do not come
 * in the order of their pages), and belongs to the replicated state: raftlog's thread adds to it as
 * entries are delivered. The page images are in an unnamed temporary file in the data
 * directory, one behind the other, and belong to the local state: the applier writes them, in its
 * own time, from the same entries.
 *
 * Why the applier, and not raftlog's thread at once: a write into the page cache of a busy disk
 * waits until others are written back, for as long as it likes, and a full disk must be waited for;
 * raftlog's thread has heartbeats to send. The applier's queue holds the entries meanwhile. It is
 * bounded, and when it is full raftlog keeps the rest in its log.
 *
 * Reference-counted: the database refers to the open transaction, each queued entry of it too. The
 * applier drops the last one (freeing gigabytes of a file takes a while).
 */
#ifndef WALREPL_PARTS_H
#define WALREPL_PARTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include "pages/pagesum.h"
#include "record/entry.h"

struct wrep_parts {
	_Atomic unsigned refs;
	/* Its COMMIT can never take effect on this node's files: the images need not be kept. */
	_Atomic bool dead;
	struct wrep_parts *next; /* in db->unapplied; guarded by the database's lock */

	/* Constant. A transaction is of one term (see wrep_parts_complete()). */
	uint64_t origin, sequence, term;
	uint64_t first_index; /* of its first entry in the log */

	/* Replicated: guarded by the database's lock until the COMMIT has come, constant then. */
	uint32_t count; /* PAGES entries that came */
	uint32_t page_size;
	bool malformed; /* page sizes do not fit together */
	bool ordered;	/* the page numbers ascend from image to image */
	bool sets_wal_mode, wal_mode;
	/* image_count of them: of each image, in the order of the log; from wrep_parts_settle() on of each
	 * page that counts, ascending. */
	struct wrep_page_change *changes;
	uint32_t image_count, capacity;
	uint32_t
		*slots; /* settled: which image in the file each is; NULL: they are in that order */

	/* Local, the applier's. */
	int fd;		 /* -1: none yet */
	uint32_t stored; /* images */
	uint8_t *lot;	 /* what wrep_parts_fetch() returned last */
};

/* For the transaction of PAGES entry `e`, delivered as (index, term). One reference; NULL: no memory. */
struct wrep_parts *wrep_parts_new(const struct wrep_entry *e, uint64_t index, uint64_t term);
struct wrep_parts *wrep_parts_ref(struct wrep_parts *p);
void wrep_parts_unref(struct wrep_parts *p); /* NULL is allowed */

bool wrep_parts_same(const struct wrep_parts *p, uint64_t origin, uint64_t sequence);

/* ---- replicated: raftlog's thread, under the database's lock --------------------------------- */

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
