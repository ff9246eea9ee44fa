/* This node catches up. [applier] */
#ifndef WALREPL_APPLY_CATCH_UP_H
#define WALREPL_APPLY_CATCH_UP_H

#include "base/work.h"

bool wrep_view_run(struct wrep *w,
		   const struct wrep_item *item); /* true: a fence could not be closed yet */
void wrep_caught_up_run(struct wrep *w);

#endif
