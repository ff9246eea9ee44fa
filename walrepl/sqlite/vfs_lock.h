/* Locks of a database, and its wal-index: conn.c's and those that SQLite takes. Private to conn.c and vfs.c.
 */
#ifndef WALREPL_SQLITE_VFS_LOCK_H
#define WALREPL_SQLITE_VFS_LOCK_H

#include <stdbool.h>

#include <sqlite3.h>

struct wrep_vfs;

/* The locks that conn.c may hold. The first three are bytes of the database file (file_format.h), the last is
 * byte 120 of the -shm (section 2.3 of the WAL-index format). */
#define WREP_HOLD_RESERVED 1u  /* the intention to write: keeps writers out */
#define WREP_HOLD_PENDING 2u   /* keeps new readers out */
#define WREP_HOLD_EXCLUSIVE 4u /* there are no readers */
#define WREP_HOLD_WAL_WRITE 8u /* keeps writers of a database in WAL mode out */
#define WREP_HOLD_DATABASE (WREP_HOLD_RESERVED | WREP_HOLD_PENDING | WREP_HOLD_EXCLUSIVE)

/* Take one lock, without waiting. 0 (also when held already), -EBUSY, -errno. WREP_HOLD_WAL_WRITE
 * needs the -shm, see wrep_vfs_in_wal(). */
int wrep_vfs_hold(struct wrep_vfs *v, unsigned lock);
void wrep_vfs_drop(struct wrep_vfs *v, unsigned locks);
unsigned wrep_vfs_held(const struct wrep_vfs *v);

/* Has SQLite attached to the wal-index? */
bool wrep_vfs_in_wal(const struct wrep_vfs *v);

/* From now on SQLite finds the checkpoint lock taken, and so starts no -wal over
 * (sqlite/0002-*.patch). */
void wrep_vfs_keep_wal(struct wrep_vfs *v, bool keep);

/* ---- sqlite3_io_methods of vfs.c's files; results are SQLite's ---- */

int wrep_vfs_lock(sqlite3_file *file, int level);
int wrep_vfs_unlock(sqlite3_file *file, int level);
int wrep_vfs_check_reserved(sqlite3_file *file, int *out);
int wrep_vfs_shm_map(sqlite3_file *file, int region, int size, int extend, void volatile **out);
int wrep_vfs_shm_lock(sqlite3_file *file, int first, int n, int flags);
void wrep_vfs_shm_barrier(sqlite3_file *file);
int wrep_vfs_shm_unmap(sqlite3_file *file, int delete_it);

/* Close the -shm, with every lock in it. */
void wrep_vfs_detach(struct wrep_vfs *v);

#endif
