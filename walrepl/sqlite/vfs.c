/* The VFS of the daemon's own SQLite connections.
 *
 * In the good case: conn.c opens a database in WAL mode. SQLite asks for the main file (ours
 * already), takes SHARED on it, finds in page 1 that it is in WAL mode, opens the -wal, maps the
 * -shm. From then on SHARED stays, as with any connection to a WAL database, and each transaction
 * is a handful of locks in the -shm, some writes to the -wal and stores to the mapped wal-index.
 *
 * That SHARED is also why the descriptors of the -wal and the -shm never go stale: the last closer
 * of a WAL database deletes both only after it got EXCLUSIVE on the database, which it does not get
 * while we are here. The same holds for leaving WAL mode. So an application cannot do either while
 * the daemon is attached; it finds the database locked, as beside any other connection.
 *
 * Not here: journals and temporary files. The connection writes nothing but WAL transactions and
 * checkpoints; the open of any other file is refused. There is also no fsync: what these files hold
 * can be made again from the Raft log, and who needs the database itself durable syncs it.
 */
#include "sqlite/vfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sqlite3.h>

#include "sqlite/file_format.h"
#include "sqlite/vfs_file.h"
#include "sqlite/vfs_io.h"
#include "sqlite/vfs_lock.h"

/* ---- files ---- */

static int vfs_control(sqlite3_file *file, int op, void *arg)
{
	(void)file;
	(void)op;
	(void)arg;
	return SQLITE_NOTFOUND;
}

static int vfs_sector(sqlite3_file *file)
{
	(void)file;
	return 4096;
}

static int vfs_characteristics(sqlite3_file *file)
{
	(void)file;
	return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static int main_close(sqlite3_file *file)
{
	wrep_vfs_unlock(file,
			SQLITE_LOCK_NONE); /* SQLite leaves SHARED to us, and the file stays open */
	wrep_vfs_detach(((struct wrep_vfs_file *)file)->v);
	return SQLITE_OK;
}

static int wal_close(sqlite3_file *file)
{
	struct wrep_vfs_file *f = (struct wrep_vfs_file *)file;

	close(f->mounted_fd);
	close(f->fd);
	return SQLITE_OK;
}

static const sqlite3_io_methods main_methods = {
	.iVersion = 2,
	.xClose = main_close,
	.xRead = wrep_vfs_read,
	.xWrite = wrep_vfs_write,
	.xTruncate = wrep_vfs_truncate,
	.xSync = wrep_vfs_sync,
	.xFileSize = wrep_vfs_size,
	.xLock = wrep_vfs_lock,
	.xUnlock = wrep_vfs_unlock,
	.xCheckReservedLock = wrep_vfs_check_reserved,
	.xFileControl = vfs_control,
	.xSectorSize = vfs_sector,
	.xDeviceCharacteristics = vfs_characteristics,
	.xShmMap = wrep_vfs_shm_map,
	.xShmLock = wrep_vfs_shm_lock,
	.xShmBarrier = wrep_vfs_shm_barrier,
	.xShmUnmap = wrep_vfs_shm_unmap,
};

static const sqlite3_io_methods wal_methods = {
	.iVersion = 1,
	.xClose = wal_close,
	.xRead = wrep_vfs_read,
	.xWrite = wrep_vfs_write,
	.xTruncate = wrep_vfs_truncate,
	.xSync = wrep_vfs_sync,
	.xFileSize = wrep_vfs_size,
	.xLock = wrep_vfs_lock, /* SQLite locks no -wal */
	.xUnlock = wrep_vfs_unlock,
	.xCheckReservedLock = wrep_vfs_check_reserved,
	.xFileControl = vfs_control,
	.xSectorSize = vfs_sector,
	.xDeviceCharacteristics = vfs_characteristics,
};

/* An application must be able to open the -wal that we made: it belongs to whom the database
 * belongs to, as os_unix.c's findCreateFileMode() has it. Only root can give it away; without that,
 * whoever runs the daemon owns both. */
static int wal_open(struct wrep_vfs *v)
{
	int fd = openat(v->host.data_fd, v->wal_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd >= 0 || errno != ENOENT)
		return fd;
	if (fstat(v->db_fd, &st))
		return -1;
	fd = openat(v->host.data_fd, v->wal_name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -1;
	if (geteuid() == 0 && fchown(fd, st.st_uid, st.st_gid))
		goto fail;
	if (fchmod(fd, st.st_mode & 0777)) /* the umask has no say in it */
		goto fail;
	return fd;
fail:
	close(fd);
	return -1;
}

static int vfs_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *file, int flags,
		    int *out_flags)
{
	struct wrep_vfs *v = vfs->pAppData;
	struct wrep_vfs_file *f = (struct wrep_vfs_file *)file;

	(void)name;
	*f = (struct wrep_vfs_file){.v = v, .fd = -1};
	if (flags & SQLITE_OPEN_MAIN_DB) {
		f->fd = v->db_fd;
		f->mounted_fd = v->db_lock_fd;
		f->kind = WREP_DB;
		f->base.pMethods = &main_methods;
	} else if (flags & SQLITE_OPEN_WAL) {
		f->fd = wal_open(v);
		wrep_vfs_opened(v, "open of the -wal", f->fd < 0 ? -errno : 0);
		if (f->fd < 0)
			return SQLITE_CANTOPEN;
		f->mounted_fd =
			v->host.mounted_open(v->host.ctx, v->wal_name, O_RDONLY | O_CLOEXEC);
		wrep_vfs_opened(v, "open of the mounted -wal", f->mounted_fd);
		if (f->mounted_fd < 0) {
			close(f->fd);
			return SQLITE_CANTOPEN;
		}
		f->kind = WREP_WAL;
		f->base.pMethods = &wal_methods;
	} else {
		return SQLITE_CANTOPEN;
	}
	if (out_flags)
		*out_flags = flags;
	return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync_dir)
{
	(void)vfs;
	(void)name;
	(void)sync_dir;
	return SQLITE_IOERR_DELETE;
}

/* SQLite asks whether there is a journal to roll back and whether there is a -wal. A journal that
 * lies there belongs to an application's transaction; what of it is committed is not decided
 * here. */
static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
	struct wrep_vfs *v = vfs->pAppData;

	(void)flags;
	*out = name[0] == '/' && strcmp(name + 1, v->wal_name) == 0 &&
	       faccessat(v->host.data_fd, v->wal_name, F_OK, 0) == 0;
	return SQLITE_OK;
}

static int vfs_full_pathname(sqlite3_vfs *vfs, const char *name, int size, char *out)
{
	(void)vfs;
	return snprintf(out, (size_t)size, "%s", name) < size ? SQLITE_OK : SQLITE_CANTOPEN;
}

static int vfs_randomness(sqlite3_vfs *vfs, int len, char *out)
{
	(void)vfs;
	return (int)getrandom(out, (size_t)len, 0);
}

/* SQLite sleeps only where a lock that should be free in an instant is not (walTryBeginRead), a
 * hundred times, up to ten seconds in all, and then says SQLITE_PROTOCOL. The applier has other
 * databases to serve and comes back: a tenth of a second is enough. */
static int vfs_sleep(sqlite3_vfs *vfs, int microseconds)
{
	struct timespec t = {.tv_nsec = (microseconds < 1000 ? microseconds : 1000) * 1000L};

	(void)vfs;
	nanosleep(&t, NULL);
	return microseconds;
}

static int vfs_now_ms(sqlite3_vfs *vfs, sqlite3_int64 *out)
{
	struct timespec t;

	(void)vfs;
	clock_gettime(CLOCK_REALTIME, &t);
	/* the Julian day number of 1970-01-01 is 2440587.5 */
	*out = 210866760000000 + (sqlite3_int64)t.tv_sec * 1000 + t.tv_nsec / 1000000;
	return SQLITE_OK;
}

static int vfs_now(sqlite3_vfs *vfs, double *out)
{
	sqlite3_int64 ms;

	vfs_now_ms(vfs, &ms);
	*out = (double)ms / 86400000.0;
	return SQLITE_OK;
}

static int vfs_last_error(sqlite3_vfs *vfs, int size, char *out)
{
	(void)vfs;
	(void)size;
	(void)out;
	return errno;
}

int wrep_vfs_open(struct wrep_vfs **out, const char *name, const struct wrep_conn_host *host)
{
	struct wrep_vfs *v = calloc(1, sizeof(*v));
	int r = -ENOMEM;

	if (!v)
		return -ENOMEM;
	v->host = *host;
	v->db_fd = v->db_lock_fd = v->shm_fd = v->shm_lock_fd = -1;
	if (asprintf(&v->filename, "/%s", name) < 0) {
		v->filename = NULL;
		goto fail;
	}
	v->name = v->filename + 1;
	if (asprintf(&v->wal_name, "%s%s", name, wrep_kind_suffix(WREP_WAL)) < 0) {
		v->wal_name = NULL;
		goto fail;
	}
	if (asprintf(&v->shm_name, "%s%s", name, wrep_kind_suffix(WREP_SHM)) < 0) {
		v->shm_name = NULL;
		goto fail;
	}
	v->db_fd = openat(host->data_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (v->db_fd < 0) {
		r = -errno;
		goto fail;
	}
	r = host->mounted_open(host->ctx, name, O_RDWR | O_CLOEXEC);
	if (r < 0)
		goto fail;
	v->db_lock_fd = r;

	/* One VFS per database: that is how SQLite's calls find their way back here. */
	snprintf(v->vfs_name, sizeof(v->vfs_name), "dqlitefs-%p", (void *)v);
	v->base = (sqlite3_vfs){
		.iVersion = 2,
		.szOsFile = sizeof(struct wrep_vfs_file),
		.mxPathname = PATH_MAX,
		.zName = v->vfs_name,
		.pAppData = v,
		.xOpen = vfs_open,
		.xDelete = vfs_delete,
		.xAccess = vfs_access,
		.xFullPathname = vfs_full_pathname,
		.xRandomness = vfs_randomness,
		.xSleep = vfs_sleep,
		.xCurrentTime = vfs_now,
		.xGetLastError = vfs_last_error,
		.xCurrentTimeInt64 = vfs_now_ms,
	};
	if (sqlite3_vfs_register(&v->base, 0)) {
		v->base.zName = NULL;
		r = -ENOMEM;
		goto fail;
	}
	*out = v;
	return 0;
fail:
	wrep_vfs_close(v);
	return r;
}

void wrep_vfs_close(struct wrep_vfs *v)
{
	if (!v)
		return;
	if (v->base.zName)
		sqlite3_vfs_unregister(&v->base);
	wrep_vfs_detach(v);
	if (v->db_lock_fd >= 0)
		close(v->db_lock_fd);
	if (v->db_fd >= 0)
		close(v->db_fd);
	free(v->shm_name);
	free(v->wal_name);
	free(v->filename);
	free(v);
}

const char *wrep_vfs_filename(const struct wrep_vfs *v)
{
	return v->filename;
}

const char *wrep_vfs_name(const struct wrep_vfs *v)
{
	return v->vfs_name;
}

int wrep_vfs_database_fd(const struct wrep_vfs *v)
{
	return v->db_fd;
}

int wrep_vfs_shortage(const struct wrep_vfs *v)
{
	return v->shortage;
}

struct wrep_vfs_failure wrep_vfs_take_failure(struct wrep_vfs *v)
{
	struct wrep_vfs_failure last = v->failure;

	v->failure = (struct wrep_vfs_failure){0};
	return last;
}
