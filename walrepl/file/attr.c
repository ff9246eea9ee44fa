/* The attributes of a file, as applications see them and set them. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include "base/attr.h"
#include "db/db.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/stray.h"
#include "file/file.h"
#include "pages/overlay.h"
#include "txn/proposal.h"

int wrep_file_stat(struct wrep_file *f, struct stat *st)
{
	struct wrep_db *db = f->db;
	bool stale = false;
	int rc = 0;

	if (f->kind == WREP_SUPER)
		return fstat(f->fd, st) < 0 ? -errno : 0;
	if (f->kind == WREP_STRAY)
		return wrep_stray_stat(f, st);
	pthread_mutex_lock(&db->lock);
	/* The file of a retired database is as long as the fetch has come: told of that, the kernel would end
	 * a read early, and SQLite take what is missing for zeros. */
	if (f->revoked || db->retired)
		rc = -ESTALE;
	else if (f->fd >= 0)
		rc = fstat(f->fd, st) < 0 ? -errno : 0;
	else if (db->files[f->kind] != f)
		rc = -ESTALE;
	else if (fstatat(wrep_dir_fd(db->w, f->kind), f->name, st, AT_SYMLINK_NOFOLLOW) < 0)
		rc = -errno;
	if (rc == -ENOENT && f->kind == WREP_DB && db->damaged) {
		/* Nobody has a copy: it can be removed, and so it must be found. */
		*st = (struct stat){.st_mode = S_IFREG, .st_nlink = 1};
		rc = 0;
	}
	if (!rc && db->files[f->kind] == f) {
		if (f->kind == WREP_DB && db->overlay)
			st->st_size = (off_t)wrep_overlay_size(db->overlay);
	} else if (!rc) {
		/* SQLite has closed its -wal before it, or we, removed the name. */
		stale = f->kind == WREP_WAL || (f->kind == WREP_DB && !db->opens);
	}
	pthread_mutex_unlock(&db->lock);
	if (rc == -ENOENT) { /* somebody's hand, in the data directory */
		if (f->kind == WREP_DB)
			wrep_db_missing(db);
		rc = -ESTALE;
	}
	return stale ? -ESTALE : rc;
}

int wrep_file_setattr(struct wrep_file *f, const struct wrep_attr *attr, struct wrep_op *op)
{
	struct wrep_db *db = f->db;
	int rc = 0;

	if (f->kind == WREP_STRAY)
		return wrep_stray_setattr(f, attr);
	if (f->kind == WREP_DB) {
		bool revoked;

		if (!atomic_load(&db->w->may_write))
			return -EROFS;
		/* `cp -p` and the like set them before they close what they copied. */
		pthread_mutex_lock(&db->lock);
		revoked = f->revoked;
		if ((attr->valid & WREP_ATTR_TIMES) && db->unjournaled.active &&
		    db->unjournaled.alone)
			db->unjournaled.times = *attr;
		pthread_mutex_unlock(&db->lock);
		if (revoked)
			return -ESTALE;
		return wrep_propose_attr(db, attr, op);
	}
	if (db) { /* else it is a super-journal, open as long as it is there */
		pthread_mutex_lock(&db->lock);
		rc = wrep_db_pin(db, false);
		pthread_mutex_unlock(&db->lock);
		if (rc)
			return wrep_file_cannot_open(db, rc);
	}
	if (f->fd < 0)
		rc = -ESTALE;
	if (!rc)
		rc = wrep_attr_set(f->fd, attr);
	if (db)
		wrep_file_unpin_db(db);
	return rc;
}
