/* An application opens a file. */
#ifndef WALREPL_FILE_OPEN_H
#define WALREPL_FILE_OPEN_H

#include "db/db.h"

/* `f` may be NULL: a database whose CREATE is still on its way through the applier. */
int wrep_file_open_with(struct wrep_db *db, struct wrep_file *f, int flags, bool internal,
			struct wrep_op *op);
/* An open that met others waits until they are gone (postponed.h). WREP_PENDING or -errno. No lock held. */
int wrep_postpone_open(struct wrep_file *f, int flags, struct wrep_op *op);

#endif
