/* Uncommitted pages of a rollback-journal transaction, over the committed database file. Private to
 * walrepl.
 *
 * SQLite in a rollback-journal mode writes its pages into the database before it commits by removing
 * the journal. Until Raft agrees they live here: in an unnamed temporary file beside the database,
 * with a bitmap of what was written, in units of 512 bytes (the smallest page). Memory: 1 bit per
 * 512 bytes. The caller serialises all calls.
 */
#ifndef WALREPL_PAGES_OVERLAY_H
#define WALREPL_PAGES_OVERLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct wrep_overlay;

/* `dir_fd`: where the temporary file is made (O_TMPFILE). `base_size`: of the database file. */
int wrep_overlay_open(struct wrep_overlay **out, int dir_fd, uint64_t base_size);
void wrep_overlay_close(struct wrep_overlay *o);

uint64_t wrep_overlay_size(const struct wrep_overlay *o); /* of the file as the writer sees it */
bool wrep_overlay_dirty(const struct wrep_overlay *o);	  /* anything written or truncated */
/* Has anything of the 512 bytes around `off` been written? */
bool wrep_overlay_holds(const struct wrep_overlay *o, uint64_t off);
/* Bytes that the temporary file would hold after a write of `len` bytes at `off`. */
uint64_t wrep_overlay_bytes_with(const struct wrep_overlay *o, size_t len, uint64_t off);

/* `base_fd` is needed for the rest of a 512-byte unit that is written in part. 0 or -errno. */
int wrep_overlay_write(struct wrep_overlay *o, int base_fd, const void *buf, size_t len,
		       uint64_t off);
int wrep_overlay_truncate(struct wrep_overlay *o, uint64_t size); /* shorter or longer */
ssize_t wrep_overlay_read(struct wrep_overlay *o, int base_fd, void *buf, size_t len, uint64_t off);

/* The lowest page >= `pgno` below the current size with a written unit, or with bytes that a shrink
 * cut off and a growth brought back as zeros; 0 when there is none. */
uint32_t wrep_overlay_next(const struct wrep_overlay *o, uint32_t page_size, uint32_t pgno);

/* Make `base_fd` what the overlay shows, then start again with nothing written. 0 or -errno. */
int wrep_overlay_commit(struct wrep_overlay *o, int base_fd);

#endif
