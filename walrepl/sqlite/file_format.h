/* SQLite's database file (https://sqlite.org/fileformat2.html, section 1.3). Private to walrepl. */
#ifndef WALREPL_SQLITE_FILE_FORMAT_H
#define WALREPL_SQLITE_FILE_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

/* Does the committed image say WAL? (bytes 18 and 19 of page 1, the file format versions) */
static inline bool wrep_page1_is_wal(const uint8_t *page1)
{
	return page1[18] == 2 && page1[19] == 2;
}

#endif
