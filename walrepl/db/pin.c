/* Databases that nobody uses cost no file descriptor.
 *
 * The files of a database are open while somebody *holds* it: every open of one of its files does, by
 * an application or by the daemon itself, until its release, and so does whoever uses a descriptor
 * without having the file open, for as long as that takes. When the last hold ends the files are
 * closed; the incarnations stay (the kernel may know their numbers), and the next hold opens the same
 * files again, which takes some microseconds. That they are the same is checked by their inode: the
 * names in the data directory are the daemon's own, but somebody's hand may have been there.
 *
 * Three things keep the files open beyond that. An undecided transaction and an overlay: what becomes
 * of them needs the files. And what was written and is not on the disk yet: should the kernel fail to
 * write it, only who has the file open then is sure to be told by the next sync. So a database that is
 * idle and *unsynced* stays open until the next durable point; of more than WREP_UNSYNCED_MAX the snapshotter syncs the
 * longest idle ones before that.
 *
 * Descriptors may run out all the same. Applications are refused (EMFILE) while there are still some left
 * for the daemon, whose log and applier must go on: the kernel hands out the lowest number that is free,
 * so a high one tells that few are.
 */
#include "db/pin.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/io.h"
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/files.h"
#include "db/table.h"
#include "pages/capture.h"

#define RESERVE 128  /* descriptors that applications cannot use up, or half of what there is */
#define LOG_MS 60000 /* between two lines that say that there are none left */

void wrep_pin_init(struct wrep *w)
{
	struct rlimit files;

	pthread_mutex_init(&w->idle_lock, NULL);
	w->idle_tail = &w->idle;
	w->fd_limit = w->fd_spare = INT32_MAX;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < INT32_MAX) {
		w->fd_limit = (int)files.rlim_cur;
		w->fd_spare = w->fd_limit > 2 * RESERVE ? w->fd_limit - RESERVE : w->fd_limit / 2;
	}
}

void wrep_pin_destroy(struct wrep *w)
{
	assert(!w->idle);
	pthread_mutex_destroy(&w->idle_lock);
}

bool wrep_out_of_descriptors(struct wrep *w, int error, const char *name)
{
	uint64_t now = wrep_now_ms(), last = atomic_load(&w->short_logged_ms);

	if (error != -EMFILE && error != -ENFILE)
		return false;
	if ((!last || now - last > LOG_MS) &&
	    atomic_compare_exchange_strong(&w->short_logged_ms, &last, now))
		wrep_logf(
			w, 'E',
			"out of file descriptors, opens fail or wait: close databases, or mount again "
			"with a higher limit (ulimit -Hn, LimitNOFILE= of a service%s) limit=%d "
			"database=%s",
			error == -ENFILE ? ", /proc/sys/fs/file-max" : "", w->fd_limit, name);
	return true;
}

bool wrep_descriptor_is_spare(const struct wrep *w, int fd)
{
	return fd >= w->fd_spare;
}

/* ---- opening and closing ----------------------------------------------------------------------- */

static int reopen(struct wrep_file *f, bool may_use_spare)
{
	struct wrep *w = f->db->w;
	struct stat st;
	int rc = 0, fd = openat(wrep_dir_fd(w, f->kind), f->name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return errno == ELOOP ? -ENOENT : -errno;
	if (!may_use_spare && wrep_descriptor_is_spare(w, fd))
		rc = -EMFILE;
	else if (fstat(fd, &st) < 0)
		rc = -errno;
	else if (st.st_ino != f->ino)
		rc = -ENOENT;
	if (!rc && f->kind == WREP_WAL) {
		assert(!f->db->capture);
		rc = wrep_capture_open(&f->db->capture, fd);
	}
	if (rc) {
		close(fd);
		return rc;
	}
	f->fd = fd;
	return 0;
}

static void close_file(struct wrep_file *f)
{
	struct wrep_db *db = f->db;
	struct stat st;

	if (f->fd < 0)
		return;
	if (fstat(f->fd, &st) == 0)
		f->ino = st.st_ino;
	if (f->kind == WREP_WAL && db->files[WREP_WAL] == f && db->capture) {
		db->up->db_closing(db);
		wrep_capture_close(db->capture);
		db->capture = NULL;
	}
	close(f->fd);
	f->fd = -1;
}

static int open_all(struct wrep_db *db, bool may_use_spare)
{
	int rc = 0;

	for (int k = 0; k < 4 && !rc; k++) {
		if (!db->files[k] || db->files[k]->fd >= 0)
			continue;
		rc = reopen(db->files[k], may_use_spare);
		if (rc == -ENOENT && k != WREP_DB) { /* it is gone, as if by an unlink */
			wrep_db_forget_file(db, k);
			rc = 0;
		}
	}
	return rc;
}

/* To the end of the queue of those that are idle and unsynced. */
static void enlist(struct wrep_db *db)
{
	struct wrep *w = db->w;
	bool many;

	pthread_mutex_lock(&w->idle_lock);
	if (!db->idle_listed) {
		db->idle_listed = true;
		db->next_idle = NULL;
		*w->idle_tail = wrep_db_ref(db);
		w->idle_tail = &db->next_idle;
		w->idle_count++;
	}
	many = w->idle_count > WREP_UNSYNCED_MAX;
	pthread_mutex_unlock(&w->idle_lock);
	if (many)
		w->up->housekeeping_due(w);
}

/* The first of the queue if it is longer than `max`, else NULL; a reference. */
struct wrep_db *wrep_unsynced_pop(struct wrep *w, unsigned max)
{
	struct wrep_db *db = NULL;

	pthread_mutex_lock(&w->idle_lock);
	if (w->idle_count > max) {
		db = w->idle;
		w->idle = db->next_idle;
		if (!w->idle)
			w->idle_tail = &w->idle;
		w->idle_count--;
		db->idle_listed = false;
	}
	pthread_mutex_unlock(&w->idle_lock);
	return db;
}

void wrep_db_close_unpinned(struct wrep_db *db)
{
	/* What stands in for a lost file has no name by which it could be opened again. */
	if (db->pins || db->pending || db->overlay || db->lost || !db->files[WREP_DB] ||
	    db->files[WREP_DB]->fd < 0)
		return;
	if (db->unsynced) {
		enlist(db);
		return;
	}
	for (int k = 0; k < 4; k++)
		if (db->files[k])
			close_file(db->files[k]);
}

/* ---- holds ------------------------------------------------------------------------------------- */

int wrep_db_pin(struct wrep_db *db, bool internal)
{
	int rc = 0;

	if (!db->pins)
		rc = open_all(db, internal);
	if (!rc)
		db->pins++;
	else
		wrep_db_close_unpinned(db);
	return rc;
}

void wrep_db_unpin(struct wrep_db *db)
{
	assert(db->pins > 0);
	if (!--db->pins)
		wrep_db_close_unpinned(db);
}

void wrep_file_unpin(struct wrep_file *f)
{
	struct wrep_db *db = f->db;

	wrep_db_unpin(db);
	/* Removed while it was open: nobody can open it again. */
	if (!db->pins && db->files[f->kind] != f)
		close_file(f);
}

void wrep_db_missing(struct wrep_db *db)
{
	db->w->up->damaged(db->w, "the database file is gone from the data directory", db);
}

/* ---- the snapshotter's part --------------------------------------------------------------------------- */

bool wrep_unsynced_many(struct wrep *w)
{
	bool many;

	pthread_mutex_lock(&w->idle_lock);
	many = w->idle_count > WREP_UNSYNCED_MAX;
	pthread_mutex_unlock(&w->idle_lock);
	return many;
}

void wrep_unsynced_clear(struct wrep *w)
{
	struct wrep_db *db;

	while ((db = wrep_unsynced_pop(w, 0)))
		wrep_db_unref(db);
}

void wrep_db_settled(struct wrep_db *db)
{
	if (!db->removed) {
		wrep_db_close_unpinned(db);
		return;
	}
	for (int k = 0; k < 4; k++)
		wrep_db_forget_file(db, k);
}
