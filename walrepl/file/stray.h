/* What applications do to a stray (db/stray.h). As wrep_create() and so on. */
#ifndef WALREPL_FILE_STRAY_H
#define WALREPL_FILE_STRAY_H

#include "db/db.h"

int wrep_stray_create(struct wrep *w, const char *name, const struct wrep_new_file *as,
		      struct wrep_op *op);
int wrep_stray_open(struct wrep_file *f, int flags, struct wrep_op *op);
void wrep_stray_release(struct wrep_file *f);
int wrep_stray_write(struct wrep_file *f, const void *buf, size_t len, uint64_t off);
int wrep_stray_truncate(struct wrep_file *f, uint64_t size);
int wrep_stray_flush(struct wrep_file *f, struct wrep_op *op);
int wrep_stray_rename(struct wrep *w, const char *from, const char *to, unsigned flags,
		      struct wrep_op *op);

#endif
