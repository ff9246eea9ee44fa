/* Is a page what was committed? */
#ifndef WALREPL_REPAIR_PAGE_CHECK_H
#define WALREPL_REPAIR_PAGE_CHECK_H

#include "db/db.h"

/* `len` bytes were asked for of the database file at `off`, and `got` were read: are the pages in there
 * what was committed? If not, this node's copy is on its way to be repaired, and nobody shall get what
 * was read. */
bool wrep_pages_are_sound(struct wrep_file *f, const uint8_t *buf, size_t got, size_t len,
			  uint64_t off);
/* Is this the newest content of the page, as far as that can be said now? db->lock held. */
bool wrep_page_is_newest(const struct wrep_db *db, uint32_t pgno, const uint8_t *page);
void wrep_page_damaged(struct wrep_db *db, uint32_t pgno); /* say so, and repair; no lock held */

#endif
