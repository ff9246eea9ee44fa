/* An application removes a file. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/wrep.h"
#include "db/db.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/stray.h"
#include "db/table.h"
#include "file/file.h"
#include "file/journal.h"
#include "file/wal.h"
#include "record/entry.h"
#include "snapshot/wal_hold.h"
#include "txn/commit.h"
#include "txn/proposal.h"
#include "txn/sender.h"
#include "txn/super_journal.h"
#include "txn/unjournaled.h"

static int unlink_wal(struct wrep_deferred *d)
{
	return wrep_unlink(d->file->db->w, d->file->name, d->op);
}

int wrep_unlink(struct wrep *w, const char *name, struct wrep_op *op)
{
	enum wrep_kind kind = WREP_DB;
	struct wrep_db *db = wrep_file_db(w, name, &kind);
	struct wrep_commit *shape;
	struct wrep_file *f;
	bool held;
	int rc;

	if (kind == WREP_SUPER) {
		wrep_db_unref(db);
		return wrep_super_unlink(w, name, op);
	}
	if (!db)
		return wrep_stray_unlink(w, name);
	pthread_mutex_lock(&db->lock);
	/* A database may go although its file has gone before. */
	rc = kind == WREP_DB ? 0 : wrep_db_pin(db, false);
	held = kind != WREP_DB && !rc;
	f = rc ? NULL : wrep_db_file(db, kind);
	if (rc) {
		pthread_mutex_unlock(&db->lock);
		rc = wrep_file_cannot_open(db, rc);
		goto out;
	}
	if (!f) {
		rc = kind == WREP_DB ? -ENOENT : wrep_stray_unlink(w, name);
		wrep_txn_unlock(db);
		goto out;
	}
	if (kind == WREP_DB) {
		struct wrep_entry e = {.type = WREP_ENTRY_UNLINK, .db_id = db->id};

		pthread_mutex_unlock(&db->lock);
		rc = atomic_load(&w->may_write) ? wrep_propose(w, db, &e, 0, op) : -EROFS;
		goto out;
	} else if ((db->pending && !(kind == WREP_JOURNAL && wrep_unjournaled_is_ending(db))) ||
		   (db->fenced && db->local_wal_mode && kind != WREP_JOURNAL)) {
		rc = -EBUSY; /* under the fence the daemon's SQLite has -wal and -shm open */
	} else if (kind == WREP_WAL && !wrep_wal_may_go(db)) {
		rc = -EBUSY;
	} else if (kind == WREP_WAL && db->wal_held) {
		pthread_mutex_unlock(&db->lock);
		rc = wrep_snapshotter_defer(f, &(struct wrep_deferred){.again = unlink_wal}, NULL,
					    op);
		goto out;
	} else if (kind == WREP_JOURNAL && wrep_journal_commits(db)) {
		shape = calloc(1, sizeof *shape);
		if (!shape) {
			rc = -ENOMEM;
		} else {
			shape->trigger = WREP_TRIGGER_UNLINK;
			shape->op = op;
			rc = wrep_commit_overlay(db, shape);
			if (rc)
				goto out; /* unlocked */
		}
	}
	if (!rc && unlinkat(wrep_dir_fd(w, kind), name, 0) < 0)
		rc = -errno;
	if (!rc)
		wrep_db_forget_file(db, kind);
	wrep_txn_unlock(db);
out:
	if (held)
		wrep_file_unpin_db(db);
	wrep_file_unref(f);
	wrep_db_unref(db);
	return rc;
}
