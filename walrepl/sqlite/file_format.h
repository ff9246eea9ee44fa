/* The bytes of a database file, its locks, and how the files beside it are called. Private to walrepl; any
 * thread.
 *
 * From SQLite's "Database File Format", section 1.3. Page 1 begins with a header of 100 bytes; numbers are
 * big-endian:
 *
 *    0  "SQLite format 3" and a zero byte          24  change counter
 *   16  u16 page size; 1 means 65,536              28  size of the database in pages, if 92 says
 *   18  format version for writing; 2: WAL             what 24 says
 *   19  format version for reading; 2: WAL         92  the change counter that 28 is as of
 *
 * SQLite's rollback-mode locks are on bytes of this file, from 1 GiB on (os.h). The page that holds them
 * is never written:
 *
 *   0x40000000  PENDING        0x40000001  RESERVED        0x40000002, 510 bytes: SHARED
 */
#ifndef WALREPL_SQLITE_FILE_FORMAT_H
#define WALREPL_SQLITE_FILE_FORMAT_H

#include <stdbool.h>
#include <stdint.h>
#include "walrepl.h"

#define WREP_DB_HEADER_BYTES 100u

#define WREP_PENDING_BYTE 0x40000000u
#define WREP_RESERVED_BYTE (WREP_PENDING_BYTE + 1)
#define WREP_SHARED_FIRST (WREP_PENDING_BYTE + 2) /* an EXCLUSIVE lock covers the same bytes */
#define WREP_SHARED_BYTES 510

/* A power of two from 512 to 65,536. */
bool wrep_page_size_valid(uint32_t page_size);
/* As the first 18 bytes of page 1 say, valid or not. */
uint32_t wrep_page1_page_size(const uint8_t *page1);
/* Does page 1 say WAL? */
bool wrep_page1_is_wal(const uint8_t *page1);
/* False: not the header of a database. `*page_count` is 0 where the header does not say it. */
bool wrep_db_header_parse(const uint8_t bytes[WREP_DB_HEADER_BYTES], uint32_t *page_size,
			  uint32_t *page_count);

/* The number of the page that is never written. */
uint32_t wrep_lock_page(uint32_t page_size);

/* The end of the name of a database's file of `kind`, behind that of the database: "" for WREP_DB, "-wal",
 * "-shm" or "-journal". */
const char *wrep_kind_suffix(enum wrep_kind kind);

#endif
