/* The applier: one thread that brings the backing files up to what the log says, in its order.
 *
 * Transactions are applied (apply.c) or installed (install.c), fences closed and opened (apply/fence.c), databases created and
 * removed (names/database.c, names/directory.c, names/rename.c), applications let in.
 *
 * What is busy (a reader in rollback mode, a writer that has not noticed that it lost) is tried
 * again, and everything behind it waits: the order of the log is kept. Only opens are served
 * meanwhile: who keeps it busy may be the one who opens.
 *
 * The files show what a prefix of the log says, never anything on top of a gap. Something that the log says
 * is passed over for one of these reasons only, each of which goes for all that is behind it as well: the
 * node stops; it is about to fetch, which retires whatever is there (from the moment that is wanted nothing
 * of the log is begun any more, nor is a durable point taken, which would count on what was passed over); the
 * database is removed, or its file is gone for good (apply/apply.c has the rule, and asserts it).
 */
#include "apply/applier.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "apply/fence.h"
#include "apply/opening.h"
#include "base/io.h"
#include "base/phase.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/attach.h"
#include "db/db.h"
#include "db/pin.h"
#include "db/table.h"
#include "txn/take_back.h"

#define RETRY_MS 2	  /* between attempts to close a fence that is busy */
#define FULL_LOG_MS 60000 /* between two lines that tell of a full disk */

/* ---- waiting --------------------------------------------------------------------------------------- */

static void serve(void *ctx, struct wrep_work *work)
{
	if (work->ops->run_amid)
		work->ops->run_amid(ctx, work);
	else
		work->ops->run(ctx, work);
}

void wrep_serve_opens(struct wrep *w)
{
	wrep_queue_overtake(w->queue, serve, w);
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

/* It is not done: the daemon is going away, or about to fetch. */
static bool is_passed_over(struct wrep *w, const struct wrep_work_ops *ops)
{
	if (wrep_stopping(w))
		return !ops->finish_on_close;
	return ops->follows_log && wrep_fetching(w);
}

static void deal_with(struct wrep *w, struct wrep_work *work)
{
	if (!is_passed_over(w, work->ops))
		work->ops->run(w, work);
	else if (work->ops->cancel)
		work->ops->cancel(w, work);
	wrep_queue_done(w->queue, work);
}

static void *applier_main(void *arg)
{
	struct wrep *w = arg;
	struct wrep_work *work;

	prctl(PR_SET_NAME, "applier");
	atomic_store(&w->applier_tid, gettid());
	for (;;) {
		bool settles = w->fences_unsettled && !wrep_stopping(w);

		work = wrep_queue_next(w->queue, settles ? RETRY_MS : -1);
		if (work)
			deal_with(w, work);
		else if (wrep_queue_is_closed(w->queue))
			return NULL;
		else if (!wrep_stopping(w))
			wrep_fences_settle(w);
	}
}

int wrep_applier_start(struct wrep *w)
{
	int rc;

	STAILQ_INIT(&w->idle_conns);
	rc = pthread_create(&w->applier, NULL, applier_main, w);
	if (rc)
		return -rc;
	w->applier_running = true;
	return 0;
}

void wrep_applier_end_rest(struct wrep *w)
{
	struct wrep_work *work;

	while ((work = wrep_queue_next(w->queue, 0)))
		deal_with(w, work);
}

void wrep_applier_stop(struct wrep *w)
{
	struct wrep_db **all;
	size_t count;

	if (!w->applier_running)
		return;
	assert(wrep_queue_is_closed(w->queue));
	wrep_opens_end(w);
	pthread_join(w->applier, NULL);
	w->applier_running = false;
	/* What raftlog's last deliveries queued when the applier had gone already. */
	wrep_applier_end_rest(w);
	/* The connections were the applier's; it is gone. */
	wrep_fences_trim(w, 0);
	if (wrep_db_all(w, &all, &count) < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		wrep_db_detach(all[i]);
		wrep_take_back(all[i]);
		wrep_db_unref(all[i]);
	}
	free(all);
}
