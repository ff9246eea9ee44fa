/* Requests that want a database to themselves, and wait until nobody else has it open.
 *
 * A program that has closed the database, or has ended, has it open for a moment longer: close(2) waits for
 * FLUSH, but the kernel sends RELEASE later. So a request that finds the database open waits here, until the last
 * other one has gone or CLOSE_MS have passed. Then it is tried again, and either finds nobody, or is
 * refused, or (somebody has opened the database again, and there is time left) waits here once more. It waits in
 * a list, not in a thread.
 */
#include "db/departure.h"

#include <errno.h>
#include "base/io.h"
#include "base/phase.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/table.h"

#define CLOSE_MS 1000 /* so long somebody may still have it open */

uint64_t wrep_departure_deadline(struct wrep_op *op)
{
	if (!op->until_ms)
		op->until_ms = wrep_now_ms() + CLOSE_MS;
	return op->until_ms;
}

bool wrep_departure_late(struct wrep_op *op)
{
	return op->hasty || wrep_now_ms() >= wrep_departure_deadline(op);
}

int wrep_departure_wait(struct wrep_departure *d)
{
	struct wrep *w = d->db->w;
	bool closing;

	wrep_db_ref(d->db);
	pthread_mutex_lock(&w->lock);
	closing = wrep_closing(w);
	if (!closing) {
		d->next = w->departures;
		w->departures = d;
	}
	pthread_mutex_unlock(&w->lock);
	if (closing) {
		wrep_db_unref(d->db);
		return -EIO;
	}
	wrep_departures_tick(w); /* the last may have gone just now */
	return WREP_PENDING;
}

/* Take one that can go on, or has to. `*closing`: the daemon ends. */
static struct wrep_departure *take(struct wrep *w, bool *closing)
{
	struct wrep_departure **p, *d;

	pthread_mutex_lock(&w->lock);
	*closing = wrep_closing(w);
	for (p = &w->departures; (d = *p); p = &d->next) {
		bool gone;

		pthread_mutex_lock(&d->db->lock);
		gone = d->db->opens <= d->own;
		pthread_mutex_unlock(&d->db->lock);
		if (gone || *closing || wrep_now_ms() >= d->until_ms)
			break;
	}
	if (d)
		*p = d->next;
	pthread_mutex_unlock(&w->lock);
	return d;
}

void wrep_departures_tick(struct wrep *w)
{
	struct wrep_departure *d;
	bool closing;

	while ((d = take(w, &closing))) {
		struct wrep_db *db = d->db;

		d->go_on(d, closing);
		wrep_db_unref(db);
	}
}
