/* A database is created, removed, or gets other attributes. [applier] */
#ifndef WALREPL_NAMES_DATABASE_H
#define WALREPL_NAMES_DATABASE_H

#include "base/work.h"

bool wrep_create_run(struct wrep *w,
		     struct wrep_item *item); /* true: a fence could not be closed yet */
void wrep_unlink_run(struct wrep *w, struct wrep_item *item);
void wrep_setattr_run(struct wrep_item *item);

#endif
