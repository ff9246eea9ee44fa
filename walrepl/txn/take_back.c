/* What no transaction has committed is taken back when the daemon goes away, or its mount. */
#include "txn/take_back.h"

#include <stdlib.h>
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/attach.h"
#include "db/db.h"
#include "db/table.h"
#include "txn/discard.h"

/* The daemon is going away, or its mount. What no transaction has committed goes first, out of the kernel's cache as
 * well: that lives on for as long as an application has the file open, and nobody tells any more what in there
 * counts. Who has it open loses it, its writer included, who would find a mixture of his pages and others. False:
 * there is nothing, or it has come to wait for Raft. */
bool wrep_take_back(struct wrep_db *db)
{
	bool any;

	pthread_mutex_lock(&db->lock);
	any = db->overlay && !db->pending;
	pthread_mutex_unlock(&db->lock);
	if (!any)
		return false;
	wrep_db_detach(db);
	return wrep_db_revoke(db, true);
}

/* The mount is gone. A session without a journal goes on: what ends it comes by a descriptor. */
static void run(struct wrep *w, struct wrep_work *work)
{
	struct wrep_db **all;
	size_t count;

	(void)work;
	atomic_store(&w->taking_back, false);
	if (wrep_db_all(w, &all, &count) < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		bool journal;

		pthread_mutex_lock(&all[i]->lock);
		journal = all[i]->overlay && !all[i]->pending && !all[i]->unjournaled.active;
		pthread_mutex_unlock(&all[i]->lock);
		if (journal && wrep_take_back(all[i]))
			wrep_logf(w, 'W',
				  "unmounted while a transaction was being written: it was taken "
				  "back, and who has the database open loses it database=%s",
				  all[i]->name);
		wrep_db_unref(all[i]);
	}
	free(all);
}

static const struct wrep_work_ops ops = {.name = "take back",
					 .run = run,
					 .release = wrep_work_free};

void wrep_unmounted(struct wrep *w)
{
	atomic_store(&w->unmounted, true);
	wrep_take_back_tick(w);
}

/* Again and again: what waits for Raft when the mount goes may turn out refused. */
void wrep_take_back_tick(struct wrep *w)
{
	struct wrep_work *work;

	if (!atomic_load(&w->unmounted) || atomic_exchange(&w->taking_back, true))
		return;
	work = wrep_work_make(sizeof *work, &ops);
	wrep_work_is_about_all(work);
	wrep_queue_push(w->queue, work);
}
