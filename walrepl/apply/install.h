/* Transactions of applications here go into the files. [applier, no lock held] */
#ifndef WALREPL_APPLY_INSTALL_H
#define WALREPL_APPLY_INSTALL_H

#include "base/work.h"

void wrep_install(struct wrep *w, struct wrep_item *item);
void wrep_install_group(struct wrep *w, struct wrep_item *item);

#endif
