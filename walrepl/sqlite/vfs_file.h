/* One database and its open files, as SQLite's calls find them: for the vfs*.c alone. Its one thread owns all
 * of it (vfs.h).
 */
#ifndef WALREPL_SQLITE_VFS_FILE_H
#define WALREPL_SQLITE_VFS_FILE_H

#include <errno.h>
#include <stdbool.h>

#include <sqlite3.h>

#include "sqlite/conn_host.h"
#include "sqlite/vfs.h"

struct wrep_vfs {
	sqlite3_vfs base; /* registered under vfs_name; base.pAppData is this struct */
	char vfs_name[32];
	char *filename; /* "/" and the name: never a URI, never ":memory:" */
	const char *name;
	char *wal_name, *shm_name;
	struct wrep_conn_host host;

	int db_fd;	/* backing */
	int db_lock_fd; /* mounted */
	bool shared;	/* SQLite holds SHARED */
	unsigned held;	/* WREP_HOLD_*, conn.c's */

	int shm_fd;	 /* backing; -1 while SQLite is not attached to the wal-index */
	int shm_lock_fd; /* mounted */
	unsigned shm_shared, shm_exclusive; /* SQLite's locks, a bit each */
	bool keep_wal;
	int shortage; /* the last open failed for it: -EMFILE, -ENFILE, -EBUSY, or 0 */
	struct wrep_vfs_failure failure; /* the last one that nobody took */
	void **regions;
	int region_count, region_size;
};

/* One open file of SQLite's. Its size is what szOsFile tells SQLite to allocate. */
struct wrep_vfs_file {
	sqlite3_file base;
	struct wrep_vfs *v;
	int fd;
	int mounted_fd;	     /* the same file through the mount; owned only for the -wal */
	sqlite3_int64 known; /* the kernel knows the mounted file to be at least this long */
	enum wrep_kind kind; /* WREP_DB or WREP_WAL */
};

/* Keep which call failed, and with which error (an errno, or 0: it did too little); SQLite is told `code` alone,
 * which returns. */
static inline int wrep_vfs_fails(struct wrep_vfs *v, const char *call, int error, int code)
{
	v->failure = (struct wrep_vfs_failure){.call = call, .error = error, .code = code};
	return code;
}

/* Keep why an open failed (0: it did not); all that SQLite is told is SQLITE_CANTOPEN. */
static inline void wrep_vfs_opened(struct wrep_vfs *v, const char *call, int error)
{
	if (error == -ENOENT || error == -ESTALE)
		v->shortage = -EBUSY; /* an application has just removed the file */
	else
		v->shortage = error == -EMFILE || error == -ENFILE ? error : 0;
	if (error < 0)
		wrep_vfs_fails(v, call, -error, SQLITE_CANTOPEN);
}

#endif
