/* A transaction over several databases on its way through Raft.
 *
 * In the good case its super-journal is being removed (txn/super_journal.c). Each database that has something to commit
 * gets a struct wrep_commit, which makes its transaction the undecided one there, as for one database. What
 * does not fit one entry together goes ahead in PAGES, one database after the other; when all are delivered
 * a GROUP entry follows, with the COMMIT of each. It takes effect if each of these COMMITs would: decided in
 * one go under the locks of all (deliver_commit.c), from nothing but the log, so alike on every node. Where it
 * does, the overlays go into the files in one work of the applier's; where it does not, all is as before.
 * A transaction that turns out to be one over a single database commits by a plain COMMIT.
 */
#include "txn/multi_commit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "record/entry.h"
#include "record/manifest.h"
#include "state/multi_list.h"
#include "state/state.h"
#include "txn/commit.h"
#include "txn/sender.h"

/* ---- on its way -------------------------------------------------------------------------------- */

static void tell(struct wrep_multi_commit *g, int result)
{
	g->op->done(g->op, result);
	free(g);
}

static void dismiss(struct wrep_multi_commit *g, bool refused, int result)
{
	for (uint32_t i = 0; i < g->count; i++)
		wrep_commit_dismiss(g->members[i], refused);
	tell(g, result);
}

void wrep_multi_commit_end(struct wrep_multi_commit *g, int result)
{
	dismiss(g, false, result); /* what parts there were, the entry has taken */
}

void wrep_multi_commit_done(struct wrep_multi_commit *g)
{
	tell(g, 0);
}

/* Its only member has been decided. */
static void alone_done(struct wrep_op *op, int result)
{
	tell((struct wrep_multi_commit *)((char *)op - offsetof(struct wrep_multi_commit, alone)),
	     result);
}

/* raftlog: refused or unknown. */
static void group_refused(struct rlog_request *req, enum rlog_outcome outcome)
{
	struct wrep_multi_commit *g = (struct wrep_multi_commit *)req;

	if (outcome == RLOG_UNKNOWN)
		wrep_logf(g->w, 'W',
			  "commit outcome unknown: no majority answered in time; the application "
			  "got EIO databases=%u first=%s",
			  g->count, g->members[0]->db->name);
	else if (!req->error)
		wrep_commit_log_refused(g->members[0]->db, WREP_REFUSED_NO_LEADER);
	dismiss(g, outcome == RLOG_REFUSED,
		outcome == RLOG_REFUSED && req->error ? req->error : -EIO);
}

/* All parts are delivered. */
static int encode(struct wrep_multi_commit *g)
{
	struct wrep_entry *members = calloc(g->count, sizeof *members);
	int rc = members ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < g->count && !rc; i++)
		wrep_commit_describe(g->members[i], &members[i]);
	if (!rc) {
		g->request.buf = wrep_entry_alloc_group(members, g->count);
		rc = g->request.buf ? 0 : -ENOMEM;
	}
	for (uint32_t i = 0; i < g->count && !rc; i++) {
		struct wrep_db *db = g->members[i]->db;

		pthread_mutex_lock(&db->lock);
		rc = wrep_commit_fill(g->members[i], &members[i]);
		pthread_mutex_unlock(&db->lock);
	}
	free(members);
	if (rc) {
		rlog_buf_unref(g->request.buf);
		g->request.buf = NULL;
	}
	return rc;
}

static int failure(struct wrep_commit *c)
{
	int rc;

	pthread_mutex_lock(&c->db->lock);
	rc = c->out->failed;
	pthread_mutex_unlock(&c->db->lock);
	return rc;
}

static void parts_done(struct wrep_commit *c);

/* Have the parts of the next member submitted, or, when all are, the entry. */
static void go_on(struct wrep_multi_commit *g)
{
	int rc = g->current ? failure(g->members[g->current - 1]) : 0;

	while (!rc && g->current < g->count) {
		struct wrep_commit *c = g->members[g->current++];

		if (c->parts) {
			pthread_mutex_lock(&c->db->lock);
			c->started = true;
			wrep_txn_unlock(c->db); /* parts_done() follows */
			return;
		}
	}
	if (!rc)
		rc = encode(g);
	if (rc == -EIO)
		wrep_commit_log_refused(g->members[0]->db, WREP_REFUSED_NO_LEADER);
	if (rc) {
		dismiss(g, true, rc);
		return;
	}
	g->request.done = group_refused;
	rlog_submit(g->w->log, &g->request);
}

static void parts_done(struct wrep_commit *c)
{
	go_on(c->group);
}

/* Make what the overlay of `db` holds the undecided transaction there. 1, 0 (it holds nothing), -errno. */
static int add_member(struct wrep_multi_commit *g, struct wrep_db *db, uint32_t at)
{
	struct wrep_commit *c = calloc(1, sizeof *c);
	int rc;

	if (!c)
		return -ENOMEM;
	c->group = g;
	c->member_count = g->count;
	c->parts_done = parts_done;
	c->trigger = WREP_TRIGGER_NONE;
	pthread_mutex_lock(&db->lock);
	if (db->overlay) {
		rc = wrep_commit_prepare(db, c);
	} else {
		free(c);
		rc = 0;
	}
	if (rc == 1)
		g->members[at] = c;
	wrep_txn_unlock(db); /* of the member nothing is submitted yet */
	return rc;
}

int wrep_multi_commit_start(struct wrep *w, struct wrep_db **dbs, size_t count, struct wrep_op *op)
{
	struct wrep_multi_commit *g = calloc(1, sizeof *g + count * sizeof g->members[0]);
	uint32_t members = 0;
	int rc = g ? 0 : -ENOMEM;

	if (g) {
		g->w = w;
		g->op = op;
		g->count = (uint32_t)count; /* at most; what fits is reckoned by it */
	}
	for (size_t i = 0; i < count && rc >= 0; i++) {
		rc = add_member(g, dbs[i], members);
		members += rc == 1;
	}
	if (rc < 0 || !members) {
		for (uint32_t i = 0; i < members; i++)
			wrep_commit_dismiss(g->members[i], true);
		free(g);
		return rc < 0 ? rc : 0;
	}
	g->count = members;
	if (members == 1) {
		struct wrep_commit *c = g->members[0];

		g->alone.done = alone_done;
		pthread_mutex_lock(&c->db->lock);
		c->group = NULL;
		c->member_count = 0;
		c->op = &g->alone;
		wrep_txn_unlock(c->db);
	} else {
		go_on(g);
	}
	return WREP_PENDING;
}

/* ---- what took effect ---------------------------------------------------------------------------- */

int wrep_multi_commits_note(struct wrep *w, struct wrep_manifest *m)
{
	int rc;

	pthread_mutex_lock(&w->delivery);
	rc = wrep_multi_list_note(&w->state->multi, atomic_load(&w->delivered), m);
	pthread_mutex_unlock(&w->delivery);
	return rc;
}

void wrep_multi_commits_forget(struct wrep *w, uint64_t index)
{
	pthread_mutex_lock(&w->delivery);
	wrep_multi_list_forget(&w->state->multi, index);
	pthread_mutex_unlock(&w->delivery);
}
