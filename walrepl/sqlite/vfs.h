/* The files and the locks beneath the daemon's own SQLite connection to one database. Private to
 * walrepl; used by conn.c alone, and like it by one thread.
 *
 * SQLite reads, writes and maps the backing files in the data directory. It locks the same files opened
 * through the mount, because only there do its locks meet those of applications. The locks are OFD locks: they belong to the descriptor, neither to the process nor
 * to whoever else in it opens and closes the same file.
 *
 * (A child process that keeps the descriptors keeps the locks: they are all close-on-exec.)
 *
 * On the same descriptors conn.c holds locks of its own (the fence, and those for writing the
 * database directly). The kernel sees the union: what SQLite gives back stays locked while it is
 * held here, and the other way round.
 */
#ifndef WALREPL_SQLITE_VFS_H
#define WALREPL_SQLITE_VFS_H

#include "sqlite/conn_host.h"

struct wrep_vfs;

/* Opens the backing database and, through the mount, the file to lock. 0 or -errno. */
int wrep_vfs_open(struct wrep_vfs **out, const char *name, const struct wrep_conn_host *host);
/* The SQLite connection is closed already. Drops every lock. */
void wrep_vfs_close(struct wrep_vfs *v);

/* For sqlite3_open_v2(): the file name and the name of the VFS that serves this database only. */
const char *wrep_vfs_filename(const struct wrep_vfs *v);
const char *wrep_vfs_name(const struct wrep_vfs *v);

/* SQLITE_CANTOPEN: for lack of descriptors (-EMFILE, -ENFILE)? Or because the file went just then (-EBUSY)? Else 0. */
int wrep_vfs_shortage(const struct wrep_vfs *v);

/* A call beneath SQLite that failed. */
struct wrep_vfs_failure {
	const char *call; /* NULL: none has */
	int error;	  /* an errno; 0: the call did too little */
	int code;	  /* SQLite was told */
};

/* The last failure since this was called before. */
struct wrep_vfs_failure wrep_vfs_take_failure(struct wrep_vfs *v);

/* The backing database; owned by the VFS. */
int wrep_vfs_database_fd(const struct wrep_vfs *v);

#endif
