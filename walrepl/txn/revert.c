/* A session without a journal is taken back by the applier: what was written is not committed. */
#include "txn/revert.h"

#include <errno.h>
#include <stdlib.h>
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/attach.h"
#include "db/db.h"
#include "db/table.h"
#include "txn/commit.h"
#include "txn/discard.h"
#include "txn/sender.h"
#include "txn/take_back.h"

struct revert_work {
	struct wrep_work work; /* first */
	struct wrep_db *db;    /* a reference */
	struct wrep_revert what;
};

static void run(struct wrep *w, struct wrep_work *work)
{
	struct revert_work *r = (struct revert_work *)work;
	struct wrep_db *db = r->db;
	struct wrep_unjournaled *d = &db->unjournaled;
	struct wrep_file *f = NULL;
	bool there, revoke = false, alone = false;

	pthread_mutex_lock(&db->lock);
	there = d->active && d->sequence == r->what.sequence && !db->pending;
	if (there) {
		alone = d->alone;
		/* Under EXCLUSIVE nobody else has seen it. */
		revoke = r->what.trigger != WREP_TRIGGER_NONE &&
			 (alone || r->what.trigger == WREP_TRIGGER_CLOSE);
		f = db->files[WREP_DB] ? wrep_file_ref(db->files[WREP_DB]) : NULL;
		if (!revoke)
			wrep_db_drop_overlay(db);
		d->failed = r->what.commit && r->what.trigger == WREP_TRIGGER_SYNC && !alone;
	}
	wrep_txn_unlock(db);
	if (revoke) {
		wrep_db_detach(db);
		wrep_db_revoke(db, true);
	} else if (f) {
		w->config.host.invalidate(w->config.host_ctx, f, 0, 0);
	}
	wrep_file_unref(f);
	pthread_mutex_lock(&db->lock);
	d->ending = false; /* not before the kernel has forgotten what it kept */
	pthread_mutex_unlock(&db->lock);
	if (revoke && !alone)
		wrep_logf(
			w, 'W',
			"lost: what was written without a journal and without fsync is not committed; who "
			"has the database open gets I/O errors, and opens it again database=%s",
			db->name);
	if (alone && !r->what.commit && !r->what.op)
		wrep_logf(
			w, 'W',
			"what was copied is thrown away, since it was no whole database when it was "
			"closed database=%s",
			db->name);
	if (r->what.commit)
		wrep_commit_tell(r->what.commit, r->what.result);
	else if (r->what.op)
		r->what.op->done(r->what.op, r->what.result);
}

static void cancel(struct wrep *w, struct wrep_work *work)
{
	struct revert_work *r = (struct revert_work *)work;

	(void)w;
	wrep_take_back(r->db);
	if (r->what.commit)
		wrep_commit_tell(r->what.commit, -EIO);
	else if (r->what.op)
		r->what.op->done(r->what.op, -EIO);
}

/* A writer waits for it, whose lock may be in the way. */
static bool overtakes(const struct wrep_work *work)
{
	(void)work;
	return true;
}

static void retire(struct wrep_work *work)
{
	wrep_db_retire(((struct revert_work *)work)->db);
}

static void release(struct wrep_work *work)
{
	struct revert_work *r = (struct revert_work *)work;

	wrep_db_unref(r->db);
	wrep_commit_free(r->what.commit);
	free(r);
}

static const struct wrep_work_ops ops = {
	.name = "revert",
	.run = run,
	.cancel = cancel,
	.overtakes = overtakes,
	.retire = retire,
	.release = release,
};

struct wrep_work *wrep_revert_new(struct wrep_db *db, const struct wrep_revert *what)
{
	struct revert_work *r = wrep_work_make(sizeof *r, &ops);

	r->db = wrep_db_ref(db);
	r->what = *what;
	wrep_work_is_about(&r->work, db->id);
	return &r->work;
}

void wrep_revert_queue(struct wrep_db *db, const struct wrep_revert *what)
{
	wrep_queue_push(db->w->queue, wrep_revert_new(db, what));
}
