/* What was written and not committed is thrown away. */
#include "txn/discard.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/files.h"
#include "db/pin.h"
#include "pages/overlay.h"
#include "record/entry.h"
#include "sqlite/wal_index.h"
#include "txn/sender.h"
#include "txn/streaming.h"

void wrep_db_drop_overlay(struct wrep_db *db)
{
	wrep_streaming_forget(db);
	wrep_overlay_close(db->overlay);
	db->overlay = NULL;
	db->unjournaled.active = false;
	wrep_db_close_unpinned(db);
}

bool wrep_db_revoke(struct wrep_db *db, bool lost)
{
	struct wrep *w = db->w;
	struct wrep_file *old[2] = {NULL}, *fresh;
	char name[WREP_NAME_MAX + 16];
	int fd, rc = 0;

	assert(!db->conn);
	wrep_db_backing_name(db, WREP_SHM, name);
	pthread_mutex_lock(&db->lock);
	if (db->pending || db->removed) {
		pthread_mutex_unlock(&db->lock);
		return false;
	}
	old[0] = db->files[WREP_DB];
	if (old[0]) {
		fd = old[0]->fd < 0 ? -1 : fcntl(old[0]->fd, F_DUPFD_CLOEXEC, 0);
		rc = fd < 0 && old[0]->fd >= 0
			     ? -errno
			     : wrep_file_make(db, WREP_DB, fd, old[0]->ino, &fresh);
		old[0]->revoked = true;
		old[0]->lost = lost || db->unjournaled.active;
		db->files[WREP_DB] = rc ? NULL : fresh;
		if (!db->pins && old[0]->fd >= 0) {
			close(old[0]->fd);
			old[0]->fd = -1;
		}
	}
	old[1] = wrep_db_file(db, WREP_WAL);
	if (old[1])
		old[1]->revoked = true;
	wrep_db_forget_file(db, WREP_WAL);
	if (db->files[WREP_SHM] && db->files[WREP_SHM]->fd >= 0)
		wrep_wal_index_spoil(db->files[WREP_SHM]->fd);
	unlinkat(wrep_dir_fd(w, WREP_SHM), name, 0);
	wrep_db_forget_file(db, WREP_SHM);
	wrep_db_drop_overlay(db);
	db->opens = 0;
	db->locker_tid = 0;
	wrep_txn_unlock(db);
	for (int i = 0; i < 2; i++) {
		if (old[i])
			w->config.host.invalidate(w->config.host_ctx, old[i], 0, 0);
		wrep_file_unref(old[i]);
	}
	if (rc)
		wrep_fatalf(w, "cannot open a database file again name=%s error=%s", db->name,
			    strerror(-rc));
	return true;
}

int wrep_overlay_begin(struct wrep_file *f)
{
	struct wrep_db *db = f->db;
	struct stat st;
	int rc;

	if (db->overlay)
		return 0;
	wrep_streaming_forget(db);
	rc = fstat(f->fd, &st) < 0
		     ? -errno
		     : wrep_overlay_open(&db->overlay, db->w->config.data_fd, (uint64_t)st.st_size);
	db->differed = false;
	if (rc)
		db->unjournaled.active = false; /* without an overlay there is nothing to commit */
	return rc;
}
