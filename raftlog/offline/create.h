/* The directory of a log, as a whole. Private to raftlog. */
#ifndef RAFTLOG_CREATE_H
#define RAFTLOG_CREATE_H

#include "log/disk.h"
#include "raftlog.h"

/* Make the names in the directory that `path` lies in durable. 0 or -errno. */
int rlog_directory_sync_parent(const char *path);
/* Remove the directory `path`, if there is one, and its files; nothing is beneath. 0 or -errno. */
int rlog_directory_remove(const char *path);

#endif
