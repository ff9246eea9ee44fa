/* Requests for a file that wait until nobody else has its database open (db/departure.h), and are asked again. */
#ifndef WALREPL_FILE_POSTPONED_H
#define WALREPL_FILE_POSTPONED_H

#include "db/db.h"
#include "db/departure.h"

struct wrep_postponed {
	struct wrep_departure departure; /* first */
	/* Ask again: as the function that put it off. */
	int (*again)(struct wrep_postponed *r);
	/* Tells the end of one that is not put off once more; NULL: by op->done(). */
	void (*end)(struct wrep_op *op, int result);
	struct wrep_file *file; /* a reference, or NULL */
	struct wrep_op *op;
	int flags;		 /* of an open */
	struct wrep_new_file as; /* of a creation; its name is in `bytes` */
	bool opened;		 /* of a truncation: by a descriptor */
	uint64_t off;		 /* of a write; of a truncation: the size */
	size_t len;		 /* of `bytes` */
	uint8_t bytes[];
};
/* Takes a reference to `f`, if there is one, and what `like` says; copies its `len` bytes. WREP_PENDING or -errno.
 * No lock held. */
int wrep_postpone(struct wrep_db *db, struct wrep_file *f, const struct wrep_postponed *like,
		  const void *bytes, struct wrep_op *op);

#endif
