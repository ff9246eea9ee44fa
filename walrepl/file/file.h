/* The files of a database as request threads use them: what the files of this folder share, one for each
 * request. Where a request needs the cluster's agreement, txn/ takes it (commit.c, proposal.c for names and
 * attributes); where it needs SQLite's locks, the applier.
 *
 * What a write to each file means:
 *   -wal      judged by capture.c; all but the last write of a transaction go straight through.
 *   database  in WAL mode a checkpoint writes here, and content that is committed already is let
 *             through; in rollback mode, under a hot journal, pages gather in the overlay. What comes
 *             without a journal does, too: see txn/unjournaled.c.
 *   -journal  local; removing, truncating or zeroing it is the commit.
 *   -mj...    local: txn/super_journal.c; removing it is the commit of several databases.
 *   -shm      never comes here: the kernel passes it through to the backing file.
 *   strays    side files of no database are ordinary files of this node: stray.c.
 */
#ifndef WALREPL_FILE_FILE_H
#define WALREPL_FILE_FILE_H

#include "db/db.h"
#include "guarded.h"

/* The database that `name` belongs to, with a reference; fills `kind`. */
struct wrep_db *wrep_file_db(struct wrep *w, const char *name, enum wrep_kind *kind);
/* What an application is told. No lock held. */
int wrep_file_cannot_open(struct wrep_db *db, int rc);
void wrep_file_unpin_db(struct wrep_db *db);
int wrep_file_refuse_write(struct wrep_db *db, const char *what);
/* Somebody writes while what the overlay holds waits for Raft. Under a journal, and in fsync, SQLite
 * waits itself, and this is no SQLite. What was committed by closing the file may find the next writer
 * at work already: it tries again (SQLite does, on EINTR). WREP_PENDING or -EIO. db->lock held. */
int wrep_file_write_later(struct wrep_db *db, struct wrep_op *op) REQUIRES(db->lock);
/* Unlinked, by others (SQLite does not write to what it removed): a transaction that ends there would count as
 * committed, and nobody else would ever see it. db->lock held. */
bool wrep_file_is_unlinked(const struct wrep_file *f);
/* The overlay belongs to a transaction that waits for Raft. (In WAL mode a checkpoint goes on
 * beside a commit of another process.) db->lock held. */
bool wrep_file_rollback_pending(const struct wrep_db *db);
/* What a node that may not write takes nevertheless: a rollback by a journal, of a transaction whose writes it has
 * refused, or that began while it led. It brings back what is in the database file already, so nobody can
 * be shown anything else by it. A journal that is older than the file is refused: its pages
 * differ. (What was written without a journal the applier takes back.) db->lock held. */
bool wrep_file_is_rollback(const struct wrep_db *db);

#endif
