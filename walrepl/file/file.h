/* Requests for files, and what they share. */
#ifndef WALREPL_FILE_FILE_H
#define WALREPL_FILE_FILE_H

#include "db/db.h"

/* An open that had to wait: as wrep_file_open(), but what it returns is for wrep_op_finish_open(). */
int wrep_file_open_again(struct wrep_file *f, int flags, struct wrep_op *op);

#endif
