/* The images of a transaction in parts, in a temporary file of this node. Private to walrepl.
 *
 * Which parts have come, and which of their images count, is replicated (state/parts.h). The images are local: the
 * applier writes them, in its own time, from the same entries, into an unnamed file in the data directory, one
 * behind the other.
 *
 * Why the applier, and not raftlog's thread at once: a write into the page cache of a busy disk
 * waits until others are written back, for as long as it likes, and a full disk must be waited for;
 * raftlog's thread has heartbeats to send. The applier's queue holds the entries meanwhile. It is
 * bounded, and when it is full raftlog keeps the rest in its log.
 *
 * Reference-counted: the open transaction refers to its spool, each queued entry of it too. The
 * applier drops the last one (freeing gigabytes of a file takes a while).
 */
#ifndef WALREPL_DB_SPOOL_H
#define WALREPL_DB_SPOOL_H

#include <stdatomic.h>
#include "state/parts.h"

struct wrep_db;

struct wrep_spool {
	_Atomic unsigned refs;
	/* Its COMMIT can never take effect on this node's files: the images need not be kept. */
	_Atomic bool dead;
	struct wrep_spool *next; /* in db->unapplied; guarded by the database's lock */
	/* Constant: of which transaction */
	uint64_t origin, sequence, first_index;
	/* Owned once the transaction is decided, and constant then; until then NULL, and the state's. */
	struct wrep_parts *parts;
	/* The applier's. */
	int fd;		 /* -1: none yet */
	uint32_t stored; /* images */
	uint8_t *buffer; /* what wrep_spool_fetch() returned last */
};

/* For `parts`, which have just begun, and know it from then on. NULL: no memory. db->lock held. */
struct wrep_spool *wrep_spool_new(struct wrep_parts *parts);
struct wrep_spool *wrep_spool_of(
	const struct wrep_parts *parts); /* that one, or NULL; no reference */
/* The transaction of `parts` is decided: its spool, with the reference that the parts had, owns them now. NULL for
 * NULL. */
struct wrep_spool *wrep_spool_take(struct wrep_parts *parts);
struct wrep_spool *wrep_spool_ref(struct wrep_spool *s);
void wrep_spool_unref(struct wrep_spool *s); /* NULL is allowed */
bool wrep_spool_is_of(const struct wrep_spool *s, uint64_t origin, uint64_t sequence);

/* Index of the first entry of the oldest transaction in parts that is open, or committed but not in the
 * files yet; 0 when there is none. The log must keep what is there from it on, and a snapshot must lie
 * before it: a node that lacked a part would judge the COMMIT otherwise than the rest. db->lock held. */
uint64_t wrep_parts_first_index(const struct wrep_db *db);
/* The transaction of `s` (NULL: it had no parts) is committed, and queued for the applier; later, it is
 * in the files. db->lock held. */
void wrep_spool_queued(struct wrep_db *db, struct wrep_spool *s);
void wrep_spool_applied(struct wrep_db *db, struct wrep_spool *s);

/* ---- the applier ---- */

/* Append the images of `e` to the file, which is made in `dir_fd` when there is none. 0 or -errno;
 * then nothing has changed, and it may be tried again. Entries come in the order of the log. */
int wrep_spool_store(struct wrep_spool *s, int dir_fd, const struct wrep_entry *e);

/* As struct wrep_conn_txn wants it, with `s` as ctx: up to WREP_CONN_FETCH_MAX images. */
int wrep_spool_fetch(void *s, uint32_t first, uint32_t count, uint32_t *pgnos, const void **images);

/* Copy the image of each page to its place in the database file. 0 or -errno. */
int wrep_spool_copy(struct wrep_spool *s, int db_fd);

#endif
