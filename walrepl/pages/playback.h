/* A -wal or a -journal that came by copying, played into the overlay of its database: what SQLite makes of the
 * two when it opens them. Private to walrepl. Any thread; the caller serialises calls on one overlay.
 */
#ifndef WALREPL_PAGES_PLAYBACK_H
#define WALREPL_PAGES_PLAYBACK_H

#include "pages/overlay.h"

/* Is there anything in it that SQLite would play? 1, 0 (it would ignore, or start over, the file) or -errno. */
int wrep_playback_wal_holds(int wal_fd);
int wrep_playback_journal_holds(int journal_fd);

/* Play it, if it holds something. `base_fd`: the database file beneath the overlay. 0; -EBADMSG (its pages are of
 * another size than the database's); -EXDEV: the journal is part of a transaction over several databases, and
 * names a file that tells what became of it; -errno. */
int wrep_playback_wal(int wal_fd, struct wrep_overlay *o, int base_fd);
int wrep_playback_journal(int journal_fd, struct wrep_overlay *o, int base_fd);

#endif
