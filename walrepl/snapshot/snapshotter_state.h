/* The snapshotter from inside: for snapshotter.c, current_manifest.c and wal_hold.c alone. */
#ifndef WALREPL_SNAPSHOT_SNAPSHOTTER_STATE_H
#define WALREPL_SNAPSHOT_SNAPSHOTTER_STATE_H

#include <pthread.h>
#include "base/wrep.h"
#include "record/manifest.h"
#include "snapshot/wal_hold.h"

struct wrep_snapshotter {
	struct wrep *w;
	pthread_t thread;
	bool running;

	pthread_mutex_t point_lock; /* guards the next five */
	struct wrep_manifest last;
	uint64_t last_index;
	bool adopted;	     /* `last` says something: there is a snapshot */
	bool closed;	     /* no manifest can be written any more */
	unsigned generation; /* of the databases: a point of another one is void */

	/* the thread's own */
	uint64_t point_index; /* of the point that the barrier is out for */
	unsigned point_generation;
	unsigned serving; /* requests for a point that it serves */
	uint64_t not_before_ms;
	uint64_t held_by,
		held_from; /* the database and the first entry of the open transaction that
					the last point stopped at; 0: none */
	bool failing;	   /* the last point failed, and a line says so */

	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t wake, told;
	bool stop;
	struct wrep_deferred *deferred, **deferred_tail;
	unsigned wanted, done; /* points asked for, and how many of these requests were served */
	int done_rc;
	enum { BARRIER_NONE, BARRIER_OUT, BARRIER_PASSED } barrier;
	int barrier_rc;
	unsigned holds;
	uint64_t hold_until_ms;
};

#endif
