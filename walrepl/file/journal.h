/* An application writes its -journal, which may be its commit. */
#ifndef WALREPL_FILE_JOURNAL_H
#define WALREPL_FILE_JOURNAL_H

#include "db/db.h"

/* Does the end of a journal commit what is in the overlay? Not if that is another's session, which waits for
 * Raft already: the journal is of a transaction that has written nothing into the database yet, since its
 * writes wait, and is rolled back. db->lock held. */
bool wrep_journal_commits(struct wrep_db *db);
/* A journal that is zeroed at its start while the overlay holds pages: journal_mode=PERSIST
 * commits. 0, WREP_PENDING, -errno. No lock held. */
int wrep_journal_write(struct wrep_file *f, const uint8_t *buf, size_t len, uint64_t off,
		       struct wrep_op *op);

#endif
