/* Being told of POSIX lock calls on files of the mount: the kernel's tracepoint filelock:posix_lock_inode.
 *
 * The locks are the kernel's, no request tells of them. While this is on, each call on the mount's device that
 * covers a certain byte leaves a record in a ring of the CPU that made it, before the call returns; and every
 * lock call on the machine costs a little more (docs/architecture.md). So it is on only while somebody needs it.
 */
#ifndef FUSEFS_LOCKTRACE_H
#define FUSEFS_LOCKTRACE_H

#include <stdint.h>
#include "walrepl.h"

struct fsd_locktrace;

/* Off. NULL: out of memory. */
struct fsd_locktrace *fsd_locktrace_new(void);
void fsd_locktrace_free(struct fsd_locktrace *t);

/* Tell `each` of all calls (or, with NULL: the kernel had no room for some) that touch byte `byte` of a file of the device (its minor number; its major is 0)
 * from now on. 0, or -errno: this kernel does not tell, or not us. On, off and wait are one thread's.
 * `each` may take no lock that is held around fsd_locktrace_read(). */
int fsd_locktrace_on(struct fsd_locktrace *t, unsigned device, uint64_t byte,
		     void (*each)(void *ctx, const struct wrep_lock_call *call), void *ctx);
void fsd_locktrace_off(struct fsd_locktrace *t);

/* All calls that had returned when this was called have been told when it returns, while it is on. Does not
 * wait but for another reader. [any thread] */
void fsd_locktrace_read(struct fsd_locktrace *t);

/* The same, after waiting for a call. */
void fsd_locktrace_wait(struct fsd_locktrace *t, int timeout_ms);

#endif
