/* Requests that want a database to themselves, and wait until nobody else has it open.
 *
 * A program that has closed the database, or has ended, has it open for a moment longer: close(2) waits for
 * FLUSH, but the kernel sends RELEASE later. So a request that finds the database open waits here, until the last
 * other one has gone or CLOSE_MS have passed. Then it is tried again, and either finds nobody, or is
 * refused, or (somebody has opened the database again, and there is time left) waits here once more. It waits in
 * a list, not in a thread.
 */
#include "file/departure.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include "apply/opening.h"
#include "base/io.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/table.h"
#include "file/file.h"

#define CLOSE_MS 1000 /* so long somebody may still have it open */

/* ---- the list ----------------------------------------------------------------------------------- */

uint64_t wrep_departure_deadline(struct wrep_op *op)
{
	if (!op->until_ms)
		op->until_ms = wrep_now_ms() + CLOSE_MS;
	return op->until_ms;
}

bool wrep_departure_late(struct wrep_op *op)
{
	return op->hasty || wrep_now_ms() >= wrep_departure_deadline(op);
}

int wrep_departure_wait(struct wrep_departure *d)
{
	struct wrep *w = d->db->w;
	bool closing;

	wrep_db_ref(d->db);
	pthread_mutex_lock(&w->lock);
	closing = w->closing;
	if (!closing) {
		d->next = w->departures;
		w->departures = d;
	}
	pthread_mutex_unlock(&w->lock);
	if (closing) {
		wrep_db_unref(d->db);
		return -EIO;
	}
	wrep_departures_look(w); /* the last may have gone just now */
	return WREP_PENDING;
}

/* Take one that can go on, or has to. `*closing`: the daemon ends. */
static struct wrep_departure *take(struct wrep *w, bool *closing)
{
	struct wrep_departure **p, *d;

	pthread_mutex_lock(&w->lock);
	*closing = w->closing;
	for (p = &w->departures; (d = *p); p = &d->next) {
		bool gone;

		pthread_mutex_lock(&d->db->lock);
		gone = d->db->opens <= d->own;
		pthread_mutex_unlock(&d->db->lock);
		if (gone || w->closing || wrep_now_ms() >= d->until_ms)
			break;
	}
	if (d)
		*p = d->next;
	pthread_mutex_unlock(&w->lock);
	return d;
}

void wrep_departures_look(struct wrep *w)
{
	struct wrep_departure *d;
	bool closing;

	while ((d = take(w, &closing))) {
		struct wrep_db *db = d->db;

		d->go_on(d, closing);
		wrep_db_unref(db);
	}
}

/* ---- what is done to a file ------------------------------------------------------------------------ */

enum request { OPEN, WRITE, TRUNCATE, CREATE, FLUSH };

struct file_request {
	struct wrep_departure departure; /* first */
	enum request what;
	struct wrep_file *file; /* a reference; CREATE: NULL */
	struct wrep_op *op;
	int flags;   /* OPEN, CREATE */
	mode_t mode; /* CREATE: this and the next two, and the name in `bytes` */
	uid_t uid;
	gid_t gid;
	bool opened;  /* TRUNCATE: by a descriptor */
	uint64_t off; /* WRITE; TRUNCATE: the size */
	size_t len;   /* of `bytes` */
	uint8_t bytes[];
};

static void go_on(struct wrep_departure *d, bool closing)
{
	struct file_request *r = (struct file_request *)d;
	struct wrep_op *op = r->op;
	int rc = -EIO;

	if (!closing && r->what == OPEN)
		rc = wrep_file_open_again(r->file, r->flags, op);
	else if (!closing && r->what == WRITE)
		rc = wrep_file_write(r->file, r->bytes, r->len, r->off, op);
	else if (!closing && r->what == TRUNCATE)
		rc = wrep_file_truncate(r->file, r->off, r->opened, op);
	else if (!closing && r->what == CREATE)
		rc = wrep_create(d->db->w, (const char *)r->bytes, r->mode, r->uid, r->gid,
				 r->flags, false, op);
	else if (!closing)
		rc = wrep_file_flush(r->file, op);
	if (rc != WREP_PENDING && r->what == OPEN)
		wrep_op_finish_open(op, rc);
	else if (rc != WREP_PENDING)
		op->done(op, rc);
	wrep_file_unref(r->file);
	free(r);
}

/* Takes a reference to `f`, if there is one, and what `like` says; copies the bytes. */
static int wait_for(struct wrep_db *db, struct wrep_file *f, const struct file_request *like,
		    const void *buf, struct wrep_op *op)
{
	struct file_request *r = malloc(sizeof *r + like->len);
	int rc;

	if (!r)
		return -ENOMEM;
	*r = *like;
	r->departure.db = db;
	r->departure.until_ms = wrep_departure_deadline(op);
	r->departure.go_on = go_on;
	r->file = f ? wrep_file_ref(f) : NULL;
	r->op = op;
	if (buf)
		memcpy(r->bytes, buf, like->len);
	rc = wrep_departure_wait(&r->departure);
	if (rc != WREP_PENDING) {
		wrep_file_unref(f);
		free(r);
	}
	return rc;
}

int wrep_departure_open(struct wrep_file *f, int flags, struct wrep_op *op)
{
	return wait_for(f->db, f, &(struct file_request){.what = OPEN, .flags = flags}, NULL, op);
}

int wrep_departure_write(struct wrep_file *f, const void *buf, size_t len, uint64_t off,
			 struct wrep_op *op)
{
	return wait_for(f->db, f,
			&(struct file_request){.departure.own = 1,
					       .what = WRITE,
					       .off = off,
					       .len = len},
			buf, op);
}

int wrep_departure_truncate(struct wrep_file *f, uint64_t size, bool opened, struct wrep_op *op)
{
	return wait_for(f->db, f,
			&(struct file_request){.departure.own = opened,
					       .what = TRUNCATE,
					       .opened = opened,
					       .off = size},
			NULL, op);
}

int wrep_departure_create(struct wrep_db *db, const char *name, mode_t mode, uid_t uid, gid_t gid,
			  int flags, struct wrep_op *op)
{
	return wait_for(db, NULL,
			&(struct file_request){.what = CREATE,
					       .flags = flags,
					       .mode = mode,
					       .uid = uid,
					       .gid = gid,
					       .len = strlen(name) + 1},
			name, op);
}

int wrep_departure_flush(struct wrep_file *stray, struct wrep_db *db, struct wrep_op *op)
{
	return wait_for(db, stray, &(struct file_request){.what = FLUSH}, NULL, op);
}
