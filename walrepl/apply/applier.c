/* The applier: one thread that brings the backing files up to what the log says, in its order.
 *
 * Transactions are applied or installed (apply.c), fences closed and opened (apply/fence.c), databases created and
 * removed (names/database.c, db/directory.c, names/rename.c), applications let in.
 *
 * What is busy (a reader in rollback mode, a writer that has not noticed that it lost) is tried
 * again, and everything behind it waits: the order of the log is kept. Only opens are served
 * meanwhile: who keeps it busy may be the one who opens.
 *
 * The files show what a prefix of the log says, never anything on top of a gap. Something that the log says
 * is passed over for one of these reasons only, each of which goes for all that is behind it as well: the
 * node stops; it is about to fetch, which retires whatever is there (from the moment that is wanted nothing
 * of the log is begun any more, nor is a durable point taken, which would count on what was passed over); the
 * database is removed, or its file is gone for good (wrep_apply_transaction() has the rule, and asserts it).
 */
#include "apply/applier.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "apply/apply.h"
#include "apply/apply_multi.h"
#include "apply/catch_up.h"
#include "apply/fence.h"
#include "apply/fold.h"
#include "apply/install.h"
#include "apply/opening.h"
#include "base/io.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/attach.h"
#include "db/db.h"
#include "db/pin.h"
#include "db/table.h"
#include "names/database.h"
#include "names/directory.h"
#include "names/rename.h"
#include "repair/fetch.h"
#include "snapshot/snapshotter.h"
#include "state/parts.h"
#include "txn/commit.h"
#include "txn/take_back.h"
#include "txn/unjournaled.h"

#define RETRY_MS 2	  /* between attempts at a busy lock */
#define FULL_LOG_MS 60000 /* between two lines that tell of a full disk */

/* ---- the queue ------------------------------------------------------------------------------------ */

struct wrep_item *wrep_item_new(enum wrep_item_type type, struct wrep_db *db)
{
	struct wrep_item *item = calloc(1, sizeof *item);

	if (!item)
		abort(); /* a few dozen bytes: the machine is beyond help */
	item->type = type;
	item->db = db ? wrep_db_ref(db) : NULL;
	return item;
}

void wrep_item_free(struct wrep_item *item)
{
	if (!item)
		return;
	wrep_db_unref(item->db);
	wrep_db_unref(item->replaced);
	wrep_dir_unref(item->dir);
	wrep_file_unref(item->file);
	rlog_buf_unref(item->buf);
	wrep_parts_unref(item->parts);
	wrep_commit_free(item->commit);
	for (uint32_t i = 0; i < item->member_count; i++) {
		wrep_db_unref(item->members[i].db);
		wrep_parts_unref(item->members[i].parts);
	}
	free(item->members);
	free(item);
}

void wrep_applier_push(struct wrep *w, struct wrep_item *item)
{
	item->next = NULL;
	pthread_mutex_lock(&w->lock);
	*w->queue_tail = item;
	w->queue_tail = &item->next;
	w->queue_bytes += item->bytes;
	pthread_cond_broadcast(&w->queue_wake);
	pthread_mutex_unlock(&w->lock);
}

bool wrep_closing(struct wrep *w)
{
	bool is;

	pthread_mutex_lock(&w->lock);
	is = w->closing;
	pthread_mutex_unlock(&w->lock);
	return is;
}

bool wrep_stopping(struct wrep *w)
{
	bool stop;

	pthread_mutex_lock(&w->lock);
	stop = w->closing || w->failed;
	pthread_mutex_unlock(&w->lock);
	return stop;
}

/* Serve the opens that are queued; what they find is as old as what those see who are in already. */
void wrep_serve_opens(struct wrep *w)
{
	struct wrep_item *opens = NULL, **last = &opens, **p, *item;

	pthread_mutex_lock(&w->lock);
	for (p = &w->queue_head; (item = *p);) {
		if (!wrep_open_can_be_served(item)) {
			p = &item->next;
			continue;
		}
		*p = item->next;
		item->next = NULL;
		*last = item;
		last = &item->next;
	}
	w->queue_tail = p;
	pthread_mutex_unlock(&w->lock);
	while ((item = opens)) {
		opens = item->next;
		if (item->type == WREP_ITEM_IDLE) {
			wrep_fences_keep(w, item);
			continue;
		}
		if (item->type == WREP_ITEM_OPEN) {
			wrep_open_serve(w, item, false); /* amid something else */
			continue;
		}
		wrep_direct_revert(w, item);
		wrep_item_free(item);
	}
}

bool wrep_fetching(struct wrep *w)
{
	bool fetching;

	pthread_mutex_lock(&w->lock);
	fetching = w->fetching;
	pthread_mutex_unlock(&w->lock);
	return fetching;
}

/* The disk is full, or there are no descriptors left (`rc`). What is committed is in the log and waits
 * there: this node falls behind, and goes on when somebody made room. `logged`: when that was said last. */
void wrep_wait_for_space(struct wrep *w, const char *name, int rc, uint64_t *logged)
{
	if (wrep_out_of_descriptors(w, rc, name)) {
		wrep_fences_trim(w, 0);
	} else if (!*logged || wrep_now_ms() - *logged > FULL_LOG_MS) {
		*logged = wrep_now_ms();
		wrep_logf(w, 'E', "disk full, replication waits: free some space database=%s",
			  name);
	}
	wrep_serve_opens(w);
	usleep(WREP_FULL_RETRY_MS * 1000);
}

/* ---- the thread ------------------------------------------------------------------------------------ */

static struct wrep_item *take(struct wrep *w, bool retry)
{
	struct wrep_item *item;

	pthread_mutex_lock(&w->lock);
	if (!w->queue_head && !w->closing && retry)
		rlog_cond_wait(&w->queue_wake, &w->lock,
			       rlog_clock_ns() + RETRY_MS * RLOG_NS_PER_MS);
	while (!w->queue_head && !w->closing && !retry)
		pthread_cond_wait(&w->queue_wake, &w->lock);
	item = w->queue_head;
	if (item) {
		w->queue_head = item->next;
		if (!w->queue_head)
			w->queue_tail = &w->queue_head;
		w->queue_bytes -= item->bytes;
		if (item->type != WREP_ITEM_VIEW)
			atomic_fetch_add(&w->taken, 1);
		if (w->queue_full && w->resumable) {
			w->queue_full = false;
			rlog_resume(w->log); /* under the lock: wrep_close() frees the log */
		}
	}
	pthread_mutex_unlock(&w->lock);
	return item;
}

/* Does it do what the log says, or count on all of that being done? */
static bool follows_log(const struct wrep_item *item)
{
	switch (item->type) {
	case WREP_ITEM_CREATE:
	case WREP_ITEM_UNLINK:
	case WREP_ITEM_SETATTR:
	case WREP_ITEM_PAGES:
	case WREP_ITEM_APPLY:
	case WREP_ITEM_APPLY_GROUP:
	case WREP_ITEM_POINT:
	case WREP_ITEM_MKDIR:
	case WREP_ITEM_RMDIR:
	case WREP_ITEM_DIRATTR:
	case WREP_ITEM_RENAME:
		return true;
	case WREP_ITEM_DROP:
	case WREP_ITEM_INSTALL: /* an application waits, and the undecided transaction let nothing pass */
	case WREP_ITEM_INSTALL_GROUP:
	case WREP_ITEM_REVERT:
	case WREP_ITEM_OPEN:
	case WREP_ITEM_READY:
	case WREP_ITEM_VIEW:
	case WREP_ITEM_TAKE_BACK:
	case WREP_ITEM_CAUGHT_UP:
	case WREP_ITEM_IDLE:
	case WREP_ITEM_FOLD:
	case WREP_ITEM_FETCH:
		break;
	}
	return false;
}

/* It is not done: the daemon is going away, or about to fetch. The log has it; nobody is left waiting. */
static void end_item(struct wrep_item *item)
{
	if (!item)
		return;
	if (item->type == WREP_ITEM_REVERT)
		wrep_take_back(item->db);
	if (item->op && (item->type == WREP_ITEM_OPEN || item->type == WREP_ITEM_READY))
		wrep_op_finish_open(item->op, -ENOTCONN);
	else if (item->type == WREP_ITEM_REVERT && item->commit)
		wrep_commit_tell(item->commit, -EIO);
	else if (item->op)
		item->op->done(item->op, item->type == WREP_ITEM_POINT ? -EAGAIN : -EIO);
	wrep_item_free(item);
}

static void *applier_main(void *arg)
{
	struct wrep *w = arg;
	bool retry = false;

	prctl(PR_SET_NAME, "applier");
	atomic_store(&w->applier_tid, gettid());
	for (;;) {
		struct wrep_item *item = take(w, retry);

		if (wrep_stopping(w) && !(item && (item->type == WREP_ITEM_INSTALL ||
						   item->type == WREP_ITEM_INSTALL_GROUP))) {
			if (!item && wrep_closing(w))
				return NULL;
			end_item(item);
			retry = false;
			continue;
		}
		if (!item) {
			retry = wrep_fences_settle(w);
			continue;
		}
		if (follows_log(item) && wrep_fetching(w)) {
			end_item(item);
			continue;
		}
		switch (item->type) {
		case WREP_ITEM_CREATE:
			retry = wrep_create_run(w, item) || retry;
			break;
		case WREP_ITEM_UNLINK:
			wrep_unlink_run(w, item);
			break;
		case WREP_ITEM_SETATTR:
			wrep_setattr_run(item);
			break;
		case WREP_ITEM_PAGES:
			wrep_apply_part(w, item);
			break;
		case WREP_ITEM_DROP: /* freeing the item does it */
			break;
		case WREP_ITEM_APPLY:
			wrep_apply_transaction(w, item);
			break;
		case WREP_ITEM_INSTALL:
			wrep_install(w, item);
			break;
		case WREP_ITEM_REVERT:
			wrep_direct_revert(w, item);
			break;
		case WREP_ITEM_APPLY_GROUP:
			wrep_apply_group(w, item);
			break;
		case WREP_ITEM_INSTALL_GROUP:
			wrep_install_group(w, item);
			break;
		case WREP_ITEM_OPEN:
			wrep_open_serve(w, item, true);
			item = NULL;
			break;
		case WREP_ITEM_READY:
			wrep_ready_run(w, item);
			break;
		case WREP_ITEM_VIEW:
			retry = wrep_view_run(w, item) || retry;
			break;
		case WREP_ITEM_TAKE_BACK:
			wrep_take_all_back(w);
			break;
		case WREP_ITEM_CAUGHT_UP:
			wrep_caught_up_run(w);
			break;
		case WREP_ITEM_POINT:
			wrep_point_run(w, item);
			break;
		case WREP_ITEM_IDLE:
			wrep_fences_keep(w, item);
			wrep_fences_trim(w, WREP_IDLE_CONNS);
			item = NULL;
			break;
		case WREP_ITEM_FOLD:
			wrep_fold(item->db);
			break;
		case WREP_ITEM_MKDIR:
			wrep_dir_make(w, item);
			break;
		case WREP_ITEM_RMDIR:
			wrep_dir_remove(w, item);
			break;
		case WREP_ITEM_DIRATTR:
			wrep_dir_set_attributes(w, item);
			break;
		case WREP_ITEM_RENAME:
			wrep_rename_run(w, item);
			break;
		case WREP_ITEM_FETCH:
			wrep_fetch_run(w);
			break;
		}
		wrep_item_free(item);
	}
}

int wrep_applier_start(struct wrep *w)
{
	int rc;

	w->idle_conns_tail = &w->idle_conns;
	rc = pthread_create(&w->applier, NULL, applier_main, w);
	if (rc)
		return -rc;
	w->applier_running = true;
	return 0;
}

void wrep_applier_stop(struct wrep *w)
{
	struct wrep_item *waiting, *item;
	struct wrep_db **all;
	size_t count;

	if (!w->applier_running)
		return;
	pthread_mutex_lock(&w->lock);
	assert(w->closing);
	waiting = w->waiting;
	w->waiting = NULL;
	pthread_cond_broadcast(&w->queue_wake);
	pthread_mutex_unlock(&w->lock);
	while (waiting) {
		struct wrep_item *next = waiting->next;

		end_item(waiting);
		waiting = next;
	}
	pthread_join(w->applier, NULL);
	w->applier_running = false;
	/* What raftlog's last deliveries queued when the applier had gone already. */
	while ((item = take(w, false))) {
		if (item->type == WREP_ITEM_INSTALL) {
			wrep_install(w, item);
			wrep_item_free(item);
		} else if (item->type == WREP_ITEM_INSTALL_GROUP) {
			wrep_install_group(w, item);
			wrep_item_free(item);
		} else {
			end_item(item);
		}
	}
	/* The connections were the applier's; it is gone. */
	wrep_fences_trim(w, 0);
	if (wrep_db_all(w, &all, &count) < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		wrep_fence_open(all[i]);
		wrep_take_back(all[i]);
		wrep_db_unref(all[i]);
	}
	free(all);
}

void wrep_applier_end_rest(struct wrep *w)
{
	struct wrep_item *item;

	while ((item = take(w, false)))
		end_item(item);
}
