/* Holders of POSIX locks on files of the mount. The kernel keeps the locks, and is asked. */
#ifndef FUSEFS_LOCKS_H
#define FUSEFS_LOCKS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A file of the mount: the minor number of its device, whose major is 0, and its inode's number. */
struct fsd_locked_file {
	unsigned device;
	uint64_t number;
};

/* The process that holds a write lock on byte `byte`; 0: nobody; -1: one of another pid namespace. Reads
 * the locks of the whole machine. [any thread] */
pid_t fsd_lock_holder(const struct fsd_locked_file *file, uint64_t byte);

/* May process `pid` hold it? Only what is certain gives false. Asks about the files of that process alone.
 * [any thread] */
bool fsd_lock_may_be_held(const struct fsd_locked_file *file, uint64_t byte, pid_t pid);

/* Has it a descriptor of the file? [any thread] */
bool fsd_has_open(const struct fsd_locked_file *file, pid_t pid);

#endif
