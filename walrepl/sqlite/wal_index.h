/* The wal-index of a database, which is at the beginning of its -shm. Private to walrepl; any thread.
 *
 * `shm_fd` is the backing -shm, not owned; `salt` are the 8 bytes of the -wal's header.
 */
#ifndef WALREPL_SQLITE_WAL_INDEX_H
#define WALREPL_SQLITE_WAL_INDEX_H

#include <stdbool.h>
#include <stdint.h>

/* Compare the wal-index with what is committed in the -wal (`frames` frames of the generation with
 * `salt`). Where it lags, or is of another generation, make the next reader recover it: both copies
 * of the header become invalid. Returns 1 when it did so, 0 when all was well or there is no
 * wal-index yet, -errno. */
int wrep_wal_index_repair(int shm_fd, uint32_t frames, const uint32_t salt[2]);

/* Would it? Changes nothing. */
bool wrep_wal_index_lags(int shm_fd, uint32_t frames, const uint32_t salt[2]);

/* Make the wal-index invalid, whatever it says. A connection that has it open looks at the -wal
 * before it reads again, and so learns that it has lost that: what it has cached might be all that
 * it needs. 0 or -errno. */
int wrep_wal_index_spoil(int shm_fd);

/* Does the wal-index say that the first `frames` frames of that generation have all been copied into
 * the database file (nBackfill)? False also when there is no valid wal-index. */
bool wrep_wal_index_copied(int shm_fd, uint32_t frames, const uint32_t salt[2]);

#endif
