/* A transaction of another node over several databases goes into the files. */
#include "apply/apply_multi.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "apply/apply.h"
#include "base/io.h"
#include "base/phase.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/spool.h"
#include "db/table.h"
#include "record/entry.h"
#include "sqlite/conn.h"

#define HOLD_MS 200  /* readers are kept out of what is ready meanwhile */
#define LET_IN_MS 50 /* and then not */

/* Readers of all members are welcome again. */
static void let_in(const struct wrep_part *members, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (members[i].db->conn)
			wrep_conn_let_in(members[i].db->conn);
}

/* How a member is applied. */
enum way { PASSED_OVER, NOTHING, COLD, HOT };

/* Bring all members to where nobody reads them. What is held already stays so on -EBUSY. */
static int make_all_ready(const struct wrep_part *members, const struct wrep_gathered *g,
			  uint32_t count, enum way *way, uint32_t *at)
{
	int rc = 0;

	for (uint32_t i = 0; i < count && !rc; i++) {
		struct wrep_db *db = members[i].db;

		*at = i;
		way[i] = PASSED_OVER;
		if (!wrep_apply_takes(db, members[i].entry.base_version))
			continue;
		if (members[i].changes_nothing) {
			way[i] = NOTHING;
			continue;
		}
		rc = wrep_apply_make_ready(db, g[i].mode);
		way[i] = rc == 1 ? COLD : HOT;
		if (rc == 1)
			rc = 0;
		else if (!rc && g[i].mode != WREP_COMMIT_WAL)
			rc = wrep_conn_drain(db->conn);
	}
	return rc;
}

static int apply_all(const struct wrep_part *members, const struct wrep_gathered *g, uint32_t count,
		     const enum way *way, uint32_t *at)
{
	int rc = 0;

	for (uint32_t i = 0; i < count && !rc; i++) {
		struct wrep_db *db = members[i].db;

		*at = i;
		if (way[i] == COLD)
			rc = wrep_apply_cold(db, &g[i]);
		else if (way[i] == HOT)
			rc = wrep_apply_hot(db, &g[i]);
	}
	return rc;
}

/* A transaction over several databases. Readers are kept out of all of them before the first is written, as
 * SQLite does it where the transaction comes from: who reads several in one transaction sees it in all or
 * in none of them. (In WAL mode they are not, and SQLite promises nothing.) While one is waited for, no new
 * reader gets in, nor into those that are ready; but not for long, since whoever is waited for may be about
 * to read another. When it has to be tried again after some of it was written, all of it is written again:
 * whole pages, so no matter. If it is given up then, because of a fetch, those that it is not in yet let nobody
 * in before they are retired. */
static void run(struct wrep *w, struct wrep_work *work)
{
	struct wrep_multi *multi = (struct wrep_multi *)work;
	const uint32_t count = multi->count;
	struct wrep_part *members = multi->members;
	struct wrep_retrying waiting = {.since = wrep_now_ms()};
	struct wrep_gathered *g = calloc(count + 1, sizeof *g);
	enum way *way = calloc(count + 1, sizeof *way);
	uint64_t held_since = wrep_now_ms();
	bool begun = false; /* half of it may be in the files: nobody is let in any more */
	uint32_t at = 0;
	int rc = g && way ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < count && !rc; i++) {
		struct wrep_part *m = &members[i];

		at = i;
		if (wrep_apply_takes(m->db, m->entry.base_version) &&
		    !wrep_apply_has_parts(w, m->db, m->spool, &m->entry) &&
		    !wrep_db_is_removed(m->db))
			goto out; /* everything ends, or comes again */
		rc = wrep_gather(&m->entry, m->spool, &g[i]);
	}
	while (!rc) {
		if (!wrep_goes_on(w))
			goto out;
		rc = make_all_ready(members, g, count, way, &at);
		if (!rc) {
			begun = true;
			rc = apply_all(members, g, count, way, &at);
		} else if (!begun && wrep_now_ms() - held_since > HOLD_MS) {
			let_in(members, count);
			usleep(LET_IN_MS * 1000);
			held_since = wrep_now_ms();
		}
		if (!rc)
			break;
		if (rc == -EBUSY || wrep_is_shortage(rc))
			wrep_wait_to_retry(w, members[at].db, rc, &waiting);
		else /* the others go on without it, or nothing does */
			wrep_cannot_apply(members[at].db, rc);
		rc = 0;
	}
	if (rc && count)
		wrep_cannot_apply(members[at].db, rc);
	for (uint32_t i = 0; i < count && !rc; i++)
		if (way[i] != PASSED_OVER)
			wrep_applied(members[i].db, &members[i].entry, &g[i], members[i].spool,
				     multi->index);
out:
	for (uint32_t i = 0; i < count && g; i++)
		wrep_gathered_free(&g[i]);
	free(g);
	free(way);
}

/* ---- the work ---------------------------------------------------------------------------------------- */

struct wrep_multi *wrep_multi_new(const struct wrep_work_ops *ops, uint32_t members_max)
{
	struct wrep_multi *m = wrep_work_make(sizeof *m + members_max * sizeof m->members[0], ops);

	return m;
}

void wrep_multi_release(struct wrep_work *work)
{
	struct wrep_multi *m = (struct wrep_multi *)work;

	for (uint32_t i = 0; i < m->count; i++) {
		wrep_db_unref(m->members[i].db);
		wrep_spool_unref(m->members[i].spool);
	}
	rlog_buf_unref(m->buf);
	free(m);
}

void wrep_multi_push(struct wrep *w, struct wrep_multi *m)
{
	for (uint32_t i = 0; i < m->count; i++)
		wrep_work_is_about(&m->work, m->members[i].db->id);
	wrep_queue_push(w->queue, &m->work);
}

const struct wrep_work_ops wrep_apply_multi_ops = {
	.name = "multi",
	.run = run,
	.release = wrep_multi_release,
	.follows_log = true,
};
