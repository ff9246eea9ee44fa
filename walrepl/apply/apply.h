/* Transactions go into the files. All functions are called by the applier's thread, without a lock held. */
#ifndef WALREPL_APPLY_APPLY_H
#define WALREPL_APPLY_APPLY_H

#include "base/work.h"

/* apply.c: a transaction of another node, ... */
void wrep_apply_part(struct wrep *w, struct wrep_item *item);
void wrep_apply_transaction(struct wrep *w, struct wrep_item *item);
void wrep_apply_group(struct wrep *w, struct wrep_item *item);
/* ... and of an application here. */
void wrep_install(struct wrep *w, struct wrep_item *item);
void wrep_install_group(struct wrep *w, struct wrep_item *item);

#endif
