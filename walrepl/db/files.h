/* The files of databases: incarnations of the four that each has. */
#ifndef WALREPL_DB_FILES_H
#define WALREPL_DB_FILES_H

#include "db/db.h"

/* The database's file of `kind`, with a reference: the current incarnation, which is opened from the
 * backing directory if it is there; NULL if not. db->lock held. */
struct wrep_file *wrep_db_file(struct wrep_db *db, enum wrep_kind kind);
/* Forget the current incarnation of a file (its name went). db->lock held. */
void wrep_db_forget_file(struct wrep_db *db, enum wrep_kind kind);
void wrep_db_backing_name(const struct wrep_db *db, enum wrep_kind kind,
			  char name[WREP_NAME_MAX + 16]);
/* An incarnation over the open backing file `fd`, which it owns from then on; -1: opened with the next
 * hold, `ino` is its inode then. db->lock held. */
int wrep_file_make(struct wrep_db *db, enum wrep_kind kind, int fd, ino_t ino,
		   struct wrep_file **out);
int wrep_dir_fd(const struct wrep *w, enum wrep_kind kind);
void wrep_stray_free(struct wrep_stray *s); /* with its file */

#endif
