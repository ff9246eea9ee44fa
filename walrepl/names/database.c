/* A database is created, removed, or gets other attributes: what the applier does to its files then. */
#include "names/database.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "apply/applier.h"
#include "apply/fence.h"
#include "apply/opening.h"
#include "base/attr.h"
#include "base/io.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/attach.h"
#include "db/db.h"
#include "db/directory.h"
#include "db/pin.h"
#include "db/side_stray.h"
#include "db/stray.h"
#include "db/table.h"
#include "pages/sumfile.h"
#include "record/entry.h"
#include "snapshot/restore.h"
#include "txn/sender.h"

/* Applications have had it open before it was there, and cannot write so far. Not on a node that does not lead,
 * afterwards either: its fence takes over the mount's lock, without a moment between. True: the fence is to be
 * closed later. */
static bool hand_to_fence(struct wrep *w, struct wrep_db *db)
{
	int rc = atomic_load(&w->may_write) ? 0 : wrep_fence_close(db);

	w->config.host.let_go(w->config.host_ctx, db->name);
	if (rc && rc != -EBUSY && !wrep_out_of_descriptors(w, rc, db->name))
		wrep_logf(w, 'E', "cannot close the gate of a new database name=%s error=%s",
			  db->name, strerror(-rc));
	return rc != 0;
}

bool wrep_create_run(struct wrep *w, struct wrep_item *item)
{
	struct wrep_db *db = item->db;
	struct wrep_entry e;
	struct wrep_file *f = NULL;
	uint64_t logged = 0;
	int fd = -1, open_rc = 0, rc = wrep_entry_decode(item->buf, &e);
	bool copies = item->op && wrep_stray_copies(item->open_flags);
	bool adopted = false, again = false;

	if (wrep_db_is_removed(db)) { /* retired: what has the name now is another's */
		if (item->op)
			item->op->done(item->op, -EIO);
		return false;
	}
	while (rc == 0) {
		fd = openat(w->config.data_fd, db->name,
			    O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, e.mode);
		if (fd >= 0 || !wrep_is_shortage(-errno) || wrep_stopping(w))
			break;
		wrep_wait_for_space(w, db->name, -errno, &logged);
	}
	if (rc == 0 && (fd < 0 || fchown(fd, e.uid, e.gid) < 0 || fchmod(fd, e.mode) < 0))
		rc = -errno;
	wrep_strays_begin(w, db->name, item->index, copies);
	pthread_mutex_lock(&db->lock);
	if (rc == 0)
		rc = wrep_file_make(db, WREP_DB, fd, 0, &f);
	if (rc == 0) {
		db->files[WREP_DB] = f;
		/* (An application that only makes it begins nothing.) */
		if (item->op)
			open_rc = wrep_descriptor_is_spare(w, fd)
					  ? -EMFILE
					  : wrep_file_opened(f, copies ? O_WRONLY : 0, false,
							     item->op);
		if (item->op && !open_rc)
			item->op->file = wrep_file_ref(f);
		wrep_db_rest(db);
	}
	pthread_mutex_unlock(&db->lock);
	if (rc == 0) {
		if (w->config.host.appears)
			adopted = w->config.host.appears(w->config.host_ctx, db->name, f);
		wrep_db_show(db, item->index);
		wrep_dir_touch(w, db->name);
		w->config.host.invalidate_name(w->config.host_ctx, db->name);
	}
	if (adopted)
		again = hand_to_fence(w, db);
	wrep_out_of_descriptors(w, open_rc, db->name);
	if (item->op)
		item->op->done(item->op, rc ? rc : open_rc);
	if (rc < 0) {
		if (fd >= 0)
			close(fd);
		wrep_fatalf(w,
			    "cannot create a database file name=%s error=%s; repair the disk "
			    "and mount again",
			    db->name, strerror(-rc));
	}
	return again;
}

void wrep_unlink_run(struct wrep *w, struct wrep_item *item)
{
	struct wrep_db *db = item->db;
	char name[WREP_NAME_MAX + 16];
	struct wrep_file *f;
	bool retired; /* what has its names now is another's */
	int rc = 0;

	wrep_fence_open(db);
	pthread_mutex_lock(&db->lock);
	retired = db->retired;
	f = wrep_db_file(db, WREP_DB);
	pthread_mutex_unlock(&db->lock);
	for (int k = 0; k < 4 && !retired; k++) {
		bool gone;

		wrep_db_backing_name(db, k, name);
		pthread_mutex_lock(&db->lock);
		/* As on a local disk; on other nodes they are the daemon's own. A -journal whose removal would
		 * commit what is lost with the database goes with that. */
		if (item->op && k != WREP_DB && !(k == WREP_JOURNAL && db->overlay))
			wrep_stray_leave(db, k, item->index);
		gone = unlinkat(wrep_dir_fd(w, k), name, 0) == 0;
		if (!gone && errno != ENOENT)
			rc = -errno;
		if (k == WREP_JOURNAL && !db->pending)
			wrep_db_drop_overlay(db);
		/* A transaction may still be undecided over the -wal: it keeps the capture. */
		if (!db->pending)
			wrep_db_forget_file(db, k);
		wrep_txn_unlock(db);
		if (gone)
			w->config.host.invalidate_name(w->config.host_ctx, name);
	}
	wrep_dir_touch(w, db->name);
	if (!retired) {
		wrep_db_hide(db, item->index);
		wrep_sumfile_remove(w->config.state_fd, db->id);
		wrep_wal_aside_remove(w, db->id);
	}
	/* A stat of the name would go on to find what the kernel kept. */
	if (f && !item->op)
		w->config.host.invalidate(w->config.host_ctx, f, 0, 0);
	wrep_file_unref(f);
	if (item->op)
		item->op->done(item->op, rc);
	if (rc < 0)
		wrep_logf(w, 'E', "cannot remove a database file name=%s error=%s", db->name,
			  strerror(-rc));
}

void wrep_setattr_run(struct wrep_item *item)
{
	struct wrep_db *db = item->db;
	struct wrep_file *f;
	struct wrep_entry e;
	int rc = wrep_entry_decode(item->buf, &e);

	pthread_mutex_lock(&db->lock);
	f = db->retired || wrep_db_hold(db, true) ? NULL : wrep_db_file(db, WREP_DB);
	pthread_mutex_unlock(&db->lock);
	if (!f)
		rc = -ENOENT;
	if (!rc && (e.attr_valid & (WREP_ATTR_UID | WREP_ATTR_GID)) &&
	    fchown(f->fd, e.attr_valid & WREP_ATTR_UID ? e.uid : (uid_t)-1,
		   e.attr_valid & WREP_ATTR_GID ? e.gid : (gid_t)-1) < 0)
		rc = -errno;
	if (!rc && (e.attr_valid & WREP_ATTR_MODE) && fchmod(f->fd, e.mode) < 0)
		rc = -errno;
	if (!rc && (e.attr_valid & WREP_ATTR_TIMES) &&
	    futimens(f->fd, (struct timespec[]){wrep_to_timespec(e.atime_ns, e.atime_omit),
						wrep_to_timespec(e.mtime_ns, e.mtime_omit)}) < 0)
		rc = -errno;
	pthread_mutex_lock(&db->lock);
	db->touched = true;
	if (f)
		wrep_db_unhold(db);
	pthread_mutex_unlock(&db->lock);
	wrep_file_unref(f);
	if (!item->op) /* an application's own change the kernel knows by the reply */
		wrep_applier_invalidate(db, WREP_DB, 0, 0);
	if (item->op)
		item->op->done(item->op, rc);
}
