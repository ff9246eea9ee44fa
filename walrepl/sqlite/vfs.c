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
 * The -shm is one file seen on two ways: its backing file is what we map and size, and its name in
 * the mount, which the kernel passes through to the same backing file, is what we lock.
 *
 *	byte of the -shm    120      121    122      123..127    128
 *	lock                WRITE    CKPT   RECOVER  READ(0..4)  dead-man switch
 *
 * Whoever attaches while nobody holds the dead-man switch truncates the -shm: what the dead left is
 * not trusted. All who are attached hold it shared. So does the daemon, through the mount, or an
 * application would believe itself alone and empty the wal-index under it.
 *
 * SQLite's own unix VFS could not do this: it locks the descriptor it writes to, and with locks of
 * the process, which any close() of the same file in this process would drop.
 *
 * Not here: journals and temporary files. The connection writes nothing but WAL transactions and
 * checkpoints; the open of any other file is refused. There is also no fsync: what these files hold
 * can be made again from the Raft log, and who needs the database itself durable syncs it.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sqlite3.h>

#include "sqlite/vfs.h"

#define PENDING_BYTE 0x40000000
#define RESERVED_BYTE (PENDING_BYTE + 1)
#define SHARED_FIRST (PENDING_BYTE + 2)
#define SHARED_SIZE 510

#define SHM_LOCK_BASE 120 /* the byte of SQLite's lock 0, which is the write lock */
#define SHM_WRITE 0
#define SHM_CKPT 1
#define SHM_DMS (SHM_LOCK_BASE + SQLITE_SHM_NLOCK)

#define SHM_TRUNCATED 3 /* what SQLite leaves of a -shm that nobody uses: shorter than a header */

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
	int shortage; /* the last open failed for it: -EMFILE, -ENFILE, or 0 */
	void **regions;
	int region_count, region_size;
};

/* One open file of SQLite's. Its size is what szOsFile tells SQLite to allocate. */
struct vfs_file {
	sqlite3_file base;
	struct wrep_vfs *v;
	int fd;
	int mounted_fd;	     /* the same file through the mount; owned only for the -wal */
	sqlite3_int64 known; /* the kernel knows the mounted file to be at least this long */
	const char *suffix;  /* as conn.h's invalidate() takes it */
};

/* ---- byte locks ---- */

/* type: F_RDLCK, F_WRLCK, F_UNLCK. 0, -EBUSY, -errno; never waits. */
static int byte_lock(int fd, short type, off_t start, off_t len)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	while (fcntl(fd, F_OFD_SETLK, &l)) {
		if (errno == EINTR)
			continue;
		return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
	}
	return 0;
}

static int lock_rc(int r, int ioerr)
{
	return r == 0 ? SQLITE_OK : r == -EBUSY ? SQLITE_BUSY : ioerr;
}

int wrep_vfs_hold(struct wrep_vfs *v, unsigned lock)
{
	int r;

	if (v->held & lock)
		return 0;
	switch (lock) {
	case WREP_HOLD_RESERVED:
		r = byte_lock(v->db_lock_fd, F_WRLCK, RESERVED_BYTE, 1);
		break;
	case WREP_HOLD_PENDING:
		r = byte_lock(v->db_lock_fd, F_WRLCK, PENDING_BYTE, 1);
		break;
	case WREP_HOLD_EXCLUSIVE:
		assert(v->held & WREP_HOLD_PENDING);
		r = byte_lock(v->db_lock_fd, F_WRLCK, SHARED_FIRST, SHARED_SIZE);
		break;
	case WREP_HOLD_WAL_WRITE:
		assert(v->shm_lock_fd >= 0);
		/* SQLite never holds it between its transactions */
		assert(!(v->shm_exclusive & 1u << SHM_WRITE));
		r = byte_lock(v->shm_lock_fd, F_WRLCK, SHM_LOCK_BASE + SHM_WRITE, 1);
		break;
	default:
		assert(!"one lock at a time");
		return -EINVAL;
	}
	if (r == 0)
		v->held |= lock;
	return r;
}

void wrep_vfs_drop(struct wrep_vfs *v, unsigned locks)
{
	locks &= v->held;
	v->held &= ~locks;
	/* Dropping a lock cannot fail for a reason that leaves it held. */
	if (locks & WREP_HOLD_EXCLUSIVE)
		byte_lock(v->db_lock_fd, v->shared ? F_RDLCK : F_UNLCK, SHARED_FIRST, SHARED_SIZE);
	if (locks & WREP_HOLD_PENDING)
		byte_lock(v->db_lock_fd, F_UNLCK, PENDING_BYTE, 1);
	if (locks & WREP_HOLD_RESERVED)
		byte_lock(v->db_lock_fd, F_UNLCK, RESERVED_BYTE, 1);
	if (locks & WREP_HOLD_WAL_WRITE && !(v->shm_exclusive & 1u << SHM_WRITE))
		byte_lock(v->shm_lock_fd, F_UNLCK, SHM_LOCK_BASE + SHM_WRITE, 1);
}

unsigned wrep_vfs_held(const struct wrep_vfs *v)
{
	return v->held;
}

/* ---- reading and writing ---- */

static int vfs_read(sqlite3_file *file, void *buf, int len, sqlite3_int64 off)
{
	struct vfs_file *f = (struct vfs_file *)file;
	char *p = buf;

	while (len > 0) {
		ssize_t n = pread(f->fd, p, (size_t)len, off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return SQLITE_IOERR_READ;
		if (n == 0) {
			memset(p, 0, (size_t)len);
			return SQLITE_IOERR_SHORT_READ;
		}
		p += n;
		len -= (int)n;
		off += n;
	}
	return SQLITE_OK;
}

#define WAL_GROWTH (1 << 20)
#define LEARN_TRIES 10000

/* Make the file at least `end` long, and let the kernel know before anybody may need to.
 *
 * A reader that reads behind the size that the kernel knows makes it ask for the size; but the answer
 * is dropped when an invalidation came in between, and then the read ends short: of the -wal an I/O
 * error, of the database a page of zeros. In a storm of applies that happens. So the size grows
 * first, in large steps for the -wal (SQLite does not mind what lies behind the last frame), and is
 * proven known, before the page and the wal-index that leads to it are written. (By statx(), which
 * takes no lock: lseek(SEEK_END) would wait for an application's change of the attributes, and that
 * may wait for us.) */
static int grow(struct vfs_file *f, sqlite3_int64 end)
{
	sqlite3_int64 want = end;
	struct statx known = {0};
	struct stat st;

	if (end <= f->known)
		return SQLITE_OK;
	if (*f->suffix)
		want = (end + WAL_GROWTH - 1) / WAL_GROWTH * WAL_GROWTH;
	if (fstat(f->fd, &st))
		return SQLITE_IOERR_FSTAT;
	if (st.st_size < want) {
		if (ftruncate(f->fd, want))
			return errno == ENOSPC || errno == EDQUOT ? SQLITE_FULL
								  : SQLITE_IOERR_TRUNCATE;
	} else {
		want = st.st_size;
	}
	f->v->host.invalidate(f->v->host.ctx, f->suffix, (uint64_t)end, (uint64_t)(want - end + 1));
	for (int i = 0; i < LEARN_TRIES && known.stx_size < (uint64_t)want; i++)
		/* ask; then see what the kernel kept of the answer */
		if (statx(f->mounted_fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_SIZE,
			  &known) ||
		    statx(f->mounted_fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE,
			  &known))
			return SQLITE_IOERR_FSTAT;
	if (known.stx_size < (uint64_t)want)
		return SQLITE_IOERR_FSTAT;
	f->known = want;
	return SQLITE_OK;
}

static int vfs_write(sqlite3_file *file, const void *buf, int len, sqlite3_int64 off)
{
	struct vfs_file *f = (struct vfs_file *)file;
	const char *p = buf;
	sqlite3_int64 at = off;
	int left = len, rc = grow(f, off + len);

	if (rc)
		return rc;
	while (left > 0) {
		ssize_t n = pwrite(f->fd, p, (size_t)left, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			rc = errno == ENOSPC || errno == EDQUOT ? SQLITE_FULL : SQLITE_IOERR_WRITE;
			break;
		}
		p += n;
		left -= (int)n;
		at += n;
	}
	/* also what was written of a write that failed */
	if (at > off)
		f->v->host.invalidate(f->v->host.ctx, f->suffix, (uint64_t)off,
				      (uint64_t)(at - off));
	return rc;
}

static int vfs_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	struct vfs_file *f = (struct vfs_file *)file;
	struct stat st;
	uint64_t lo, hi;

	if (fstat(f->fd, &st) || ftruncate(f->fd, size))
		return SQLITE_IOERR_TRUNCATE;
	if (f->known > size)
		f->known = size;
	lo = (uint64_t)(size < st.st_size ? size : st.st_size);
	hi = (uint64_t)(size < st.st_size ? st.st_size : size);
	if (lo < hi)
		f->v->host.invalidate(f->v->host.ctx, f->suffix, lo, hi - lo);
	return SQLITE_OK;
}

static int vfs_sync(sqlite3_file *file, int flags)
{
	(void)file;
	(void)flags;
	return SQLITE_OK;
}

static int vfs_size(sqlite3_file *file, sqlite3_int64 *size)
{
	struct vfs_file *f = (struct vfs_file *)file;
	struct stat st;

	if (fstat(f->fd, &st))
		return SQLITE_IOERR_FSTAT;
	*size = st.st_size;
	return SQLITE_OK;
}

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

/* ---- SQLite's locks on the database ---- */

/* SHARED is all that this connection ever needs, since it writes through the -wal only. What needs
 * more (rolling back a journal, leaving WAL mode, deleting the -wal with the last close) is not
 * this connection's business: busy. */
static int vfs_lock(sqlite3_file *file, int level)
{
	struct wrep_vfs *v = ((struct vfs_file *)file)->v;
	int r;

	if (level > SQLITE_LOCK_SHARED)
		return SQLITE_BUSY;
	if (v->shared || level == SQLITE_LOCK_NONE)
		return SQLITE_OK;
	/* Readers pass through PENDING, so that they queue behind a writer who waits for the old
	 * ones to leave. When that is us, it is held, and taking it shared would open it to all. */
	if (!(v->held & WREP_HOLD_PENDING)) {
		r = byte_lock(v->db_lock_fd, F_RDLCK, PENDING_BYTE, 1);
		if (r)
			return lock_rc(r, SQLITE_IOERR_LOCK);
	}
	r = 0;
	if (!(v->held & WREP_HOLD_EXCLUSIVE))
		r = byte_lock(v->db_lock_fd, F_RDLCK, SHARED_FIRST, SHARED_SIZE);
	if (!(v->held & WREP_HOLD_PENDING))
		byte_lock(v->db_lock_fd, F_UNLCK, PENDING_BYTE, 1);
	v->shared = r == 0;
	return lock_rc(r, SQLITE_IOERR_LOCK);
}

static int vfs_unlock(sqlite3_file *file, int level)
{
	struct wrep_vfs *v = ((struct vfs_file *)file)->v;
	int r = 0;

	if (level >= SQLITE_LOCK_SHARED || !v->shared)
		return SQLITE_OK;
	if (!(v->held & WREP_HOLD_EXCLUSIVE))
		r = byte_lock(v->db_lock_fd, F_UNLCK, SHARED_FIRST, SHARED_SIZE);
	v->shared = false;
	return r ? SQLITE_IOERR_UNLOCK : SQLITE_OK;
}

static int vfs_check_reserved(sqlite3_file *file, int *out)
{
	struct wrep_vfs *v = ((struct vfs_file *)file)->v;
	struct flock l = {.l_type = F_WRLCK,
			  .l_whence = SEEK_SET,
			  .l_start = RESERVED_BYTE,
			  .l_len = 1};

	*out = 1;
	if (v->held & WREP_HOLD_RESERVED)
		return SQLITE_OK;
	if (fcntl(v->db_lock_fd, F_OFD_GETLK, &l))
		return SQLITE_IOERR_CHECKRESERVEDLOCK;
	*out = l.l_type != F_UNLCK;
	return SQLITE_OK;
}

/* ---- the wal-index ---- */

/* os_unix.c's unixLockSharedMemory(). Somebody who has the switch exclusively is about to truncate;
 * he is not overtaken, since he may die just before he does. */
static int shm_dead_man_switch(struct wrep_vfs *v)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = SHM_DMS, .l_len = 1};
	int r;

	if (fcntl(v->shm_lock_fd, F_OFD_GETLK, &l))
		return SQLITE_IOERR_LOCK;
	if (l.l_type == F_WRLCK)
		return SQLITE_BUSY;
	if (l.l_type == F_UNLCK) {
		r = byte_lock(v->shm_lock_fd, F_WRLCK, SHM_DMS, 1);
		if (r)
			return lock_rc(r, SQLITE_IOERR_LOCK);
		if (ftruncate(v->shm_fd, SHM_TRUNCATED))
			return SQLITE_IOERR_SHMOPEN;
	}
	return lock_rc(byte_lock(v->shm_lock_fd, F_RDLCK, SHM_DMS, 1), SQLITE_IOERR_LOCK);
}

static void shm_close(struct wrep_vfs *v)
{
	for (int i = 0; i < v->region_count; i++)
		munmap(v->regions[i], (size_t)v->region_size);
	free(v->regions);
	v->regions = NULL;
	v->region_count = 0;
	if (v->shm_fd >= 0)
		close(v->shm_fd);
	if (v->shm_lock_fd >= 0)
		close(v->shm_lock_fd); /* the locks go with it */
	v->shm_fd = v->shm_lock_fd = -1;
	v->shm_shared = v->shm_exclusive = 0;
	v->held &= ~WREP_HOLD_WAL_WRITE;
}

/* SQLite knows no more of a failed open than that. */
static void opened(struct wrep_vfs *v, int error)
{
	v->shortage = error == -EMFILE || error == -ENFILE ? error : 0;
}

int wrep_vfs_shortage(const struct wrep_vfs *v)
{
	return v->shortage;
}

static int shm_open_locked(struct wrep_vfs *v)
{
	int rc;

	/* First through the mount, which makes the file when there is none. */
	v->shm_lock_fd =
		v->host.mounted_open(v->host.ctx, v->shm_name, O_RDWR | O_CREAT | O_CLOEXEC);
	opened(v, v->shm_lock_fd);
	if (v->shm_lock_fd < 0) {
		v->shm_lock_fd = -1;
		return SQLITE_CANTOPEN;
	}
	v->shm_fd = openat(v->host.shm_fd, v->shm_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	opened(v, v->shm_fd < 0 ? -errno : 0);
	rc = v->shm_fd < 0 ? SQLITE_CANTOPEN : shm_dead_man_switch(v);
	if (rc)
		shm_close(v);
	return rc;
}

/* Make the -shm at least `size` long. Allocating now is what keeps a full tmpfs from becoming a
 * SIGBUS at some later store. What is there already stays as it is. */
static int shm_extend(struct wrep_vfs *v, off_t size)
{
	int r;

	do
		r = posix_fallocate(v->shm_fd, 0, size);
	while (r == EINTR);
	return r ? SQLITE_IOERR_SHMSIZE : SQLITE_OK;
}

static int vfs_shm_map(sqlite3_file *file, int region, int size, int extend, void volatile **out)
{
	struct wrep_vfs *v = ((struct vfs_file *)file)->v;
	off_t want = ((off_t)region + 1) * size;
	struct stat st;
	void **grown;
	int rc;

	*out = NULL;
	if (v->shm_fd < 0) {
		rc = shm_open_locked(v);
		if (rc)
			return rc;
	}
	if (region >= v->region_count) {
		assert(v->region_count == 0 || v->region_size == size);
		v->region_size = size;
		if (fstat(v->shm_fd, &st))
			return SQLITE_IOERR_SHMSIZE;
		if (st.st_size < want) {
			if (!extend)
				return SQLITE_OK;
			rc = shm_extend(v, want);
			if (rc)
				return rc;
		}
		grown = realloc(v->regions, (size_t)(region + 1) * sizeof(*grown));
		if (!grown)
			return SQLITE_IOERR_NOMEM;
		v->regions = grown;
		while (v->region_count <= region) {
			void *p = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED,
				       v->shm_fd, (off_t)v->region_count * size);

			if (p == MAP_FAILED)
				return SQLITE_IOERR_SHMMAP;
			v->regions[v->region_count++] = p;
		}
	}
	*out = v->regions[region];
	return SQLITE_OK;
}

static int vfs_shm_lock(sqlite3_file *file, int first, int n, int flags)
{
	struct wrep_vfs *v = ((struct vfs_file *)file)->v;
	unsigned mask = (1u << (first + n)) - (1u << first);
	off_t start = SHM_LOCK_BASE + first;
	short type = flags & SQLITE_SHM_EXCLUSIVE ? F_WRLCK : F_RDLCK;
	bool write_held = v->held & WREP_HOLD_WAL_WRITE && mask & 1u << SHM_WRITE;
	off_t len = n;
	int r = 0;

	if (flags & SQLITE_SHM_UNLOCK)
		type = F_UNLCK;
	else if ((type == F_RDLCK ? v->shm_exclusive : v->shm_shared) & mask)
		return SQLITE_BUSY; /* the kernel would convert our own lock */
	else if (v->keep_wal && first == SHM_CKPT)
		return SQLITE_BUSY;

	/* The fence has the write lock: in the kernel it is and stays locked for writing. */
	if (write_held) {
		start++;
		len--;
	}
	if (len > 0)
		r = byte_lock(v->shm_lock_fd, type, start, len);
	if (r)
		return lock_rc(r, SQLITE_IOERR_SHMLOCK);

	v->shm_shared &= ~mask;
	v->shm_exclusive &= ~mask;
	if (type == F_RDLCK)
		v->shm_shared |= mask;
	else if (type == F_WRLCK)
		v->shm_exclusive |= mask;
	return SQLITE_OK;
}

static void vfs_shm_barrier(sqlite3_file *file)
{
	(void)file;
	__sync_synchronize();
}

/* Never deletes: the last one out is not us, see above. */
static int vfs_shm_unmap(sqlite3_file *file, int delete_it)
{
	(void)delete_it;
	shm_close(((struct vfs_file *)file)->v);
	return SQLITE_OK;
}

void wrep_vfs_keep_wal(struct wrep_vfs *v, bool keep)
{
	v->keep_wal = keep;
}

bool wrep_vfs_in_wal(const struct wrep_vfs *v)
{
	return v->shm_fd >= 0;
}

/* ---- the VFS itself ---- */

static int main_close(sqlite3_file *file)
{
	vfs_unlock(file,
		   SQLITE_LOCK_NONE); /* SQLite leaves SHARED to us, and the file stays open */
	shm_close(((struct vfs_file *)file)->v);
	return SQLITE_OK;
}

static int wal_close(sqlite3_file *file)
{
	struct vfs_file *f = (struct vfs_file *)file;

	close(f->mounted_fd);
	close(f->fd);
	return SQLITE_OK;
}

static const sqlite3_io_methods main_methods = {
	.iVersion = 2,
	.xClose = main_close,
	.xRead = vfs_read,
	.xWrite = vfs_write,
	.xTruncate = vfs_truncate,
	.xSync = vfs_sync,
	.xFileSize = vfs_size,
	.xLock = vfs_lock,
	.xUnlock = vfs_unlock,
	.xCheckReservedLock = vfs_check_reserved,
	.xFileControl = vfs_control,
	.xSectorSize = vfs_sector,
	.xDeviceCharacteristics = vfs_characteristics,
	.xShmMap = vfs_shm_map,
	.xShmLock = vfs_shm_lock,
	.xShmBarrier = vfs_shm_barrier,
	.xShmUnmap = vfs_shm_unmap,
};

static const sqlite3_io_methods wal_methods = {
	.iVersion = 1,
	.xClose = wal_close,
	.xRead = vfs_read,
	.xWrite = vfs_write,
	.xTruncate = vfs_truncate,
	.xSync = vfs_sync,
	.xFileSize = vfs_size,
	.xLock = vfs_lock, /* SQLite locks no -wal */
	.xUnlock = vfs_unlock,
	.xCheckReservedLock = vfs_check_reserved,
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
	struct vfs_file *f = (struct vfs_file *)file;

	(void)name;
	*f = (struct vfs_file){.v = v, .fd = -1};
	if (flags & SQLITE_OPEN_MAIN_DB) {
		f->fd = v->db_fd;
		f->mounted_fd = v->db_lock_fd;
		f->suffix = "";
		f->base.pMethods = &main_methods;
	} else if (flags & SQLITE_OPEN_WAL) {
		f->fd = wal_open(v);
		opened(v, f->fd < 0 ? -errno : 0);
		if (f->fd < 0)
			return SQLITE_CANTOPEN;
		f->mounted_fd =
			v->host.mounted_open(v->host.ctx, v->wal_name, O_RDONLY | O_CLOEXEC);
		opened(v, f->mounted_fd);
		if (f->mounted_fd < 0) {
			close(f->fd);
			return SQLITE_CANTOPEN;
		}
		f->suffix = "-wal";
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
	if (asprintf(&v->wal_name, "%s-wal", name) < 0) {
		v->wal_name = NULL;
		goto fail;
	}
	if (asprintf(&v->shm_name, "%s-shm", name) < 0) {
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
		.szOsFile = sizeof(struct vfs_file),
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
	shm_close(v);
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
