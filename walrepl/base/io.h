/* Whole reads and writes of files, and the clock. Private to walrepl. */
#ifndef WALREPL_BASE_IO_H
#define WALREPL_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Read at most `len` bytes; fewer only at the end of the file. Their number, or -errno. */
ssize_t wrep_read_some(int fd, void *buf, size_t len, uint64_t off);
/* 0; -EIO when the file ends before; -errno. */
int wrep_read_exact(int fd, void *buf, size_t len, uint64_t off);
/* 0 or -errno: then some of it may have been written. */
int wrep_write_all(int fd, const void *buf, size_t len, uint64_t off);

/* Is it space, or descriptors, that an attempt lacked? Then it is worth another one after a while. */
bool wrep_is_shortage(int rc);

uint64_t wrep_now_ms(void); /* of a clock that only goes forward */

#endif
