/* The snapshotter: a thread that makes the files durable from time to time, so that the log can be short.
 *
 * A *durable point* is a manifest (manifest.h) in raftlog's snapshot: "everything up to entry S is in
 * this node's files, on disk". After it raftlog lets go of the log in front of S, and a restart applies only
 * what came behind it (restore.c). In the good case, for every database that has changed since the last:
 *
 *   1. S is the last entry delivered. What was queued for the applier by then is waited for.
 *   2. Note version and index that the files show, and how many frames are committed in the -wal.
 *   3. Sync the database file; sync the -wal, unless all its frames are in the database file already;
 *      store the page hashes that have changed, and sync them.
 *   4. Write the manifest, which names version and index, and salt and number of frames, and the
 *      transactions over several databases that came since S (state/multi_list.c).
 *
 * Why a restart finds everything. Let v be the version of step 2. The database file holds all pages as
 * of v but those that are in the first n frames of the -wal; both are on disk after step 3. They may
 * hold newer pages as well, of transactions that came while this went on: these are committed, and come
 * behind S in the log, on this node's disk too, because nothing is delivered here before that. So what
 * a restart does, copying the n frames into the database file and applying the log behind S again, whole
 * pages each, ends in what the last entry left. The same goes for the hashes.
 *
 * So no reader can hold a durable point up: what a checkpoint cannot copy yet, the manifest leaves in
 * the -wal. The price: as long as it does (`wal_held`), SQLite may not start that -wal over, cut it or
 * remove it. It does none of these before all of it is copied; then the request waits here until the
 * database file is synced and a manifest is written that needs no -wal (wal_hold.c). That is
 * once for each durable point at most, and costs what SQLite's own sync of a checkpoint would.
 *
 * When one is due. The log behind the last point is a quarter of --log-size: delivery wakes the snapshotter as
 * the log grows (wrep_snapshotter_delivered()), and what has come while one point was taken makes the next due at
 * once. Only an open transaction puts a point off: S may not pass its parts, so as long as the one that the
 * last point stopped at is open, the next would come to the same.
 *
 * Locks: point_lock is taken before any other of walrepl's, by whoever writes a manifest. `lock` guards
 * the requests to this thread and is a leaf (but for db/pin.c's).
 */
#include "snapshot/snapshotter.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "base/io.h"
#include "base/phase.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/attach.h"
#include "db/db.h"
#include "db/departure.h"
#include "db/directory.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/side_stray.h"
#include "db/spool.h"
#include "db/sync.h"
#include "db/table.h"
#include "pages/capture.h"
#include "pages/sumfile.h"
#include "pages/wal_content.h"
#include "record/manifest.h"
#include "snapshot/current_manifest.h"
#include "snapshot/snapshotter_state.h"
#include "snapshot/wal_hold.h"
#include "sqlite/conn.h"
#include "sqlite/wal_index.h"
#include "txn/multi_commit.h"
#include "txn/streaming.h"
#include "txn/take_back.h"

#define LOOK_MS 200   /* between looks at the size of the log */
#define RETRY_MS 2000 /* after a point that failed */
#define LOG_LOOKS 16u /* looks, at least, while log_bytes are delivered */
#define HOLD_MS 10000 /* after a peer has fetched: until its log follows that of the leader */

static uint64_t in_ms(unsigned ms)
{
	return rlog_clock_ns() + ms * RLOG_NS_PER_MS;
}

/* ---- one database ------------------------------------------------------------------------------ */

/* Take down what the manifest shall say of `db`, and hold what it counts on: 1, with the files to be synced,
 * for which the database is held. 0: the database is gone; -ENOENT: its file is; -EAGAIN: it is being
 * renamed; -errno. db->lock held, let go meanwhile. */
static int note(struct wrep_db *db, struct wrep_manifest_db *d, struct wrep_synced *s)
{
	struct wrep_wal_position at = {0};
	struct wrep_file *shm;
	int rc;

	while (db->wal_resetting) /* the applier waits for nobody then */
		pthread_cond_wait(&db->wal_gone, &db->lock);
	if (db->removed)
		return 0;
	if (!db->files[WREP_DB])
		return -EAGAIN;
	rc = wrep_db_pin(db, true);
	if (rc && !(rc == -ENOENT && db->damaged))
		return rc;
	d->version = db->local_version;
	d->index = db->local_index;
	d->checksum = db->state.sum.sum;
	d->page_size = db->state.sum.page_size;
	d->page_count = db->state.sum.page_count;
	d->wal_mode = db->local_wal_mode;
	db->touched = false;
	if (rc)
		return 1; /* its file is gone, and no other node has a copy */
	wrep_synced_take(db, s, true);
	if (s->files[1]) {
		/* Behind the fence the daemon's SQLite writes it. */
		if (db->fenced && !db->pending)
			wrep_capture_forget(db->capture);
		if (wrep_wal_content_position(db->capture, &at) < 0)
			at.frame_count = 0;
	}
	shm = at.frame_count ? wrep_db_file(db, WREP_SHM) : NULL;
	if (at.frame_count && !(shm && wrep_wal_index_copied(shm->fd, at.frame_count, at.salt))) {
		d->wal_frames = at.frame_count;
		memcpy(d->wal_salt, at.salt, sizeof d->wal_salt);
		db->wal_held = true;
	} else {
		wrep_file_unref(s->files[1]);
		s->files[1] = NULL;
	}
	wrep_file_unref(shm);
	db->unsynced = false;
	return 1;
}

static int sync_database(struct wrep_db *db, const struct wrep_synced *s)
{
	int rc = s->files[0] ? wrep_db_sync(db, s) : 0;

	if (!rc)
		rc = wrep_sumfile_store(db->w->config.state_fd, db->id, &db->state.sum, &db->lock);
	return rc;
}

/* What the last manifest says of a database that nothing has happened to since. */
static bool unchanged(struct wrep_snapshotter *k, struct wrep_db *db, struct wrep_manifest_db *d)
{
	const struct wrep_manifest_db *old = wrep_manifest_find(&k->last, db->id);
	bool touched;

	pthread_mutex_lock(&db->lock);
	touched = db->touched;
	pthread_mutex_unlock(&db->lock);
	if (touched || !old)
		return false;
	*d = *old;
	return true;
}

/* `d` has its name already. */
static int fill_in(struct wrep_snapshotter *k, struct wrep_db *db, struct wrep_manifest_db *d)
{
	struct wrep_synced s = {0};
	char name[WREP_NAME_MAX + 1];
	int rc;

	strcpy(name, d->name);
	if (unchanged(k, db, d)) {
		strcpy(d->name, name);
		return 0;
	}
	pthread_mutex_lock(&db->lock);
	rc = note(db, d, &s);
	if (rc == 0) { /* it keeps its name until the entry that removes it */
		d->gone = true;
		d->version = db->state.version;
		d->index = db->state.index;
		pthread_mutex_unlock(&db->lock);
		return 0;
	}
	pthread_mutex_unlock(&db->lock);
	if (rc > 0) {
		wrep_dir_touch(db->w, name); /* its name, and that of its -wal, must last */
		rc = sync_database(db, &s);
	}
	if (rc == -ENOENT) {
		wrep_db_missing(db);
		rc = -EAGAIN;
	}
	pthread_mutex_lock(&db->lock);
	if (rc)
		db->touched = true;
	pthread_mutex_unlock(&db->lock);
	wrep_synced_drop(db, &s);
	return rc;
}

/* ---- the manifest ------------------------------------------------------------------------------ */

/* Everything up to `index` has been applied. point_lock held. */
static int take_point(struct wrep_snapshotter *k, uint64_t index)
{
	struct wrep *w = k->w;
	struct wrep_manifest m = {0};
	struct wrep_db **all;
	int rc = wrep_current_manifest_names(w, index, &m, &all);
	size_t count = m.count;

	k->held_by = 0;
	for (size_t i = 0; i < count && !rc; i++) {
		uint64_t parts;

		pthread_mutex_lock(&all[i]->lock);
		parts = all[i]->removed ? 0 : wrep_parts_first_index(all[i]);
		pthread_mutex_unlock(&all[i]->lock);
		if (parts && parts <= index) {
			index = parts - 1;
			k->held_by = all[i]->id;
			k->held_from = parts;
		}
		rc = fill_in(k, all[i], &m.dbs[i]);
	}
	/* The names of files that are new. */
	if (!rc)
		rc = wrep_dirs_sync(w);
	if (!rc && fsync(w->config.state_fd) < 0)
		rc = -errno;
	if (!rc && index < k->last_index)
		index = k->last_index;
	/* After all databases were noted: see state/multi_list.c. */
	if (!rc)
		rc = wrep_multi_commits_note(w, &m);
	if (!rc)
		rc = wrep_current_manifest_publish(k, &m, index);
	if (!rc)
		wrep_multi_commits_forget(w, index);
	for (size_t i = 0; i < count; i++) {
		if (!rc) {
			wrep_wal_hold_end(k, all[i]);
		} else {
			pthread_mutex_lock(&all[i]->lock);
			all[i]->touched = true;
			pthread_mutex_unlock(&all[i]->lock);
		}
		wrep_db_unref(all[i]);
	}
	free(all);
	wrep_manifest_clear(&m);
	return rc;
}

/* ---- requests ------------------------------------------------------------------------------------ */

/* Tell those who asked for a point, up to the `until`-th, what became of it. k->lock held. */
static void serve(struct wrep_snapshotter *k, unsigned until, int rc)
{
	if ((int)(until - k->done) <= 0)
		return;
	k->done = until;
	k->done_rc = rc;
	pthread_cond_broadcast(&k->told);
}

/* Wait until the `ticket`-th request for a point is served. k->lock held. */
static int wait_served(struct wrep_snapshotter *k, unsigned ticket, unsigned timeout_ms)
{
	const uint64_t until = in_ms(timeout_ms);
	int rc = 0;

	if ((int)(k->done - ticket) >= 0)
		return 0;
	while (!rc && (int)(k->done - ticket) < 0 && !k->stop)
		rc = rlog_cond_wait(&k->told, &k->lock, until);
	return rc ? rc : k->stop ? -EIO : k->done_rc;
}

int wrep_snapshotter_hold(struct wrep *w, unsigned timeout_ms)
{
	struct wrep_snapshotter *k = w->snapshotter;
	int rc;

	pthread_mutex_lock(&k->lock);
	if (!k->holds && wrep_now_ms() >= k->hold_until_ms) {
		k->wanted++;
		pthread_cond_signal(&k->wake);
	}
	k->holds++;
	rc = wait_served(k, k->wanted, timeout_ms);
	pthread_mutex_unlock(&k->lock);
	return rc;
}

void wrep_snapshotter_void(struct wrep *w)
{
	struct wrep_snapshotter *k = w->snapshotter;

	pthread_mutex_lock(&k->point_lock);
	k->generation++;
	pthread_mutex_unlock(&k->point_lock);
	pthread_mutex_lock(&k->lock);
	serve(k, k->wanted, -EAGAIN);
	pthread_mutex_unlock(&k->lock);
}

void wrep_snapshotter_unhold(struct wrep *w)
{
	struct wrep_snapshotter *k = w->snapshotter;

	pthread_mutex_lock(&k->lock);
	k->holds--;
	k->hold_until_ms = wrep_now_ms() + HOLD_MS;
	pthread_mutex_unlock(&k->lock);
}

int wrep_snapshotter_take(struct wrep *w, unsigned timeout_ms)
{
	struct wrep_snapshotter *k = w->snapshotter;
	int rc;

	pthread_mutex_lock(&k->lock);
	k->wanted++;
	pthread_cond_signal(&k->wake);
	rc = wait_served(k, k->wanted, timeout_ms);
	pthread_mutex_unlock(&k->lock);
	return rc;
}

/* ---- the thread ------------------------------------------------------------------------------------ */

static void barrier_passed(struct wrep_snapshotter *k, int result)
{
	pthread_mutex_lock(&k->lock);
	k->barrier = BARRIER_PASSED;
	k->barrier_rc = result;
	pthread_cond_signal(&k->wake);
	pthread_mutex_unlock(&k->lock);
}

/* Is the log behind the last point long enough for the next? */
static bool point_due(struct wrep *w)
{
	struct rlog_status status;

	rlog_status(w->log, &status);
	return status.log_bytes_since >= wrep_log_bytes(w) / 4;
}

/* Would a point come to the same entry as the last one? */
static bool still_held(struct wrep_snapshotter *k)
{
	struct wrep_db *db = k->held_by ? wrep_db_by_id(k->w, k->held_by) : NULL;
	bool held;

	if (!db)
		return false;
	pthread_mutex_lock(&db->lock);
	held = !db->removed && wrep_parts_first_index(db) == k->held_from;
	pthread_mutex_unlock(&db->lock);
	wrep_db_unref(db);
	return held;
}

static bool can_point(struct wrep *w)
{
	return wrep_is_ready(w) && wrep_goes_on(w);
}

/* What failed is tried again; the first time is worth a line, and so is its end. */
static void report(struct wrep_snapshotter *k, int rc)
{
	if (rc && !k->failing)
		wrep_logf(k->w, 'W',
			  "cannot make the databases durable, so the log grows; trying again "
			  "error=\"%s\"%s",
			  strerror(-rc), rc == -ENOSPC ? "; free the disk" : "");
	else if (!rc && k->failing)
		wrep_logf(k->w, 'I', "the databases are durable again");
	k->failing = rc;
}

struct barrier_work {
	struct wrep_work work; /* first */
	struct wrep_snapshotter *snapshotter;
};

/* The snapshotter's barrier. What the daemon's SQLite can still copy out of a -wal need not be held there. */
static void run_barrier(struct wrep *w, struct wrep_work *work)
{
	struct wrep_db **all;
	size_t count;

	if (wrep_db_all(w, &all, &count) == 0) {
		for (size_t i = 0; i < count; i++) {
			struct wrep_db *db = all[i];
			bool wal;

			pthread_mutex_lock(&db->lock);
			wal = db->fenced && db->local_wal_mode && !db->removed;
			pthread_mutex_unlock(&db->lock);
			if (wal && db->conn && wrep_conn_fence_closed(db->conn))
				wrep_db_checkpoint(db, false, NULL, NULL);
			wrep_db_unref(db);
		}
		free(all);
	}
	barrier_passed(((struct barrier_work *)work)->snapshotter, 0);
}

static void cancel_barrier(struct wrep *w, struct wrep_work *work)
{
	(void)w;
	barrier_passed(((struct barrier_work *)work)->snapshotter, -EAGAIN);
}

static const struct wrep_work_ops barrier_ops = {
	.name = "point",
	.run = run_barrier,
	.cancel = cancel_barrier,
	.release = wrep_work_free,
	.follows_log = true,
};

/* Send the barrier through the applier's queue: when it comes out, all that was delivered by now is in
 * the files. k->lock held, let go meanwhile. */
static void begin_point(struct wrep_snapshotter *k)
{
	struct wrep *w = k->w;
	bool wanted = k->wanted != k->done;
	bool held = k->holds || wrep_now_ms() < k->hold_until_ms;
	struct barrier_work *barrier;
	bool can, go;

	pthread_mutex_unlock(&k->lock);
	pthread_mutex_lock(&k->point_lock);
	k->point_generation = k->generation; /* before the look at the phase */
	pthread_mutex_unlock(&k->point_lock);
	can = can_point(w);
	go = can && (wanted || (!held && wrep_now_ms() >= k->not_before_ms && point_due(w) &&
				!still_held(k)));
	k->point_index = atomic_load(&w->delivered);
	pthread_mutex_lock(&k->lock);
	if (!can || !k->point_index) /* not now, or nothing to make durable yet */
		serve(k, k->wanted, can ? 0 : -EAGAIN);
	if (!go || !k->point_index || k->stop)
		return;
	k->barrier = BARRIER_OUT;
	k->serving = k->wanted;
	pthread_mutex_unlock(&k->lock);
	barrier = wrep_work_make(sizeof *barrier, &barrier_ops);
	barrier->snapshotter = k;
	wrep_work_is_about_all(&barrier->work);
	wrep_queue_push(w->queue, &barrier->work);
	pthread_mutex_lock(&k->lock);
}

/* The barrier is back. k->lock held, let go meanwhile. */
static void end_point(struct wrep_snapshotter *k)
{
	int rc = k->barrier_rc;

	k->barrier = BARRIER_NONE;
	pthread_mutex_unlock(&k->lock);
	if (!rc) {
		pthread_mutex_lock(&k->point_lock);
		rc = k->point_generation == k->generation ? take_point(k, k->point_index) : -EAGAIN;
		pthread_mutex_unlock(&k->point_lock);
	}
	if (!rc || (rc != -EAGAIN && can_point(k->w))) /* else what happens now explains it */
		report(k, rc);
	k->not_before_ms = rc ? wrep_now_ms() + RETRY_MS : 0;
	pthread_mutex_lock(&k->lock);
	serve(k, k->serving, rc);
}

static void *snapshotter_main(void *arg)
{
	struct wrep_snapshotter *k = arg;

	prctl(PR_SET_NAME, "snapshotter");
	pthread_mutex_lock(&k->lock);
	while (!k->stop) {
		if (k->deferred) {
			wrep_deferred_settle_next(k);
			continue;
		}
		pthread_mutex_unlock(&k->lock);
		wrep_streaming_tick(k->w, false);
		pthread_mutex_lock(&k->lock);
		if (k->barrier == BARRIER_PASSED)
			end_point(k);
		if (k->barrier == BARRIER_NONE)
			begin_point(k);
		if (wrep_unsynced_many(k->w)) {
			pthread_mutex_unlock(&k->lock);
			wrep_unsynced_trim(k->w);
			pthread_mutex_lock(&k->lock);
		}
		if (k->deferred || k->stop || k->barrier == BARRIER_PASSED)
			continue;
		pthread_mutex_unlock(&k->lock);
		wrep_departures_tick(k->w);
		wrep_take_back_tick(k->w);
		wrep_strays_tidy(k->w);
		pthread_mutex_lock(&k->lock);
		if (k->deferred || k->stop || k->barrier == BARRIER_PASSED)
			continue;
		rlog_cond_wait(&k->wake, &k->lock, in_ms(LOOK_MS));
	}
	while (k->deferred)
		wrep_deferred_settle_next(k);
	pthread_cond_broadcast(&k->told);
	pthread_mutex_unlock(&k->lock);
	return NULL;
}

void wrep_snapshotter_wake(struct wrep *w)
{
	struct wrep_snapshotter *k = w->snapshotter;

	pthread_mutex_lock(&k->lock);
	pthread_cond_signal(&k->wake);
	pthread_mutex_unlock(&k->lock);
}

void wrep_snapshotter_delivered(struct wrep *w, size_t bytes)
{
	uint64_t step = wrep_log_bytes(w) / LOG_LOOKS + 1;
	uint64_t before = atomic_fetch_add(&w->delivered_bytes, bytes);

	if ((before + bytes) / step != before / step)
		wrep_snapshotter_wake(w);
}

int wrep_snapshotter_new(struct wrep *w)
{
	struct wrep_snapshotter *k = calloc(1, sizeof *k);

	if (!k)
		return -ENOMEM;
	k->w = w;
	k->deferred_tail = &k->deferred;
	pthread_mutex_init(&k->point_lock, NULL);
	pthread_mutex_init(&k->lock, NULL);
	pthread_cond_init(&k->wake, NULL);
	pthread_cond_init(&k->told, NULL);
	w->snapshotter = k;
	return 0;
}

int wrep_snapshotter_start(struct wrep *w)
{
	struct wrep_snapshotter *k = w->snapshotter;
	int rc = pthread_create(&k->thread, NULL, snapshotter_main, k);

	k->running = !rc;
	return -rc;
}

void wrep_snapshotter_stop(struct wrep *w)
{
	struct wrep_snapshotter *k = w->snapshotter;

	if (!k || !k->running)
		return;
	pthread_mutex_lock(&k->lock);
	k->stop = true;
	pthread_cond_broadcast(&k->wake);
	pthread_cond_broadcast(&k->told);
	pthread_mutex_unlock(&k->lock);
	pthread_join(k->thread, NULL);
	k->running = false;
	/* The applier still lives, but raftlog is about to go. */
	pthread_mutex_lock(&k->point_lock);
	k->closed = true;
	pthread_mutex_unlock(&k->point_lock);
}

void wrep_snapshotter_free(struct wrep *w)
{
	struct wrep_snapshotter *k = w->snapshotter;

	if (!k)
		return;
	assert(!k->running && !k->deferred);
	wrep_manifest_clear(&k->last);
	pthread_mutex_destroy(&k->point_lock);
	pthread_mutex_destroy(&k->lock);
	pthread_cond_destroy(&k->wake);
	pthread_cond_destroy(&k->told);
	free(k);
	w->snapshotter = NULL;
}
