/* What an application's -journal and -wal say, and what it does to its -journal when it commits. */
#include "txn/journal.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
#include "db/db.h"
#include "db/files.h"
#include "record/entry.h"
#include "sqlite/journal_format.h"
#include "txn/commit.h"

int wrep_commit_pull_trigger(struct wrep_db *db, const struct wrep_commit *c)
{
	struct wrep_file *journal = db->files[WREP_JOURNAL];
	char name[WREP_NAME_MAX + 16];

	if (!journal)
		return 0;
	switch (c->trigger) {
	case WREP_TRIGGER_UNLINK:
		wrep_db_backing_name(db, WREP_JOURNAL, name);
		if (unlinkat(wrep_dir_fd(db->w, WREP_JOURNAL), name, 0) < 0 && errno != ENOENT)
			return -errno;
		wrep_db_forget_file(db, WREP_JOURNAL);
		return 0;
	case WREP_TRIGGER_TRUNCATE:
		return ftruncate(journal->fd, (off_t)c->journal_size) < 0 ? -errno : 0;
	case WREP_TRIGGER_WRITE:
		if (pwrite(journal->fd, c->journal_bytes, c->journal_len, (off_t)c->journal_off) !=
		    (ssize_t)c->journal_len)
			return errno ? -errno : -EIO;
		return 0;
	case WREP_TRIGGER_NONE:
	case WREP_TRIGGER_SYNC:
	case WREP_TRIGGER_CLOSE:
		break;
	}
	return 0;
}

bool wrep_journal_is_hot(struct wrep_db *db)
{
	struct wrep_file *journal = wrep_db_file(db, WREP_JOURNAL);
	bool hot;

	if (!journal)
		return false;
	hot = wrep_journal_fd_is_hot(journal->fd);
	wrep_file_unref(journal);
	return hot;
}

bool wrep_wal_has_frames(struct wrep_db *db)
{
	struct wrep_file *wal = wrep_db_file(db, WREP_WAL);
	struct stat st;
	bool has = wal && fstat(wal->fd, &st) == 0 && st.st_size > 0;

	wrep_file_unref(wal);
	return has;
}
