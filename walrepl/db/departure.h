/* Requests that want a database to themselves wait until nobody else has it open. */
#ifndef WALREPL_DB_DEPARTURE_H
#define WALREPL_DB_DEPARTURE_H

#include "db/db.h"

struct wrep_departure {
	struct wrep_departure *next; /* w->lock */
	struct wrep_db *db;	     /* the list has a reference */
	unsigned own;		     /* so many opens of it are those of who asks */
	uint64_t until_ms;
	/* Try again, which is refused when time is up, or, `closing`, end it with -EIO. Takes `d`. No lock
	 * held. [any thread] */
	void (*go_on)(struct wrep_departure *d, bool closing);
};
/* How long a request may wait, from its first attempt on; and has it? */
uint64_t wrep_departure_deadline(struct wrep_op *op);

bool wrep_departure_late(struct wrep_op *op);
/* Takes `d`, with WREP_PENDING; else -EIO. No lock held. */
int wrep_departure_wait(struct wrep_departure *d);
/* A database was closed, or some time has passed: those that wait go on, or end. No lock held. */
void wrep_departures_tick(struct wrep *w);

#endif
