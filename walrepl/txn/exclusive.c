/* The list of those watched, and the thread.
 *
 * Where the host can tell of lock calls, it is asked to before a session begins: the first write waits for
 * that, once, as long as it takes to switch it on. It stays on for a moment after the last session. A database
 * whose sessions end by fsync needs none of it: there it is switched on only for one that lasts.
 *
 * Where it cannot, the thread looks: soon after a session began, and then whenever an eighth of its age
 * has passed, but at least four times a second. Who writes all the time is caught between two transactions
 * sooner or later.
 */
#include "txn/exclusive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include "base/io.h"
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/table.h"
#include "sqlite/file_format.h"

#define SYNC_GRACE_MS 100 /* in which the fsync usually comes */
#define LOOK_FIRST_MS 2
#define LOOK_LAST_MS 250
#define LINGER_MS 1000 /* how long lock calls are told when no session is there */
#define LONG_MS 5000   /* a session that is worth a log line */
#define NEVER UINT64_MAX

/* A database. */
struct wrep_watched {
	struct wrep_watched *next;
	struct wrep_db *db; /* a reference */
	uint64_t number;
	uint64_t since_ms;   /* its session began */
	uint64_t look_at_ms; /* the next time */
	bool called;	     /* somebody released or took the lock: look at once */
	bool retaken;	     /* somebody took it since wrep_exclusive_retaken() said so */
	bool logged;
};

enum tracing { TRACING_OFF, TRACING_ON, TRACING_IMPOSSIBLE };

struct wrep_exclusive {
	struct wrep *w;
	wrep_exclusive_tick *look;
	pthread_t thread;
	pthread_mutex_t lock; /* a leaf, but for the host's; guards all below */
	pthread_cond_t wake;
	struct wrep_watched *list;
	struct wrep_op *waiting; /* until lock calls are told */
	/* When the thread will go on by itself; 0: it is not waiting for `wake`. */
	uint64_t wake_at_ms;
	bool stopping;
	/* The thread's own: a line has said that it is impossible; not for good. */
	bool logged, try_again;
	_Atomic int tracing; /* enum tracing; changed by the thread */
};

static void tell(struct wrep_op *op, int result)
{
	while (op) {
		struct wrep_op *next = op->next;

		op->done(op, result);
		op = next;
	}
}

/* ---- the list ---------------------------------------------------------------------------------- */

void wrep_lock_called(struct wrep *w, const struct wrep_lock_call *call)
{
	struct wrep_exclusive *x = w->exclusive;

	if (call &&
	    (call->result || call->first > WREP_SHARED_FIRST || call->last < WREP_SHARED_FIRST))
		return;
	pthread_mutex_lock(&x->lock);
	for (struct wrep_watched *e = x->list; e; e = e->next) {
		if (call && call->number != e->number)
			continue;
		/* Of calls that are lost it is not known whether one took the lock: what is committed a
		 * little later is whole, too. */
		e->called = true;
		e->retaken |= call && call->type == F_WRLCK;
	}
	pthread_mutex_unlock(&x->lock);
}

/* The thread goes on, if it would not by then. x->lock held. */
static void wake_before(struct wrep_exclusive *x, uint64_t at_ms)
{
	if (at_ms < x->wake_at_ms)
		pthread_cond_signal(&x->wake);
}

bool wrep_exclusive_must_wait(struct wrep_db *db)
{
	return !db->syncs && atomic_load(&db->w->exclusive->tracing) == TRACING_OFF;
}

int wrep_exclusive_wait(struct wrep_db *db, struct wrep_op *op)
{
	struct wrep_exclusive *x = db->w->exclusive;

	pthread_mutex_lock(&x->lock);
	if (x->stopping || atomic_load(&x->tracing) != TRACING_OFF) {
		int result = x->stopping ? -EIO : -EINTR;

		pthread_mutex_unlock(&x->lock);
		return result;
	}
	op->next = x->waiting;
	x->waiting = op;
	pthread_cond_signal(&x->wake);
	pthread_mutex_unlock(&x->lock);
	return WREP_PENDING;
}

void wrep_exclusive_begin(struct wrep_db *db)
{
	struct wrep_exclusive *x = db->w->exclusive;
	struct wrep_host *host = &db->w->config.host;
	struct wrep_watched *e = db->watched;
	const uint64_t now = wrep_now_ms();
	int tracing = atomic_load(&x->tracing);

	/* That it took the lock is no news to the session that this begins. `tracing` does not say whether
	 * that was told: the host begins a little before. */
	host->read_lock_calls(db->w->config.host_ctx);
	if (!e)
		e = calloc(1, sizeof *e);
	if (!e)
		return; /* then it is committed when the file is closed */
	pthread_mutex_lock(&x->lock);
	if (!db->watched) {
		e->db = wrep_db_ref(db);
		e->next = x->list;
		x->list = e;
		db->watched = e;
	}
	e->number = host->number_of(db->w->config.host_ctx, db->files[WREP_DB]);
	e->retaken = e->called = e->logged = false;
	e->since_ms = now;
	e->look_at_ms = now + (tracing == TRACING_ON ? LOOK_LAST_MS
			       : db->syncs	     ? SYNC_GRACE_MS
						     : LOOK_FIRST_MS);
	/* Where lock calls are told, the thread is to wait for these instead. */
	wake_before(x, tracing == TRACING_ON ? now : e->look_at_ms);
	pthread_mutex_unlock(&x->lock);
}

bool wrep_exclusive_retaken(struct wrep_db *db)
{
	struct wrep_exclusive *x = db->w->exclusive;
	bool retaken;

	if (!db->watched)
		return false;
	db->w->config.host.read_lock_calls(db->w->config.host_ctx);
	pthread_mutex_lock(&x->lock);
	retaken = db->watched->retaken;
	db->watched->retaken = false;
	pthread_mutex_unlock(&x->lock);
	return retaken;
}

/* ---- the thread -------------------------------------------------------------------------------- */

/* Switching it on takes the host some ms. */
static void trace(struct wrep_exclusive *x)
{
	struct wrep *w = x->w;
	int rc = w->config.host.watch_locks(w->config.host_ctx, WREP_SHARED_FIRST, true);

	if (rc && !x->logged)
		wrep_logf(
			w, 'W',
			"the kernel does not tell this node of file locks error=\"%s\": transactions "
			"without a journal and without fsync are looked for instead, and may be "
			"replicated some time later, or several at once; allow perf_event_open() of "
			"filelock:posix_lock_inode to change that",
			strerror(-rc));
	x->logged |= rc != 0;
	x->try_again = wrep_is_shortage(rc) || rc == -ENOMEM;
	atomic_store(&x->tracing, rc ? TRACING_IMPOSSIBLE : TRACING_ON);
}

/* And off some more, as the kernel waits for all CPUs: who begins a session meanwhile waits, too. */
static void trace_no_more(struct wrep_exclusive *x)
{
	atomic_store(&x->tracing, TRACING_OFF);
	x->w->config.host.watch_locks(x->w->config.host_ctx, WREP_SHARED_FIRST, false);
}

/* Its session is over. Not if the next has begun. */
static void forget(struct wrep_exclusive *x, struct wrep_watched *e)
{
	struct wrep_watched **p = &x->list;
	struct wrep_db *db = e->db;

	pthread_mutex_lock(&db->lock);
	pthread_mutex_lock(&x->lock);
	if (db->unjournaled.active && !db->unjournaled.alone && !db->pending) {
		e->look_at_ms = wrep_now_ms() + LOOK_FIRST_MS;
		pthread_mutex_unlock(&x->lock);
		pthread_mutex_unlock(&db->lock);
		return;
	}
	while (*p != e)
		p = &(*p)->next;
	*p = e->next;
	pthread_mutex_unlock(&x->lock);
	db->watched = NULL;
	pthread_mutex_unlock(&db->lock);
	free(e);
	wrep_db_unref(db);
}

static uint64_t next_look(int tracing, uint64_t now, uint64_t age)
{
	uint64_t pause = age / 8;

	if (tracing == TRACING_ON || pause > LOOK_LAST_MS)
		pause = LOOK_LAST_MS; /* should it have missed a call */
	return now + (pause < LOOK_FIRST_MS ? LOOK_FIRST_MS : pause);
}

static void look(struct wrep_exclusive *x, struct wrep_watched *e)
{
	uint64_t now, age;
	bool tell_it;

	if (!x->look(e->db)) {
		forget(x, e);
		return;
	}
	if (atomic_load(&x->tracing) == TRACING_OFF) {
		trace(x);
		/* It may have been released before. */
		pthread_mutex_lock(&x->lock);
		e->called = true;
		pthread_mutex_unlock(&x->lock);
		return;
	}
	now = wrep_now_ms();
	pthread_mutex_lock(&x->lock);
	age = now - e->since_ms;
	e->look_at_ms = next_look(atomic_load(&x->tracing), now, age);
	tell_it = age >= LONG_MS && !e->logged;
	e->logged |= tell_it;
	pthread_mutex_unlock(&x->lock);
	if (tell_it)
		wrep_logf(
			x->w, 'W',
			"not replicated: an application writes without a journal and without fsync, "
			"and keeps its lock; what it wrote is lost with it or this node. If it is no long "
			"transaction, set PRAGMA locking_mode=NORMAL, or synchronous=NORMAL "
			"database=%s",
			e->db->name);
}

/* One that is to be looked at now. x->lock held. */
static struct wrep_watched *due(struct wrep_exclusive *x, uint64_t now)
{
	for (struct wrep_watched *e = x->list; e; e = e->next)
		if (e->called || e->look_at_ms <= now) {
			e->called = false;
			return e;
		}
	return NULL;
}

/* Is there something to be switched off, or tried again, when no session has been there for a while? */
static bool lingers(struct wrep_exclusive *x)
{
	const int tracing = atomic_load(&x->tracing);

	return tracing == TRACING_ON || (tracing == TRACING_IMPOSSIBLE && x->try_again);
}

/* Until there may be something to do. x->lock held, let go meanwhile. */
static void wait(struct wrep_exclusive *x, uint64_t now, uint64_t idle_since)
{
	const bool tracing = atomic_load(&x->tracing) == TRACING_ON;
	uint64_t until_ms = NEVER;

	for (struct wrep_watched *e = x->list; e; e = e->next)
		if (e->look_at_ms < until_ms)
			until_ms = e->look_at_ms;
	if (!x->list && lingers(x))
		until_ms = idle_since + LINGER_MS;
	if (x->list && tracing) {
		pthread_mutex_unlock(&x->lock);
		x->w->config.host.wait_lock_calls(x->w->config.host_ctx,
						  until_ms > now ? (int)(until_ms - now) : 0);
		pthread_mutex_lock(&x->lock);
		return;
	}
	x->wake_at_ms = until_ms;
	if (until_ms == NEVER)
		pthread_cond_wait(&x->wake, &x->lock);
	else
		rlog_cond_wait(&x->wake, &x->lock, until_ms * RLOG_NS_PER_MS);
	x->wake_at_ms = 0;
}

static void *run(void *arg)
{
	struct wrep_exclusive *x = arg;
	uint64_t now = wrep_now_ms(), idle_since = now;

	prctl(PR_SET_NAME, "exclusive");
	pthread_mutex_lock(&x->lock);
	while (!x->stopping) {
		struct wrep_op *waiting = x->waiting;
		struct wrep_watched *e;

		now = wrep_now_ms();
		if (x->list || waiting)
			idle_since = now;
		e = due(x, now);
		if (!e && !waiting && !(lingers(x) && !x->list && now >= idle_since + LINGER_MS)) {
			wait(x, now, idle_since);
			continue;
		}
		x->waiting = NULL;
		pthread_mutex_unlock(&x->lock);
		if (waiting) {
			if (atomic_load(&x->tracing) == TRACING_OFF)
				trace(x);
			tell(waiting, -EINTR);
		}
		if (e)
			look(x, e);
		else if (!waiting)
			trace_no_more(x);
		pthread_mutex_lock(&x->lock);
	}
	pthread_mutex_unlock(&x->lock);
	if (atomic_load(&x->tracing) == TRACING_ON)
		trace_no_more(x);
	return NULL;
}

int wrep_exclusive_start(struct wrep *w, wrep_exclusive_tick *look_at)
{
	struct wrep_exclusive *x = calloc(1, sizeof *x);
	int rc;

	if (!x)
		return -ENOMEM;
	x->w = w;
	x->look = look_at;
	pthread_mutex_init(&x->lock, NULL);
	pthread_cond_init(&x->wake, NULL);
	w->exclusive = x;
	rc = pthread_create(&x->thread, NULL, run, x);
	if (!rc)
		return 0;
	pthread_cond_destroy(&x->wake);
	pthread_mutex_destroy(&x->lock);
	free(x);
	w->exclusive = NULL;
	return -rc;
}

/* Nobody writes any more. */
void wrep_exclusive_stop(struct wrep *w)
{
	struct wrep_exclusive *x = w->exclusive;

	if (!x)
		return;
	pthread_mutex_lock(&x->lock);
	x->stopping = true;
	pthread_cond_signal(&x->wake);
	pthread_mutex_unlock(&x->lock);
	pthread_join(x->thread, NULL);
	tell(x->waiting, -EIO);
	while (x->list) {
		struct wrep_watched *e = x->list;

		x->list = e->next;
		e->db->watched = NULL;
		wrep_db_unref(e->db);
		free(e);
	}
	pthread_cond_destroy(&x->wake);
	pthread_mutex_destroy(&x->lock);
	free(x);
	w->exclusive = NULL;
}
