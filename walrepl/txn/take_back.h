/* What no transaction has committed is taken back. */
#ifndef WALREPL_TXN_TAKE_BACK_H
#define WALREPL_TXN_TAKE_BACK_H

#include "db/db.h"

/* All lose the database, if somebody is writing to it. False: nobody is, or it has come to wait for Raft. [applier] */
bool wrep_take_back(struct wrep_db *db);
/* Again, if the mount is gone: see wrep_unmounted(). [any thread] */
void wrep_take_back_tick(struct wrep *w);

#endif
