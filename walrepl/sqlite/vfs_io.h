/* Reading and writing a database and its -wal: sqlite3_io_methods of vfs.c's files. Private to vfs.c.
 *
 * The files are the backing ones. Each write is invalidated in the kernel's cache before the call
 * returns. Results are SQLite's.
 */
#ifndef WALREPL_SQLITE_VFS_IO_H
#define WALREPL_SQLITE_VFS_IO_H

#include <sqlite3.h>

int wrep_vfs_read(sqlite3_file *file, void *buf, int len, sqlite3_int64 off);
int wrep_vfs_write(sqlite3_file *file, const void *buf, int len, sqlite3_int64 off);
int wrep_vfs_truncate(sqlite3_file *file, sqlite3_int64 size);
int wrep_vfs_sync(sqlite3_file *file, int flags);
int wrep_vfs_size(sqlite3_file *file, sqlite3_int64 *size);

#endif
