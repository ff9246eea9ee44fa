/* A database that nobody has open any more is complete in its file, as after a clean close.
 *
 * A process that is killed leaves its -wal, or a hot -journal. SQLite would see to these when it opens the database
 * next; but who copies or moves the file alone would lose what the -wal holds, or get half a transaction. So
 * when the last application has gone the applier *folds* the database: the daemon's own SQLite
 * copies the frames into the file and cuts the -wal, under the locks that all others respect (a -wal is never
 * started over beside them), and only when no manifest counts on its frames (snapshot/wal_hold.c); then -wal
 * and -shm go. What the dead process wrote under a -journal is forgotten with it: it was never committed
 * (but where the -journal names a super-journal: who comes next finds out what became of that).
 * An open that finds something left, with nobody else in, comes through the applier and waits for that.
 *
 * Nothing hangs on it: what cannot be folded now (no room on the disk, say) is left to whoever opens the database.
 */
#include "apply/fold.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "apply/fence.h"
#include "base/phase.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/attach.h"
#include "db/db.h"
#include "db/files.h"
#include "db/side_stray.h"
#include "db/table.h"
#include "record/entry.h"
#include "sqlite/journal_format.h"
#include "txn/sender.h"

static bool is_idle(const struct wrep_db *db)
{
	return !db->opens && !db->removed && !db->retired && !db->damaged && !db->half_applied &&
	       !db->pending && db->files[WREP_DB];
}

/* Of a side file in the backing directory, which need not be open. st_nlink 0: there is none. db->lock held. */
static struct stat look(struct wrep_db *db, enum wrep_kind kind)
{
	char name[WREP_NAME_MAX + 16];
	struct stat st;

	wrep_db_backing_name(db, kind, name);
	return fstatat(wrep_dir_fd(db->w, kind), name, &st, AT_SYMLINK_NOFOLLOW) < 0
		       ? (struct stat){0}
		       : st;
}

/* Does the dead process's transaction span several databases? What became of it SQLite finds out. db->lock
 * held. */
static bool is_of_several(struct wrep_db *db)
{
	char name[WREP_NAME_MAX + 16], super[WREP_SUPER_PATH_MAX];
	bool is;
	int fd;

	wrep_db_backing_name(db, WREP_JOURNAL, name);
	fd = openat(db->w->config.data_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	is = fd < 0 || wrep_journal_super(fd, super);
	if (fd >= 0)
		close(fd);
	return is;
}

bool wrep_fold_is_due(struct wrep_db *db)
{
	if (!is_idle(db))
		return false;
	if (db->overlay)
		return !db->unjournaled.active && !is_of_several(db);
	return look(db, WREP_WAL).st_size > 0;
}

static const enum wrep_kind kinds[] = {WREP_WAL, WREP_SHM, WREP_JOURNAL};

/* The -wal is empty, the -journal gone, and nobody has a side file open, nor gets in before this is over. `before`: what
 * they were. */
static void remove_empty(struct wrep_db *db, const struct stat before[3])
{
	char name[WREP_NAME_MAX + 16];

	pthread_mutex_lock(&db->lock);
	for (int i = 0; i < 3 && is_idle(db) && !db->fenced; i++) {
		if (kinds[i] != WREP_JOURNAL && !look(db, WREP_WAL).st_size) {
			wrep_db_backing_name(db, kinds[i], name);
			if (unlinkat(wrep_dir_fd(db->w, kinds[i]), name, 0) == 0)
				wrep_db_forget_file(db, kinds[i]);
		}
		if (before[i].st_nlink && !look(db, kinds[i]).st_nlink)
			wrep_stray_trace(db, kinds[i], &before[i]);
	}
	wrep_txn_unlock(db);
}

void wrep_fold(struct wrep_db *db)
{
	struct stat before[3];
	bool due, fetching = wrep_fetching(db->w);
	int rc;

	pthread_mutex_lock(&db->lock);
	due = !fetching && wrep_fold_is_due(db);
	db->folding = due; /* until it is over nobody gets in */
	for (int i = 0; i < 3; i++)
		before[i] = look(db, kinds[i]);
	pthread_mutex_unlock(&db->lock);
	if (!due)
		return;
	rc = wrep_fence_make_cold(db);
	if (!rc)
		remove_empty(db, before);
	else if (atomic_load(&db->w->may_write))
		wrep_db_detach(db);
	pthread_mutex_lock(&db->lock);
	db->folding = false;
	pthread_mutex_unlock(&db->lock);
}

struct fold_work {
	struct wrep_work work; /* first */
	struct wrep_db *db;
};

static void run(struct wrep *w, struct wrep_work *work)
{
	(void)w;
	wrep_fold(((struct fold_work *)work)->db);
}

static void retire(struct wrep_work *work)
{
	wrep_db_retire(((struct fold_work *)work)->db);
}

static void release(struct wrep_work *work)
{
	struct fold_work *f = (struct fold_work *)work;

	wrep_db_unref(f->db);
	free(f);
}

static const struct wrep_work_ops fold_ops = {.name = "fold",
					      .run = run,
					      .retire = retire,
					      .release = release};

void wrep_fold_queue(struct wrep_db *db)
{
	struct fold_work *f = wrep_work_make(sizeof *f, &fold_ops);

	f->db = wrep_db_ref(db);
	wrep_work_is_about(&f->work, db->id);
	wrep_queue_push(db->w->queue, &f->work);
}
