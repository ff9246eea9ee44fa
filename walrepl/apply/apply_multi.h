/* A transaction over several databases goes into the files. [applier, no lock held] */
#ifndef WALREPL_APPLY_APPLY_MULTI_H
#define WALREPL_APPLY_APPLY_MULTI_H

#include "base/work.h"

void wrep_apply_group(struct wrep *w, struct wrep_item *item);

#endif
