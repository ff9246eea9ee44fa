/* Requests for files, and what they share. */
#ifndef WALREPL_FILE_FILE_H
#define WALREPL_FILE_FILE_H

#include "db/db.h"

/* An open that met others waits until they are gone (postponed.h). WREP_PENDING or -errno. No lock held. */
int wrep_postpone_open(struct wrep_file *f, int flags, struct wrep_op *op);

#endif
