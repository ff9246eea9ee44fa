/* What the overlay of a transaction leaves behind. */
#ifndef WALREPL_TXN_SHAPE_H
#define WALREPL_TXN_SHAPE_H

#include "db/db.h"

/* The shape that the overlay leaves behind, from the header of page 1; false: no database. Both 0: an
 * empty one. `whole`: all pages that the header speaks of are there. db->lock held. */
bool wrep_overlay_shape(struct wrep_db *db, uint32_t *page_size, uint32_t *page_count, bool *whole);
/* The pages of the overlay that differ from the committed ones: malloc'd. 0 or -errno. db->lock held. */
int wrep_overlay_changes(struct wrep_db *db, uint32_t page_size, uint32_t page_count,
			 struct wrep_page_change **out, uint32_t *count);
/* Does the overlay show just what the database file holds? (Which may be older than what is committed.) db->lock
 * held. */
bool wrep_overlay_restores(struct wrep_db *db);

#endif
