/* The bytes of a rollback journal. Private to walrepl; any thread.
 *
 * From SQLite's "Database File Format", section 3. A journal begins with a header in a sector of its own, which
 * pages follow. It may go on with another header at the next sector, and so on. All numbers are big-endian.
 *
 *    0  magic, 8 bytes                            page record:
 *    8  records behind it, or -1: to the end         0  page number
 *   12  nonce of the checksums                       4  the page as it was
 *   16  pages of the database as it was             ..  checksum: the nonce, and every 200th byte
 *   20  sector size                                     of the page, from the end
 *   24  page size
 *
 * Where a page has several records, the first one counts. The first record that is not right ends it all.
 *
 * The journal of a transaction over several databases ends with the name of its super-journal (SQLite's
 * pager.c, writeSuperJournal()):
 *
 *    | u32 number of the lock page | path | u32 length of the path | u32 sum of its bytes | magic |
 */
#ifndef WALREPL_SQLITE_JOURNAL_FORMAT_H
#define WALREPL_SQLITE_JOURNAL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WREP_JOURNAL_MAGIC_BYTES 8u

/* Are these the first bytes of a journal that holds something to roll back? SQLite ends a transaction by a
 * journal without them: removed, truncated, or zeroed at its start. */
bool wrep_journal_begins(const void *bytes, size_t len);
/* Does the journal begin so? Else, or when it cannot be read: no. */
bool wrep_journal_fd_is_hot(int fd);

struct wrep_journal_header {
	uint32_t records, nonce, page_count, sector, page_size;
};

/* The header at `off`; false: there is none, or not one of a journal that holds something. */
bool wrep_journal_read_header(int fd, uint64_t off, struct wrep_journal_header *h);
/* The checksum of a page record. */
uint32_t wrep_journal_checksum(const uint8_t *page, uint32_t page_size, uint32_t nonce);

#define WREP_SUPER_PATH_MAX 4096
/* The super-journal that a -journal names, as a path in the eyes of its writer; false: none. */
bool wrep_journal_super(int journal_fd, char path[WREP_SUPER_PATH_MAX]);

#endif
