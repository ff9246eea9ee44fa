/* A transaction of an application here that Raft has committed goes into the files: what was held back goes where it
 * belongs. */
#include "apply/install.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "apply/applier.h"
#include "apply/apply_multi.h"
#include "base/phase.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/attach.h"
#include "db/db.h"
#include "db/pin.h"
#include "db/spool.h"
#include "pages/capture.h"
#include "pages/overlay.h"
#include "record/entry.h"
#include "txn/commit.h"
#include "txn/discard.h"
#include "txn/journal.h"
#include "txn/multi_commit.h"
#include "txn/proposal.h"
#include "txn/unjournaled.h"

/* May be tried again when it failed. db->lock held. */
static int install_overlay(struct wrep_db *db, const struct wrep_commit *c)
{
	int rc = db->files[WREP_DB] ? wrep_overlay_commit(db->overlay, db->files[WREP_DB]->fd)
				    : -ENOENT;

	/* SQLite cuts a database that shrank only after its commit. */
	if (rc == 0 && ftruncate(db->files[WREP_DB]->fd, (off_t)c->page_count * c->page_size) < 0)
		rc = -errno;
	return rc ? rc : wrep_commit_pull_trigger(db, c);
}

/* Put what a transaction of an application here consists of where it belongs. May be tried again when it
 * failed for lack of space. db->lock held. */
static int install_once(struct wrep_db *db, const struct wrep_commit *c)
{
	return c->mode == WREP_COMMIT_WAL ? wrep_capture_committed(db->capture)
					  : install_overlay(db, c);
}

/* And forget how it was kept until then. With an error it stays in the overlay, which readers go on to see, as
 * long as the file may hold half of it. db->lock held. */
static void install_end(struct wrep_db *db, const struct wrep_commit *c, int rc)
{
	if (c->mode == WREP_COMMIT_WAL) {
		if (rc == -ENOSPC)
			wrep_capture_refused(db->capture);
	} else if (!rc || db->retired) {
		wrep_db_drop_overlay(db);
	}
	wrep_commit_detach(db);
}

/* What was copied into the database had its times set before; by now the file has been written. False:
 * nobody waits for that. */
static bool again_times(struct wrep_commit *c)
{
	struct wrep *w = c->db->w;
	bool submitted;

	if (!c->times.valid || c->sharers || c->writers)
		return false;
	pthread_mutex_lock(&w->lock); /* wrep_close() frees the log */
	submitted = w->resumable && wrep_propose_attr(c->db, &c->times, c->op) == WREP_PENDING;
	pthread_mutex_unlock(&w->lock);
	return submitted;
}

/* A rollback-journal transaction of an application here has committed: its pages move from the
 * overlay into the database file, and the journal goes. Or one in WAL mode: its last write is let
 * through, for which there was no room before. False: its file has been retired. */
static bool install_commit(struct wrep *w, struct wrep_db *db, struct wrep_commit *c,
			   struct wrep_spool *spool)
{
	uint64_t logged = 0;
	bool last = wrep_closing(w);
	int rc;

	pthread_mutex_lock(&db->lock);
	if (db->retired) { /* it is committed, and its file is being fetched from a peer */
		assert(db->pending == c);
		install_end(db, c, -ENOSPC);
		wrep_db_settled(db);
		pthread_mutex_unlock(&db->lock);
		return false;
	}
	for (;;) {
		/* Nothing else is applied while it is undecided. */
		assert(db->pending == c && db->local_version == c->base_version);
		rc = install_once(db, c);
		if (rc != -ENOSPC || last)
			break;
		pthread_mutex_unlock(&db->lock);
		wrep_wait_for_space(w, db->name, rc, &logged);
		last = wrep_closing(w);
		pthread_mutex_lock(&db->lock);
	}
	install_end(db, c, rc);
	if (!rc) {
		wrep_spool_applied(db, spool);
		db->local_version++;
		db->local_index = c->index;
		if (c->sets_wal_mode)
			db->local_wal_mode = c->wal_mode;
	}
	db->touched = db->unsynced = true;
	if (!rc && c->mode == WREP_COMMIT_REPLACE)
		wrep_unjournaled_copied(db, c->index, c->strays);
	wrep_db_settled(db);
	pthread_mutex_unlock(&db->lock);
	if (rc < 0 && !(last && rc == -ENOSPC)) /* the next start does it again, from the log */
		wrep_fatalf(w,
			    "cannot write a committed transaction into the database file "
			    "database=%s error=%s; repair the disk and mount again",
			    db->name, strerror(-rc));
	return true;
}

/* ---- the work ---------------------------------------------------------------------------------------- */

/* A rollback-journal transaction, or one in WAL mode whose last write found the disk full. */
struct install_work {
	struct wrep_work work; /* first */
	struct wrep_commit *commit;
	struct wrep_spool *spool; /* or NULL */
};

static void run_install(struct wrep *w, struct wrep_work *work)
{
	struct install_work *i = (struct install_work *)work;
	bool there = install_commit(w, i->commit->db, i->commit, i->spool);

	/* The kernel knows what was copied, but not what lay beside it. */
	if (there && i->commit->strays)
		wrep_db_invalidate(i->commit->db, WREP_DB, 0, 0);

	/* It is committed, whatever became of this copy. */
	if (!there || !again_times(i->commit))
		wrep_commit_tell(i->commit, 0);
}

static void release_install(struct wrep_work *work)
{
	struct install_work *i = (struct install_work *)work;

	wrep_commit_free(i->commit);
	wrep_spool_unref(i->spool);
	free(i);
}

/* An application waits, and the undecided transaction lets nothing pass: it is done even when the node stops. */
static const struct wrep_work_ops install_ops = {
	.name = "install",
	.run = run_install,
	.release = release_install,
	.finish_on_close = true,
};

void wrep_install_queue(struct wrep_commit *c, struct wrep_spool *spool)
{
	struct install_work *i = wrep_work_make(sizeof *i, &install_ops);

	i->commit = c;
	i->spool = spool;
	wrep_work_is_about(&i->work, c->db->id);
	wrep_queue_push(c->db->w->queue, &i->work);
}

/* The same for one over several databases. Its application, whose call waits, still holds the locks that
 * keep readers out of all of them. */
static void run_multi(struct wrep *w, struct wrep_work *work)
{
	struct wrep_multi *multi = (struct wrep_multi *)work;

	for (uint32_t i = 0; i < multi->count; i++) {
		struct wrep_part *m = &multi->members[i];

		install_commit(w, m->db, m->commit, m->spool);
		wrep_commit_free(m->commit);
	}
	wrep_multi_commit_done(multi->group);
}

const struct wrep_work_ops wrep_install_multi_ops = {
	.name = "install multi",
	.run = run_multi,
	.release = wrep_multi_release,
	.finish_on_close = true,
};
