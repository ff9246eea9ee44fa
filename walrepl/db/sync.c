/* Files of databases made durable; and the idle ones that are not, trimmed. */
#include "db/sync.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/table.h"

/* A sync failed. What the kernel had of the file may be gone by now, and the next sync would succeed all
 * the same: nothing here can be believed, but a restart makes all of it from the log again. */
int wrep_db_sync_failed(struct wrep_db *db)
{
	int rc = -errno;

	wrep_fatalf(db->w,
		    "cannot sync a database file name=%s error=\"%s\"; repair the disk and mount "
		    "again",
		    db->name, strerror(-rc));
	return rc;
}

int wrep_db_sync(struct wrep_db *db, const struct wrep_synced *s)
{
	/* The file's mode and owner are part of the database: not fdatasync(). */
	if (fsync(s->files[0]->fd) < 0 || (s->files[1] && fdatasync(s->files[1]->fd) < 0))
		return wrep_db_sync_failed(db);
	return 0;
}

void wrep_synced_take(struct wrep_db *db, struct wrep_synced *s, bool wal)
{
	s->files[0] = wrep_db_file(db, WREP_DB);
	if (wal)
		s->files[1] = wrep_db_file(db, WREP_WAL);
}

void wrep_synced_drop(struct wrep_db *db, struct wrep_synced *s)
{
	if (s->files[0]) {
		pthread_mutex_lock(&db->lock);
		wrep_db_unpin(db);
		pthread_mutex_unlock(&db->lock);
	}
	wrep_file_unref(s->files[0]);
	wrep_file_unref(s->files[1]);
}

void wrep_unsynced_trim(struct wrep *w)
{
	struct wrep_db *db;

	while ((db = wrep_unsynced_pop(w, WREP_UNSYNCED_MAX / 2))) {
		struct wrep_synced s = {0};

		pthread_mutex_lock(&db->lock);
		/* In use again: it comes back at its next rest. */
		if (!db->pins && db->unsynced && db->files[WREP_DB] && !wrep_db_pin(db, true)) {
			db->unsynced = false;
			wrep_synced_take(db, &s, db->files[WREP_WAL] != NULL);
		}
		pthread_mutex_unlock(&db->lock);
		if (s.files[0])
			wrep_db_sync(db, &s);
		wrep_synced_drop(db, &s);
		wrep_db_unref(db);
	}
}
