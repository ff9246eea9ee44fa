/* The images of a large transaction, in a temporary file. The applier calls what takes no database. Private to walrepl. */
#ifndef WALREPL_DB_SPOOL_H
#define WALREPL_DB_SPOOL_H

#include "state/parts.h"

struct wrep_db;

/* Index of the first entry of the oldest transaction in parts that is open, or committed but not in the
 * files yet; 0 when there is none. The log must keep what is there from it on, and a snapshot must lie
 * before it: a node that lacked a part would judge the COMMIT otherwise than the rest. db->lock held. */
uint64_t wrep_parts_first_index(const struct wrep_db *db);
/* The transaction of `parts` (NULL: it had none) is committed, and queued for the applier; later, it is
 * in the files. db->lock held. */
void wrep_parts_queued(struct wrep_db *db, struct wrep_parts *parts);
void wrep_parts_applied(struct wrep_db *db, struct wrep_parts *parts);
/* Append the images of `e` to the file, which is made in `dir_fd` when there is none. 0 or -errno;
 * then nothing has changed, and it may be tried again. Entries come in the order of the log. */
int wrep_parts_store(struct wrep_parts *p, int dir_fd, const struct wrep_entry *e);

/* As struct wrep_conn_txn wants it, with `p` as ctx: up to WREP_CONN_FETCH_MAX images. */
int wrep_parts_fetch(void *p, uint32_t first, uint32_t count, uint32_t *pgnos, const void **images);

/* Copy the image of each page to its place in the database file. 0 or -errno. */
int wrep_parts_copy(struct wrep_parts *p, int db_fd);

#endif
