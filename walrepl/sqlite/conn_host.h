/* The files that a connection stands on, and whom it tells of changes: given by whoever opens it. Private to
 * walrepl. All calls come from the connection's thread.
 */
#ifndef WALREPL_SQLITE_CONN_HOST_H
#define WALREPL_SQLITE_CONN_HOST_H

#include <stdint.h>
#include "walrepl.h"

struct wrep_conn_host {
	int data_fd, shm_fd; /* directories of the backing files */
	/* As in struct wrep_host; names as in the mount. A file descriptor or -errno. */
	int (*mounted_open)(void *ctx, const char *name, int flags);
	/* Drop what the kernel keeps of the WREP_DB or WREP_WAL, before SQLite goes on. */
	void (*invalidate)(void *ctx, enum wrep_kind kind, uint64_t off, uint64_t len);
	/* As in struct wrep_host, of one of these. `fd`: of mounted_open. */
	int (*settle)(void *ctx, enum wrep_kind kind, int fd);
	/* The backing file of the WREP_WAL or WREP_SHM was unlinked, because the database left WAL
	 * mode. Nobody has the database open. May be NULL. */
	void (*removed)(void *ctx, enum wrep_kind kind);
	void *ctx;
};

#endif
