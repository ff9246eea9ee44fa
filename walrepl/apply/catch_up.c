/* This node catches up.
 *
 * Raftlog tells when everything up to the leader's commit index at first contact is here. Then the applier proves that
 * the files are what the checksums say, lets in who waits for that, and opens the fences where this node leads.
 */
#include "apply/catch_up.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "apply/fence.h"
#include "apply/opening.h"
#include "base/phase.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/pin.h"
#include "db/table.h"
#include "snapshot/restore.h"

bool wrep_knows_names(struct wrep *w)
{
	bool knows;

	pthread_mutex_lock(&w->lock);
	knows = wrep_is_ready(w) || (w->names_index && !wrep_fetching(w));
	pthread_mutex_unlock(&w->lock);
	return knows;
}

uint64_t wrep_progress(struct wrep *w)
{
	uint64_t steps;

	pthread_mutex_lock(&w->lock);
	steps = w->led_term;
	pthread_mutex_unlock(&w->lock);
	return steps + atomic_load(&w->delivered_bytes) + wrep_queue_taken(w->queue) +
	       atomic_load(&w->compared_bytes) + atomic_load(&w->fetched_bytes);
}

/* Leadership has changed. */
struct view_work {
	struct wrep_work work; /* first */
	uint64_t sequence;
};

static void run_view(struct wrep *w, struct wrep_work *work)
{
	const struct view_work *v = (struct view_work *)work;
	bool latest;

	pthread_mutex_lock(&w->lock);
	latest = v->sequence == w->view_sequence;
	/* Only the latest view opens the fence: a later one may lie behind entries yet to come. */
	if (latest && w->view.role == RLOG_LEADER && w->view.ready && !wrep_fetching(w))
		atomic_store(&w->may_write, true);
	pthread_mutex_unlock(&w->lock);
	if (latest)
		wrep_fences_settle(w);
}

static const struct wrep_work_ops view_ops = {
	.name = "view",
	.run = run_view,
	.release = wrep_work_free,
	.is_no_progress = true,
};

void wrep_view_queue(struct wrep *w, uint64_t sequence)
{
	struct view_work *v = wrep_work_make(sizeof *v, &view_ops);

	v->sequence = sequence;
	wrep_work_is_about_all(&v->work);
	wrep_queue_push(w->queue, &v->work);
}

/* The file is as long as its pages need, and no longer missing. Everything is applied, and nobody has it
 * open. db->lock held. */
static bool file_is_whole(struct wrep_db *db)
{
	uint32_t pages = db->state.sum.page_count;
	struct stat st;
	bool whole;
	int rc;

	if (db->opens || db->local_version != db->state.version || db->overlay ||
	    !db->files[WREP_DB])
		return true; /* what is read is checked then */
	while (pages && !db->state.sum.hash[pages - 1])
		pages--; /* never written */
	rc = wrep_db_pin(db, true);
	if (rc)
		return rc != -ENOENT; /* not now */
	whole = fstat(db->files[WREP_DB]->fd, &st) == 0 &&
		(uint64_t)st.st_size >= (uint64_t)pages * db->state.sum.page_size;
	wrep_db_unpin(db);
	return whole;
}

/* Is what was restored, and brought up to date since, what the checksums say? False: what is not is
 * being fetched. */
static bool prove_all(struct wrep *w)
{
	struct wrep_db **all;
	size_t count;

	if (wrep_db_all(w, &all, &count) < 0)
		return false;
	for (size_t i = 0; i < count; i++) {
		struct wrep_db *db = all[i];
		bool sound;

		pthread_mutex_lock(&db->lock);
		sound = db->removed || db->damaged || (wrep_verify(db) && file_is_whole(db));
		pthread_mutex_unlock(&db->lock);
		if (!sound)
			w->up->damaged(w, "the database file is damaged", db);
		wrep_db_unref(db);
	}
	free(all);
	return !wrep_fetching(w);
}

static void run_caught_up(struct wrep *w, struct wrep_work *work)
{
	bool early;

	(void)work;
	wrep_phase_wait_opened(w); /* so that it is known whether this node is alone */
	pthread_mutex_lock(&w->lock);
	atomic_store(&w->verify_waits, true);
	early = atomic_load(&w->delivered) < w->verify_from;
	if (!early)
		atomic_store(&w->verify_waits, false);
	pthread_mutex_unlock(&w->lock);
	if (early)
		return; /* wrep_caught_up_delivered() comes back to it */
	if (!prove_all(w))
		return; /* raftlog tells again after the fetch */
	if (wrep_phase_serve(w))
		wrep_opens_resume(w);
}

static const struct wrep_work_ops caught_up_ops = {.name = "caught up",
						   .run = run_caught_up,
						   .release = wrep_work_free};

void wrep_caught_up_queue(struct wrep *w)
{
	struct wrep_work *work = wrep_work_make(sizeof *work, &caught_up_ops);

	wrep_work_is_about_all(work);
	wrep_queue_push(w->queue, work);
}

void wrep_caught_up_delivered(struct wrep *w, uint64_t index)
{
	bool proves;

	if (!atomic_load(&w->verify_waits))
		return;
	pthread_mutex_lock(&w->lock);
	proves = index >= w->verify_from;
	pthread_mutex_unlock(&w->lock);
	if (proves && atomic_exchange(&w->verify_waits, false))
		wrep_caught_up_queue(w);
}
