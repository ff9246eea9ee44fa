/* See postponed.h. */
#include "file/postponed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "db/db.h"
#include "db/departure.h"

static void go_on(struct wrep_departure *d, bool closing)
{
	struct wrep_postponed *r = (struct wrep_postponed *)d;
	int rc = closing ? -EIO : r->again(r);

	if (rc != WREP_PENDING)
		r->end(r->op, rc);
	wrep_file_unref(r->file);
	free(r);
}

static void end(struct wrep_op *op, int result)
{
	op->done(op, result);
}

int wrep_postpone(struct wrep_db *db, struct wrep_file *f, const struct wrep_postponed *like,
		  const void *bytes, struct wrep_op *op)
{
	struct wrep_postponed *r = malloc(sizeof *r + like->len);
	int rc;

	if (!r)
		return -ENOMEM;
	*r = *like;
	r->departure.db = db;
	r->departure.until_ms = wrep_departure_deadline(op);
	r->departure.go_on = go_on;
	if (!r->end)
		r->end = end;
	r->file = f ? wrep_file_ref(f) : NULL;
	r->op = op;
	if (bytes)
		memcpy(r->bytes, bytes, like->len);
	rc = wrep_departure_wait(&r->departure);
	if (rc != WREP_PENDING) {
		wrep_file_unref(f);
		free(r);
	}
	return rc;
}
