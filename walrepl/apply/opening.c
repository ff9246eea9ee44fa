/* An application opens a database.
 *
 * It waits until this node has caught up. Where this node may not write, and where something is left to be seen to, the
 * applier serves it: the fence is closed before the open returns. The last step, on whatever thread, is
 * wrep_file_opened(), which counts it.
 */
#include "apply/opening.h"

#include <errno.h>
#include <string.h>
#include "apply/fence.h"
#include "apply/fold.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/pin.h"
#include "db/side_stray.h"
#include "db/table.h"
#include "file/file.h"
#include "txn/unjournaled.h"

int wrep_file_opened(struct wrep_file *f, int flags, bool internal, struct wrep_op *op)
{
	int rc = f->revoked ? -ESTALE : wrep_db_hold(f->db, internal);

	if (rc)
		return rc;
	if (f->fd < 0) /* it has lost its name, and the last who had it open is gone */
		rc = -ESTALE;
	else if (f->kind == WREP_DB && !internal)
		rc = wrep_direct_admit_open(f, flags, op);
	if (!rc && f->kind == WREP_DB && !internal)
		rc = wrep_strays_admit(f->db, flags);
	if (rc)
		wrep_db_unhold(f->db);
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

/* 0 when this node has caught up; until then WREP_PENDING, and `*item`, taken, is queued when it has. */
int wrep_wait_caught_up(struct wrep *w, struct wrep_item **item)
{
	int rc = 0;

	pthread_mutex_lock(&w->lock);
	if (w->closing) {
		rc = -ENOTCONN;
	} else if (!w->caught_up) {
		(*item)->next = w->waiting;
		w->waiting = *item;
		*item = NULL;
		rc = WREP_PENDING;
	}
	pthread_mutex_unlock(&w->lock);
	return rc;
}

int wrep_wait_ready(struct wrep *w, struct wrep_op *op)
{
	struct wrep_item *item = wrep_item_new(WREP_ITEM_READY, NULL);
	int rc;

	op->state = WREP_OP_OPEN;
	item->op = op;
	rc = wrep_wait_caught_up(w, &item);
	wrep_item_free(item);
	return rc;
}

void wrep_ready_run(struct wrep *w, struct wrep_item *item)
{
	struct wrep_op *op;

	pthread_mutex_lock(&w->lock);
	op = item->op; /* NULL: interrupted meanwhile */
	item->op = NULL;
	pthread_mutex_unlock(&w->lock);
	if (op)
		op->done(op, 0);
}

/* Of those that wait until this node has caught up; NULL. w->lock held. */
static struct wrep_item *take_waiting(struct wrep *w, const struct wrep_op *op)
{
	struct wrep_item *item;

	for (struct wrep_item **p = &w->waiting; (item = *p); p = &item->next) {
		if (item->op == op) {
			*p = item->next;
			break;
		}
	}
	return item;
}

void wrep_op_interrupt(struct wrep *w, struct wrep_op *op)
{
	struct wrep_item *waited;
	bool found;

	pthread_mutex_lock(&w->lock);
	waited = take_waiting(w, op);
	found = waited != NULL;
	for (struct wrep_item *i = w->queue_head; !found && i; i = i->next) {
		if ((i->type == WREP_ITEM_OPEN || i->type == WREP_ITEM_READY) && i->op == op) {
			i->op = NULL;
			found = true;
		}
	}
	pthread_mutex_unlock(&w->lock);
	wrep_item_free(waited);
	if (found)
		wrep_op_finish_open(op, -EINTR);
}

void wrep_op_time_out(struct wrep *w, struct wrep_op *op)
{
	struct wrep_item *waited;

	pthread_mutex_lock(&w->lock);
	waited = take_waiting(w, op);
	pthread_mutex_unlock(&w->lock);
	if (!waited)
		return;
	wrep_item_free(waited);
	wrep_op_finish_open(op, -ETIMEDOUT);
}

/* Has what this item asks for nothing to wait for? w->lock held. */
bool wrep_open_can_be_served(const struct wrep_item *item)
{
	bool can;

	if (item->type == WREP_ITEM_IDLE) /* descriptors may be what is waited for */
		return true;
	if (item->type != WREP_ITEM_OPEN)
		return item->type ==
		       WREP_ITEM_REVERT; /* a writer waits for it, whose lock may be in the way */
	pthread_mutex_lock(&item->db->lock);
	/* Else its CREATE comes first, it is being renamed, or what is being applied is half in its file. */
	can = item->db->removed || (item->db->files[WREP_DB] && !item->db->half_applied);
	pthread_mutex_unlock(&item->db->lock);
	return can;
}

static void open_database(struct wrep *w, struct wrep_item *item, bool may_fold)
{
	struct wrep_db *db = item->db;
	struct wrep_op *op;
	struct wrep_file *f;
	bool damaged;
	int rc = 0;

	pthread_mutex_lock(&w->lock);
	op = item->op; /* NULL: interrupted meanwhile */
	item->op = NULL;
	pthread_mutex_unlock(&w->lock);
	if (!op)
		return;
	pthread_mutex_lock(&db->lock);
	f = db->removed ? NULL : wrep_db_file(db, WREP_DB);
	damaged = db->damaged;
	pthread_mutex_unlock(&db->lock);
	if (!f)
		rc = -ESTALE; /* the kernel looks the name up again */
	else if (item->file && item->file != f)
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
		rc = wrep_file_opened(f, item->open_flags, false, op);
		pthread_mutex_unlock(&db->lock);
	}
	if (rc == -EAGAIN)
		rc = wrep_postpone_open(f, item->open_flags, op);
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
 * been stopped in the middle of a transaction. Takes the item. */
void wrep_open_serve(struct wrep *w, struct wrep_item *item, bool may_fold)
{
	bool later;

	pthread_mutex_lock(&w->lock);
	later = w->fetching && !w->closing && !w->failed;
	if (later) {
		item->next = w->waiting;
		w->waiting = item;
	}
	pthread_mutex_unlock(&w->lock);
	if (later)
		return;
	open_database(w, item, may_fold);
	wrep_item_free(item);
}
