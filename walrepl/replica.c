/* The replica: put together and taken apart, and what raftlog tells beside entries.
 *
 * Raftlog moves the replicated state entry by entry (deliver.c) and the applier brings the files up to date
 * (apply/). Here is the order in which all of them begin and end, and how a snapshot, a view and a peer find the
 * room that deals with them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "apply/applier.h"
#include "apply/catch_up.h"
#include "base/phase.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/departure.h"
#include "db/directory.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/stray.h"
#include "db/table.h"
#include "deliver.h"
#include "record/manifest.h"
#include "repair/fetch.h"
#include "repair/page_server.h"
#include "repair/scrubber.h"
#include "snapshot/current_manifest.h"
#include "snapshot/restore.h"
#include "snapshot/snapshotter.h"
#include "sqlite/conn.h"
#include "state/state.h"
#include "txn/exclusive.h"
#include "txn/sender.h"
#include "txn/streaming.h"
#include "txn/super_journal.h"
#include "txn/unjournaled.h"

#define CLOSE_POINT_MS 2000 /* for a last durable point */

/* ---- snapshots ----------------------------------------------------------------------------------- */

static int on_restore(void *ctx, uint64_t index, struct rlog_buf *payload, uint64_t last_index)
{
	struct wrep *w = ctx;
	struct wrep_manifest m;
	int rc;

	if (wrep_fetch_marked(w))
		return 0; /* the files are not what it says */
	rc = wrep_manifest_decode(payload, &m);
	if (!rc && !m.names_index)
		m.names_index = index; /* of an earlier version */
	if (!rc)
		rc = wrep_restore(w, &m, last_index);
	if (rc) {
		wrep_logf(w, 'E', "cannot take up the databases error=\"%s\"", strerror(-rc));
	} else {
		atomic_store(&w->delivered, index);
		wrep_snapshotter_adopt(w, &m, index);
		w->restored = true;
	}
	wrep_manifest_clear(&m);
	return rc;
}

static void on_needs_state(void *ctx, uint64_t leader_id, const char *leader_address)
{
	struct wrep *w = ctx;

	(void)leader_id;
	(void)leader_address; /* asked for again when it is fetched */
	if (wrep_opened(w))   /* else it is told again */
		wrep_fetch_wanted(w, "the log of the leader no longer holds what this node lacks",
				  NULL);
}

static void on_stream(void *ctx, int fd, uint64_t from_id)
{
	wrep_page_server_start(ctx, fd, from_id);
}

/* The view decides who may write here. Losing it to another leader takes effect at once; gaining it
 * only when the applier has come to this point of the queue, so when everything before the barrier
 * is in the files. Without any known leader nothing changes: writers wait in rlog_submit(). */
static void on_view(void *ctx, const struct rlog_view *view)
{
	struct wrep *w = ctx;
	uint64_t sequence;
	bool other;

	pthread_mutex_lock(&w->lock);
	other = view->role != RLOG_LEADER || view->term != w->view.term;
	w->view = *view;
	if (view->leader_id)
		w->led_term = view->term;
	sequence = ++w->view_sequence;
	if (view->leader_id && view->leader_id != w->node_id)
		atomic_store(&w->may_write, false);
	pthread_mutex_unlock(&w->lock);
	wrep_view_queue(w, sequence);
	if (other)
		wrep_streaming_tick(w, true); /* a COMMIT of this term could not complete them */
	wrep_deliver_discard_dead(w);
	w->config.host.view(w->config.host_ctx, view);
}

/* The applier has taken something from a queue that was full. */
static void on_room(void *ctx)
{
	struct wrep *w = ctx;

	pthread_mutex_lock(&w->lock); /* wrep_close() frees the log */
	if (w->resumable)
		rlog_resume(w->log);
	pthread_mutex_unlock(&w->lock);
}

static void on_caught_up(void *ctx)
{
	wrep_caught_up_queue(ctx);
}

static void on_fatal(void *ctx, const char *msg)
{
	wrep_fatalf(ctx, "%s", msg);
}

static void on_log(void *ctx, char level, const char *line)
{
	wrep_logf(ctx, level, "%s", line);
}

/* ---- opening and closing ------------------------------------------------------------------------- */

/* Free what never had a thread, or no longer has. */
static void release(struct wrep *w)
{
	rlog_free(w->log);
	wrep_unsynced_clear(w);
	wrep_snapshotter_free(w);
	wrep_pin_destroy(w);
	wrep_state_free(w->state);
	pthread_cond_destroy(&w->peers_gone);
	pthread_mutex_destroy(&w->delivery);
	pthread_mutex_destroy(&w->stray_lock);
	wrep_phase_destroy(&w->phase);
	wrep_queue_free(w->queue);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

/* Stop everything, in the order of who calls whom. */
static void stop(struct wrep *w)
{
	atomic_store(&w->may_write, false);
	pthread_mutex_lock(&w->lock);
	w->resumable = false;
	pthread_mutex_unlock(&w->lock);
	wrep_phase_close(w);
	wrep_queue_close(w->queue);
	wrep_departures_tick(w);
	wrep_scrub_stop(w);
	wrep_exclusive_stop(w);
	wrep_page_servers_stop(w);
	wrep_fetch_stop(w);
	wrep_snapshotter_stop(w);
	if (w->log)
		rlog_stop(w->log); /* pending commits end as unknown */
	wrep_applier_stop(w);
}

static void end(struct wrep *w)
{
	struct wrep_db **all;
	size_t count;

	if (w->applier_running)
		stop(w);
	wrep_applier_end_rest(w);
	if (wrep_db_all(w, &all, &count) == 0) {
		for (size_t i = 0; i < count; i++) {
			pthread_mutex_lock(&all[i]->lock);
			wrep_streaming_forget(all[i]);
			for (int k = 0; k < 4; k++)
				wrep_db_forget_file(all[i], k);
			pthread_mutex_unlock(&all[i]->lock);
			wrep_db_hide(all[i], 0);
			wrep_db_remove(all[i]);
			wrep_db_unref(all[i]);
		}
		free(all);
	}
	wrep_super_forget_all(w);
	wrep_strays_forget_all(w);
	wrep_dirs_retire(w);
	wrep_dirs_release(w);
	release(w);
}

static void db_freed(struct wrep_db *db)
{
	wrep_streaming_forget(db);
	wrep_sender_free(db);
}

static const struct wrep_up up = {
	.damaged = wrep_fetch_wanted,
	.db_closing = wrep_streaming_forget,
	.db_freed = db_freed,
	.housekeeping_due = wrep_snapshotter_wake,
};

/* With everything that cannot fail; NULL: no memory. */
static struct wrep *make(const struct wrep_config *config)
{
	struct wrep *w = calloc(1, sizeof *w);

	if (!w)
		return NULL;
	w->up = &up;
	w->config = *config;
	if (!w->config.max_transaction_bytes)
		w->config.max_transaction_bytes = WREP_TRANSACTION_BYTES_DEFAULT;
	w->node_id = config->log.id;
	TAILQ_INIT(&w->waiters);
	wrep_pin_init(w);
	pthread_mutex_init(&w->lock, NULL);
	wrep_phase_init(&w->phase);
	pthread_cond_init(&w->peers_gone, NULL);
	pthread_mutex_init(&w->delivery, NULL);
	pthread_mutex_init(&w->stray_lock, NULL);
	w->fetch_fd = -1;
	w->state = wrep_state_new();
	w->queue = wrep_queue_new(wrep_queue_in_log_order, on_room, w);
	return w;
}

/* What raftlog tells may come from now on. */
static int open_log(struct wrep *w, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_config log = w->config.log;

	log.cb = (struct rlog_callbacks){
		.apply = wrep_deliver,
		.view = on_view,
		.caught_up = on_caught_up,
		.fatal = on_fatal,
		.log = on_log,
		.restore = on_restore,
		.needs_state = on_needs_state,
		.stream = on_stream,
	};
	log.ctx = w;
	return rlog_open(&w->log, &log, errmsg);
}

/* The log is open, but nothing is delivered yet. `marked`: the files are not what a snapshot says. */
static int start(struct wrep *w, bool marked)
{
	int rc = 0;

	if (!marked && !w->restored)
		rc = wrep_restore_nothing(w);
	if (!rc)
		rc = wrep_strays_load(w);
	if (!rc)
		rc = wrep_snapshotter_start(w);
	if (!rc)
		rc = wrep_scrub_start(w);
	if (!rc)
		rc = wrep_exclusive_start(w, wrep_unjournaled_tick);
	return rc;
}

int wrep_open(struct wrep **out, const struct wrep_config *config, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct wrep *w = make(config);
	bool marked = false;
	int rc;

	if (!w)
		return -ENOMEM;
	rc = w->state && w->queue ? wrep_conn_init() : -ENOMEM;
	if (!rc && getrandom(&w->origin, sizeof w->origin, 0) != sizeof w->origin)
		rc = -EIO;
	if (!rc)
		rc = wrep_snapshotter_new(w);
	if (rc) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot prepare to replicate: %s",
			 strerror(-rc));
		release(w);
		return rc;
	}
	rc = wrep_applier_start(w);
	if (rc) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot start a thread: %s", strerror(-rc));
		release(w);
		return rc;
	}
	rc = open_log(w, errmsg);
	if (!rc) {
		marked = wrep_fetch_marked(w);
		rc = start(w, marked);
		if (rc)
			snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot prepare the data directory: %s",
				 strerror(-rc));
	}
	if (rc) {
		end(w);
		return rc;
	}
	if (marked)
		wrep_fetch_wanted(w, "getting the databases from the leader was not finished",
				  NULL);
	pthread_mutex_lock(&w->lock);
	w->resumable = true;
	pthread_mutex_unlock(&w->lock);
	wrep_phase_opened(w);
	/* What could not be done before w->log was known. */
	rlog_resume(w->log);
	wrep_deliver_discard_dead(w);
	*out = w;
	return 0;
}

void wrep_stop(struct wrep *w)
{
	wrep_unjournaled_end_all(w);
	if (wrep_is_ready(w))
		wrep_snapshotter_take(w, CLOSE_POINT_MS); /* the next start has less to do */
	stop(w);
}

void wrep_close(struct wrep *w)
{
	if (w->applier_running)
		wrep_stop(w);
	end(w);
}

struct rlog *wrep_log(struct wrep *w)
{
	return w->log;
}

pid_t wrep_applier_tid(const struct wrep *w)
{
	return atomic_load(&w->applier_tid);
}

int wrep_databases(struct wrep *w, struct wrep_db_status **out, size_t *count)
{
	struct wrep_db **all;
	struct wrep_db_status *list;
	size_t n, living = 0;
	int rc = wrep_db_all(w, &all, &n);

	if (rc < 0)
		return rc;
	list = calloc(n + 1, sizeof *list);
	for (size_t i = 0; i < n; i++) {
		struct wrep_db *db = all[i];

		pthread_mutex_lock(&db->lock);
		if (list && !db->removed) {
			struct wrep_db_status *s = &list[living++];

			snprintf(s->name, sizeof s->name, "%s", db->name);
			s->version = db->state.version;
			s->checksum = db->state.sum.sum;
			s->page_size = db->state.sum.page_size;
			s->page_count = db->state.sum.page_count;
			s->damaged = db->damaged;
			s->uncommitted = db->unjournaled.active && !db->unjournaled.alone;
			s->mode = !db->state.sum.page_count ? "empty"
				  : db->state.wal_mode	    ? "wal"
							    : "delete";
		}
		pthread_mutex_unlock(&db->lock);
		wrep_db_unref(db);
	}
	free(all);
	if (!list)
		return -ENOMEM;
	*out = list;
	*count = living;
	return 0;
}
