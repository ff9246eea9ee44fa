/* What is kept of databases in the state directory. */
#ifndef WALREPL_DB_STATE_FILES_H
#define WALREPL_DB_STATE_FILES_H

#include <stdint.h>

struct wrep;

#define WREP_MOVED_SIZE 40
void wrep_moved_name(char name[WREP_MOVED_SIZE], uint64_t id);
/* Where a database's file lies while it has no name: to where it belongs. After a crash. 0 or -errno. */
int wrep_moved_place(struct wrep *w, uint64_t id, const char *name);
int wrep_moved_tidy(struct wrep *w); /* remove what is left of them */

#endif
