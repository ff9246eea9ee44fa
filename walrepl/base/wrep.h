/* The replica: what its folders share. */
#ifndef WALREPL_BASE_WREP_H
#define WALREPL_BASE_WREP_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include "base/phase.h"
#include "walrepl.h"

struct wrep_db;
struct wrep_dir;
struct wrep_departure;
struct wrep_stray;
struct wrep_queue;
struct wrep_idle_conn;
struct wrep_waiter;
struct wrep_snapshotter;
struct wrep_scrub;
struct wrep_exclusive;
struct wrep_replicated;
struct wrep_page_server;

/* What lower floors ask of upper ones: the only calls that go up. replica.c hands them down at open. */
struct wrep_up {
	/* This node's files are unfit, for the reason given: as wrep_fetch_wanted(). No lock held. [any thread] */
	void (*damaged)(struct wrep *w, const char *reason, struct wrep_db *db);
	/* The -wal's descriptor, or its capture, goes: nobody may go on with what it has seen. db->lock held. */
	void (*db_closing)(struct wrep_db *db);
	/* The last reference is gone. No lock held. [any thread] */
	void (*db_freed)(struct wrep_db *db);
	/* There is something for the snapshotter's thread to do. Any lock but the snapshotter's may be held. [any thread] */
	void (*housekeeping_due)(struct wrep *w);
};

#define WREP_BUCKETS 1024

struct wrep {
	const struct wrep_up *up;
	struct wrep_config config;
	struct rlog *log;
	uint64_t node_id;
	uint64_t origin;	   /* of this process's transactions */
	_Atomic uint64_t sequence; /* of the next one */
	uint64_t commit_timeout_ms;

	pthread_mutex_t lock; /* the tables, the waiting opens, the view */
	/* by_id follows the log, as `state` does. by_name and dirs are what applications see: the applier
	 * moves them, and `names_index` with them: the entry that these are as of. */
	struct wrep_db *by_name[WREP_BUCKETS];
	struct wrep_db *by_id[WREP_BUCKETS];
	struct wrep_file *supers; /* txn/super_journal.c: references */
	struct wrep_dir *dirs[WREP_BUCKETS];
	struct wrep_dir *retired_dirs; /* while a fetch goes on */
	unsigned top_dirs;	       /* directories at the top */
	uint64_t names_index;
	struct wrep_departure *departures; /* that wait until a database is closed */
	pthread_mutex_t stray_lock;	   /* db/stray.c; a leaf */
	struct wrep_stray *strays;	   /* stray_lock */
	uint64_t stray_next;		   /* stray_lock */
	/* What the log says (state/state.h), but for the versions, which are in the databases. Who deals with entries
	 * owns it; of `multi` `delivery` is the guard. */
	struct wrep_replicated *state;
	struct rlog_view view;
	uint64_t view_sequence;
	uint64_t led_term; /* the last in which a leader was known */
	struct wrep_phase phase;
	TAILQ_HEAD(, wrep_waiter)
	waiters; /* apply/opening.c: who opens a database, or waits until this node has caught up */
	struct wrep_queue *queue;
	uint64_t delivered_term; /* of the newest entry; raftlog's thread's own */
	bool resumable;		 /* `log` is set: rlog_resume() may be called */

	/* Entries handed over by raftlog, barriers aside: the last one that is dealt with, and that which
	 * is being dealt with. */
	_Atomic uint64_t delivered, delivering;
	_Atomic uint64_t delivered_bytes; /* of all entries, since the start */
	_Atomic unsigned
		streaming_count; /* databases with parts of an incomplete transaction out */
	uint64_t
		verify_from; /* a peer's files were as of entries up to here: no proof before; lock */
	_Atomic bool verify_waits; /* raftlog has told that this node caught up, but for that */
	bool restored;		   /* from a snapshot; const after rlog_open() */
	/* raftlog's thread holds it while it deals with an entry, and looks at the phase inside. */
	pthread_mutex_t delivery;
	int fetch_fd; /* lock: its connection, or -1 */
	_Atomic uint64_t compared_bytes, fetched_bytes;
	unsigned damages; /* lock: this and the next two are for wrep_health() */
	char last_damage[WREP_DAMAGE_SIZE];
	int64_t last_damage_at;
	struct wrep_snapshotter *snapshotter;
	struct wrep_scrub *scrub;
	struct wrep_exclusive *exclusive;
	pthread_mutex_t
		idle_lock; /* a leaf: the databases that are idle and not synced (db/pin.c) */
	struct wrep_db *idle, **idle_tail;
	unsigned idle_count;
	int fd_limit,
		fd_spare; /* of the process; those from fd_spare on are for the daemon alone */
	_Atomic uint64_t short_logged_ms;
	struct wrep_page_server *page_servers; /* lock: peers that fetch */
	unsigned page_server_count;
	pthread_cond_t peers_gone; /* an offer ended, or a fetch */

	_Atomic bool unmounted;	  /* see wrep_unmounted() */
	_Atomic bool taking_back; /* a work of that kind is queued */
	/* This node leads, or led last and knows of no other leader: applications may write. */
	_Atomic bool may_write;
	pthread_t applier;
	bool applier_running;
	/* The applier's own: databases whose connection it keeps although they are idle, oldest first,
	 * and whether it lacks descriptors for more. */
	STAILQ_HEAD(, wrep_idle_conn) idle_conns;
	unsigned idle_conn_count, closed_conns;
	uint64_t fences_not_before_ms;
	bool fences_unsettled; /* one could not be closed yet */
	_Atomic pid_t applier_tid;
};

#define WREP_LOG_BYTES (64u << 20) /* default of wrep_config.log_bytes */
/* What the log is kept about as small as. */
static inline uint64_t wrep_log_bytes(const struct wrep *w)
{
	return w->config.log_bytes ? w->config.log_bytes : WREP_LOG_BYTES;
}

#endif
