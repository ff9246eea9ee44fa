/* An application opens a database.
 *
 * It waits until this node has caught up. Where this node may not write, and where something is left to be seen to, the
 * applier serves it: the fence is closed before the open returns. The last step, on whatever thread, is
 * wrep_file_opened(), which counts it.
 */
#include "apply/opening.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "apply/fence.h"
#include "apply/fold.h"
#include "base/phase.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/side_stray.h"
#include "db/table.h"
#include "txn/unjournaled.h"

int wrep_file_opened(struct wrep_file *f, int flags, bool internal, struct wrep_op *op)
{
	int rc = f->revoked ? -ESTALE : wrep_db_pin(f->db, internal);

	if (rc)
		return rc;
	if (f->fd < 0) /* it has lost its name, and the last who had it open is gone */
		rc = -ESTALE;
	else if (f->kind == WREP_DB && !internal)
		rc = wrep_unjournaled_admit_open(f, flags, op);
	if (!rc && f->kind == WREP_DB && !internal)
		rc = wrep_strays_admit(f->db, flags);
	if (rc)
		wrep_db_unpin(f->db);
	else if (f->kind == WREP_DB && !internal)
		f->db->opens++;
	return rc;
}

void wrep_op_drop_file(struct wrep_op *op)
{
	wrep_file_unref(op->file);
	op->file = NULL;
}

void wrep_op_finish_open(struct wrep_op *op, int result)
{
	if (result < 0 && op->state == WREP_OP_CREATE && op->file)
		wrep_op_drop_file(op);
	op->done(op, result);
}

/* ---- who waits ------------------------------------------------------------------------------------- */

/* Who opens a database, or waits until this node has caught up: from the request until it is ended. */
struct wrep_waiter {
	struct wrep_work work;	       /* first */
	TAILQ_ENTRY(wrep_waiter) link; /* w->lock */
	struct wrep_op *op;	       /* w->lock; NULL: it has been ended */
	bool listed;		       /* w->lock */
	bool parked;		       /* w->lock: in no queue, until this node has caught up */
	struct wrep *w;
	/* An open: */
	struct wrep_db *db;	/* a reference, or NULL */
	struct wrep_file *file; /* the one meant, a reference; NULL: whatever has the name */
	int flags;
	wrep_put_off_fn *put_off;
};

static struct wrep_waiter *new_waiter(struct wrep *w, const struct wrep_work_ops *ops,
				      struct wrep_op *op)
{
	struct wrep_waiter *waiter = wrep_work_make(sizeof *waiter, ops);

	waiter->w = w;
	waiter->op = op;
	return waiter;
}

/* From now on it can be interrupted. w->lock held. */
static void list(struct wrep_waiter *waiter)
{
	TAILQ_INSERT_TAIL(&waiter->w->waiters, waiter, link);
	waiter->listed = true;
}

static void release(struct wrep_work *work)
{
	struct wrep_waiter *waiter = (struct wrep_waiter *)work;

	pthread_mutex_lock(&waiter->w->lock);
	if (waiter->listed)
		TAILQ_REMOVE(&waiter->w->waiters, waiter, link);
	pthread_mutex_unlock(&waiter->w->lock);
	wrep_db_unref(waiter->db);
	wrep_file_unref(waiter->file);
	free(waiter);
}

/* NULL: it was interrupted meanwhile. */
static struct wrep_op *take_op(struct wrep_waiter *waiter)
{
	struct wrep_op *op;

	pthread_mutex_lock(&waiter->w->lock);
	op = waiter->op;
	waiter->op = NULL;
	pthread_mutex_unlock(&waiter->w->lock);
	return op;
}

static void cancel(struct wrep *w, struct wrep_work *work)
{
	struct wrep_op *op = take_op((struct wrep_waiter *)work);

	(void)w;
	if (op)
		wrep_op_finish_open(op, -ENOTCONN);
}

int wrep_open_park(struct wrep *w, struct wrep_work **work)
{
	struct wrep_waiter *waiter = (struct wrep_waiter *)*work;
	int rc = 0;

	pthread_mutex_lock(&w->lock);
	if (wrep_closing(w)) {
		rc = -ENOTCONN;
	} else if (!wrep_is_ready(w)) {
		list(waiter);
		waiter->parked = true;
		*work = NULL;
		rc = WREP_PENDING;
	}
	pthread_mutex_unlock(&w->lock);
	return rc;
}

void wrep_open_push(struct wrep_work *work)
{
	struct wrep_waiter *waiter = (struct wrep_waiter *)work;

	pthread_mutex_lock(&waiter->w->lock);
	list(waiter);
	pthread_mutex_unlock(&waiter->w->lock);
	wrep_queue_push(waiter->w->queue, work);
}

/* The first that is parked, which it is no longer; NULL: none is. */
static struct wrep_waiter *unpark(struct wrep *w)
{
	struct wrep_waiter *waiter;

	pthread_mutex_lock(&w->lock);
	TAILQ_FOREACH(waiter, &w->waiters, link) {
		if (waiter->parked)
			break;
	}
	if (waiter) {
		waiter->parked = false;
		/* Those looked at need not be looked at again. */
		TAILQ_REMOVE(&w->waiters, waiter, link);
		TAILQ_INSERT_TAIL(&w->waiters, waiter, link);
	}
	pthread_mutex_unlock(&w->lock);
	return waiter;
}

void wrep_opens_resume(struct wrep *w)
{
	struct wrep_waiter *waiter;

	while ((waiter = unpark(w)))
		wrep_queue_push(w->queue, &waiter->work);
}

void wrep_opens_end(struct wrep *w)
{
	struct wrep_waiter *waiter;

	while ((waiter = unpark(w))) {
		cancel(w, &waiter->work);
		wrep_work_drop(&waiter->work);
	}
}

/* End the wait for `op`; `parked_only`: unless it waits for something else than that this node catches up. */
static void end_wait(struct wrep *w, struct wrep_op *op, bool parked_only, int result)
{
	struct wrep_waiter *waiter;
	bool parked = false;

	pthread_mutex_lock(&w->lock);
	TAILQ_FOREACH(waiter, &w->waiters, link) {
		if (waiter->op == op && (waiter->parked || !parked_only))
			break;
	}
	if (waiter) {
		waiter->op = NULL;
		parked = waiter->parked;
		waiter->parked = false;
	}
	pthread_mutex_unlock(&w->lock);
	if (parked)
		wrep_work_drop(&waiter->work);
	if (waiter)
		wrep_op_finish_open(op, result);
}

void wrep_op_interrupt(struct wrep *w, struct wrep_op *op)
{
	end_wait(w, op, false, -EINTR);
}

void wrep_op_time_out(struct wrep *w, struct wrep_op *op)
{
	end_wait(w, op, true, -ETIMEDOUT);
}

/* ---- until this node has caught up ------------------------------------------------------------------ */

static void run_ready(struct wrep *w, struct wrep_work *work)
{
	struct wrep_op *op = take_op((struct wrep_waiter *)work);

	(void)w;
	if (op)
		op->done(op, 0);
}

static const struct wrep_work_ops ready_ops = {.name = "ready",
					       .run = run_ready,
					       .cancel = cancel,
					       .release = release};

int wrep_wait_ready(struct wrep *w, struct wrep_op *op)
{
	struct wrep_waiter *waiter = new_waiter(w, &ready_ops, op);
	struct wrep_work *work = &waiter->work;
	int rc;

	op->state = WREP_OP_OPEN;
	wrep_work_is_about_all(work);
	rc = wrep_open_park(w, &work);
	wrep_work_drop(work);
	return rc;
}

/* ---- an open ---------------------------------------------------------------------------------------- */

static void open_database(struct wrep *w, struct wrep_waiter *o, bool may_fold)
{
	struct wrep_op *op = take_op(o);
	struct wrep_db *db = o->db;
	struct wrep_file *f;
	bool damaged;
	int rc = 0;

	if (!op)
		return;
	pthread_mutex_lock(&db->lock);
	f = db->removed ? NULL : wrep_db_file(db, WREP_DB);
	damaged = db->damaged;
	pthread_mutex_unlock(&db->lock);
	if (!f)
		rc = -ESTALE; /* the kernel looks the name up again */
	else if (o->file && o->file != f)
		rc = -ESTALE; /* renamed meanwhile */
	else if (damaged)
		rc = -EBADMSG;
	if (!rc && may_fold)
		wrep_fold(db);
	if (!rc && !atomic_load(&w->may_write)) {
		rc = wrep_fence_close(db);
		/* A writer of before is still at it: it cannot commit, and readers are welcome. */
		if (rc == -EBUSY)
			rc = 0;
	}
	if (!rc) {
		pthread_mutex_lock(&db->lock);
		rc = wrep_file_opened(f, o->flags, false, op);
		pthread_mutex_unlock(&db->lock);
	}
	if (rc == -EAGAIN)
		rc = o->put_off(f, o->flags, op);
	if (rc == WREP_PENDING) {
		/* Its turn comes when the last other one has gone. */
	} else if (!rc) {
		if (op->state == WREP_OP_CREATE && !op->file)
			op->file = wrep_file_ref(f);
	} else if (rc == -ENOENT) {
		wrep_db_missing(db);
		rc = -ESTALE;
	} else if (!wrep_out_of_descriptors(w, rc, db->name) && rc != -ESTALE && !damaged) {
		wrep_logf(w, 'E', "cannot attach to a database name=%s error=%s", db->name,
			  strerror(-rc));
	}
	wrep_file_unref(f);
	if (rc != WREP_PENDING)
		wrep_op_finish_open(op, rc);
}

/* While a fetch is due an open waits for its end: what the file shows will not go on, and the applier may have
 * been stopped in the middle of a transaction. */
static bool waits_for_fetch(struct wrep *w, struct wrep_waiter *o)
{
	struct wrep_waiter *later;
	bool waits, parked;

	if (!wrep_fetching(w))
		return false;
	later = (struct wrep_waiter *)wrep_open_new(o->db, o->file, o->flags, o->put_off, NULL);
	pthread_mutex_lock(&w->lock);
	waits = wrep_fetching(w) && !wrep_stopping(w);
	if (waits && o->op) {
		list(later);
		later->parked = true;
		later->op = o->op;
		o->op = NULL;
	}
	parked = later->parked;
	pthread_mutex_unlock(&w->lock);
	if (!parked)
		wrep_work_drop(&later->work);
	return waits;
}

static void run_open(struct wrep *w, struct wrep_work *work)
{
	struct wrep_waiter *o = (struct wrep_waiter *)work;

	if (!waits_for_fetch(w, o))
		open_database(w, o, true);
}

static void run_open_amid(struct wrep *w, struct wrep_work *work)
{
	struct wrep_waiter *o = (struct wrep_waiter *)work;

	if (!waits_for_fetch(w, o))
		open_database(w, o, false);
}

/* What it finds is as old as what those see who are in already. */
static bool open_overtakes(const struct wrep_work *work)
{
	struct wrep_db *db = ((const struct wrep_waiter *)work)->db;
	bool can;

	pthread_mutex_lock(&db->lock);
	/* Else its CREATE comes first, it is being renamed, or what is being applied is half in its file. */
	can = db->removed || (db->files[WREP_DB] && !db->half_applied);
	pthread_mutex_unlock(&db->lock);
	return can;
}

static void retire_open(struct wrep_work *work)
{
	wrep_db_retire(((struct wrep_waiter *)work)->db);
}

static const struct wrep_work_ops open_ops = {
	.name = "open",
	.run = run_open,
	.run_amid = run_open_amid,
	.cancel = cancel,
	.overtakes = open_overtakes,
	.retire = retire_open,
	.release = release,
};

struct wrep_work *wrep_open_new(struct wrep_db *db, struct wrep_file *f, int flags,
				wrep_put_off_fn *put_off, struct wrep_op *op)
{
	struct wrep_waiter *o = new_waiter(db->w, &open_ops, op);

	o->db = wrep_db_ref(db);
	o->file = f ? wrep_file_ref(f) : NULL;
	o->flags = flags;
	o->put_off = put_off;
	wrep_work_is_about(&o->work, db->id);
	return &o->work;
}
