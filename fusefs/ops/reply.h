/* Answers that several operations give. */
#ifndef FUSEFS_REPLY_H
#define FUSEFS_REPLY_H

#include "mount/fuse.h"

/* Answers READ and GETATTR (of which the kernel makes one within a read behind the end that it knows).
 * SQLite takes EIO, ENXIO and ERANGE of a read for a damaged file system and reports SQLITE_CORRUPT (unixRead()
 * in its os_unix.c), and there are applications that remove the database then, on all nodes. Nothing that
 * ends a read here is cured by that, a bad sector of this node's disk included: they get EBADMSG instead,
 * a plain I/O error. */
void fsd_reply_read_err(fuse_req_t req, int rv);

/* EPERM, and a log line that names the rule. */
void fsd_refuse(fuse_req_t req, const char *what, const char *name);

#endif
