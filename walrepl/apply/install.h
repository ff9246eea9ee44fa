/* Transactions of applications here go into the files. */
#ifndef WALREPL_APPLY_INSTALL_H
#define WALREPL_APPLY_INSTALL_H

#include "base/work.h"
#include "db/spool.h"

struct wrep_commit;

/* It took effect: its pages belong into the files, then its application is told. Takes both; `spool` may be NULL.
 * No lock held. [raftlog's thread] */
void wrep_install_queue(struct wrep_commit *c, struct wrep_spool *spool);
extern const struct wrep_work_ops
	wrep_install_multi_ops; /* the same of several: a struct wrep_multi */

#endif
