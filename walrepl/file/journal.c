/* An application writes its -journal, which may be its commit. */
#include "file/journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/io.h"
#include "db/db.h"
#include "file/file.h"
#include "sqlite/journal_format.h"
#include "txn/commit.h"
#include "txn/journal.h"
#include "txn/sender.h"
#include "txn/unjournaled.h"

bool wrep_journal_commits(struct wrep_db *db)
{
	return db->overlay && !wrep_unjournaled_is_ending(db);
}

int wrep_journal_write(struct wrep_file *f, const uint8_t *buf, size_t len, uint64_t off,
		       struct wrep_op *op)
{
	static const uint8_t zero[8];
	struct wrep_db *db = f->db;
	struct wrep_commit *shape;
	int rc;

	pthread_mutex_lock(&db->lock);
	if (wrep_file_is_unlinked(f)) {
		pthread_mutex_unlock(&db->lock);
		return -EIO;
	}
	if (wrep_journal_begins(buf, len)) {
		db->journaled = true;
		db->journal_tid = op->tid;
	}
	if (!wrep_journal_commits(db) || off != 0 || len < sizeof zero ||
	    memcmp(buf, zero, sizeof zero) || !wrep_journal_is_hot(db)) {
		rc = wrep_write_all(f->fd, buf, len, off);
		pthread_mutex_unlock(&db->lock);
		return rc;
	}
	shape = calloc(1, sizeof *shape);
	if (shape)
		shape->journal_bytes = malloc(len);
	if (!shape || !shape->journal_bytes) {
		pthread_mutex_unlock(&db->lock);
		free(shape);
		return -ENOMEM;
	}
	memcpy(shape->journal_bytes, buf, len);
	shape->journal_len = len;
	shape->trigger = WREP_TRIGGER_WRITE;
	shape->op = op;
	rc = wrep_commit_prepare(db, shape);
	if (rc == 0)
		rc = wrep_write_all(f->fd, buf, len, off);
	else if (rc == 1)
		rc = WREP_PENDING;
	wrep_txn_unlock(db);
	return rc;
}
