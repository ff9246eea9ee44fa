/* The abilities of the kernel's FUSE, asked before anything is mounted or written. */
#ifndef FUSEFS_KERNEL_H
#define FUSEFS_KERNEL_H

#include <stdbool.h>
#include "node/errmsg.h"

enum fsd_uring { FSD_URING_AUTO, FSD_URING_ON, FSD_URING_OFF };

/* Is /dev/fuse there, and does the kernel have FUSE passthrough? 0, or -errno with one line. */
int fsd_kernel_check(char errmsg[FSD_ERRMSG_SIZE]);

/* Shall requests go over io_uring? FSD_URING_ON switches the kernel's parameter on. `*use` gets the
 * answer; 0, or -errno with one line when it was asked for and cannot be. */
int fsd_kernel_uring(enum fsd_uring wish, bool *use, char errmsg[FSD_ERRMSG_SIZE]);

/* A directory on a tmpfs of our own, mounted nowhere: it goes with the process. A descriptor, or
 * -errno with one line. */
int fsd_kernel_tmpfs(char errmsg[FSD_ERRMSG_SIZE]);

/* The file that aborts a FUSE connection when something is written to it: all its requests fail
 * then. It belongs to this connection for as long as it is open, not to its number. Safe to call in
 * the fork of a process with threads. A descriptor or -errno. */
int fsd_kernel_open_abort(unsigned connection);

#endif
