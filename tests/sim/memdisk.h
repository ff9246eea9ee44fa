/* A disk in memory that loses what a real one may lose: a `struct rlog_disk` for tests.
 *
 * The model. A synchronous write is durable when it returns. A write that power fails in, or that
 * was started (memdisk_write_start) and not finished, leaves any subset of its sectors. Creating,
 * renaming and unlinking are durable after sync_dir; a crash before that keeps them up to any
 * point, in order. Everything random comes from the seed. One thread. */
#ifndef TESTS_MEMDISK_H
#define TESTS_MEMDISK_H

#include "log/disk.h"
#include "log/log.h"

#define MEMDISK_SECTOR 512

struct memdisk;

struct memdisk *memdisk_new(uint64_t seed);
/* The same durable content, no open handles, no faults; to try many crashes from one state. */
struct memdisk *memdisk_clone(const struct memdisk *m, uint64_t seed);
void memdisk_free(struct memdisk *m);
struct rlog_disk *memdisk_disk(struct memdisk *m);

/* Power off and on: what was not durable is lost, handles are dead (-EBADF for ever), and faults
 * that were set are gone. */
void memdisk_crash(struct memdisk *m);

/* Faults, for the changing calls (create, pwritev, rename, unlink, sync_dir), counted from now, 1
 * is the next one. */
void memdisk_fail_at(struct memdisk *m, unsigned call, int err); /* once, without effect */
/* That call has some or none of its effect and fails, and everything after it fails, with -EIO,
 * until memdisk_crash(). */
void memdisk_power_fail_at(struct memdisk *m, unsigned call);
bool memdisk_is_off(const struct memdisk *m);
unsigned memdisk_changes(const struct memdisk *m);	      /* changing calls so far */
void memdisk_set_capacity(struct memdisk *m, uint64_t bytes); /* then growing is -ENOSPC; 0: none */

/* A write as the log prepares it, done later. One at a time. */
void memdisk_write_start(struct memdisk *m, const struct rlog_log_write *w);
bool memdisk_write_pending(const struct memdisk *m);
int64_t memdisk_write_finish(struct memdisk *m); /* the result for rlog_log_write_end() */
size_t memdisk_write_sectors(const struct memdisk *m);
/* Power off and on with exactly the sectors for which `keep` is true written. */
void memdisk_crash_keeping(struct memdisk *m, bool (*keep)(void *arg, size_t sector), void *arg);

/* Looking and damaging, from outside. Sizes and bytes of files that do not exist are -1. */
int64_t memdisk_file_size(const struct memdisk *m, const char *name);
int memdisk_file_byte(const struct memdisk *m, const char *name, uint64_t offset);
void memdisk_file_flip(struct memdisk *m, const char *name, uint64_t offset, unsigned bit);
void memdisk_file_cut(struct memdisk *m, const char *name, uint64_t size);
void memdisk_file_remove(struct memdisk *m, const char *name);
void memdisk_file_copy(struct memdisk *m, const char *from, const char *to); /* replaces `to` */

#endif
