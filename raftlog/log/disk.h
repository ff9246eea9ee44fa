/* The disk beneath the log: one directory. The simulator has one of its own. */
#ifndef RAFTLOG_DISK_H
#define RAFTLOG_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* All functions return 0 / a count / a handle, or -errno. Names are relative to the directory. */
struct rlog_disk {
	/* Open (or make, `create`, exclusively) a file for direct, synchronous-data I/O. The handle
	 * is >= 0; for the real disk it is a file descriptor with O_DIRECT. */
	int (*open)(struct rlog_disk *d, const char *name, bool create);
	int (*close)(struct rlog_disk *d, int handle);
	int64_t (*size)(struct rlog_disk *d, int handle);
	/* Buffers, offsets and lengths are multiples of RLOG_BLOCK. Short counts only at end of file
	 * (pread); pwritev is all or -errno, and durable when it returns (RWF_DSYNC). */
	int64_t (*pread)(struct rlog_disk *d, int handle, void *buf, size_t len, uint64_t off);
	int64_t (*pwritev)(struct rlog_disk *d, int handle, const struct iovec *iov, int iov_count,
			   uint64_t off);
	int (*rename)(struct rlog_disk *d, const char *from, const char *to);  /* -EEXIST */
	int (*replace)(struct rlog_disk *d, const char *from, const char *to); /* or in its place */
	int (*unlink)(struct rlog_disk *d, const char *name);
	int (*sync_dir)(struct rlog_disk *d);
	/* Bytes that are free, or NULL: not known. */
	uint64_t (*space)(struct rlog_disk *d);
	/* Calls `each` for every name; the order is not defined. */
	int (*list)(struct rlog_disk *d, void (*each)(void *arg, const char *name), void *arg);
};

#define RLOG_BLOCK 4096

/* The real thing: the directory `path`. */
int rlog_disk_open(struct rlog_disk **out, const char *path);
/* The same, where every call that would change something returns -EROFS. */
int rlog_disk_open_read_only(struct rlog_disk **out, const char *path);
void rlog_disk_close(struct rlog_disk *d);

#endif
