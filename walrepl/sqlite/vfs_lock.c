/* The byte locks of a database, and its wal-index.
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
 */
#include "sqlite/vfs_lock.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sqlite/file_format.h"
#include "sqlite/vfs_file.h"

#define SHM_LOCK_BASE 120 /* the byte of SQLite's lock 0, which is the write lock */
#define SHM_WRITE 0
#define SHM_CKPT 1
#define SHM_DMS (SHM_LOCK_BASE + SQLITE_SHM_NLOCK)

#define SHM_TRUNCATED 3 /* what SQLite leaves of a -shm that nobody uses: shorter than a header */

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

static int lock_rc(struct wrep_vfs *v, int r, int ioerr)
{
	if (r == 0 || r == -EBUSY)
		return r ? SQLITE_BUSY : SQLITE_OK;
	return wrep_vfs_fails(v, "lock", -r, ioerr);
}

int wrep_vfs_hold(struct wrep_vfs *v, unsigned lock)
{
	int r;

	if (v->held & lock)
		return 0;
	switch (lock) {
	case WREP_HOLD_RESERVED:
		r = byte_lock(v->db_lock_fd, F_WRLCK, WREP_RESERVED_BYTE, 1);
		break;
	case WREP_HOLD_PENDING:
		r = byte_lock(v->db_lock_fd, F_WRLCK, WREP_PENDING_BYTE, 1);
		break;
	case WREP_HOLD_EXCLUSIVE:
		assert(v->held & WREP_HOLD_PENDING);
		r = byte_lock(v->db_lock_fd, F_WRLCK, WREP_SHARED_FIRST, WREP_SHARED_BYTES);
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
		byte_lock(v->db_lock_fd, v->shared ? F_RDLCK : F_UNLCK, WREP_SHARED_FIRST,
			  WREP_SHARED_BYTES);
	if (locks & WREP_HOLD_PENDING)
		byte_lock(v->db_lock_fd, F_UNLCK, WREP_PENDING_BYTE, 1);
	if (locks & WREP_HOLD_RESERVED)
		byte_lock(v->db_lock_fd, F_UNLCK, WREP_RESERVED_BYTE, 1);
	if (locks & WREP_HOLD_WAL_WRITE && !(v->shm_exclusive & 1u << SHM_WRITE))
		byte_lock(v->shm_lock_fd, F_UNLCK, SHM_LOCK_BASE + SHM_WRITE, 1);
}

unsigned wrep_vfs_held(const struct wrep_vfs *v)
{
	return v->held;
}

/* ---- SQLite's locks on the database ---- */

/* SHARED is all that this connection ever needs, since it writes through the -wal only. SQLite asks for
 * more to roll back a journal, to leave WAL mode, to delete the -wal with the last close. None of
 * that is this connection's business: busy. */
int wrep_vfs_lock(sqlite3_file *file, int level)
{
	struct wrep_vfs *v = ((struct wrep_vfs_file *)file)->v;
	int r;

	if (level > SQLITE_LOCK_SHARED)
		return SQLITE_BUSY;
	if (v->shared || level == SQLITE_LOCK_NONE)
		return SQLITE_OK;
	/* Readers pass through PENDING, so that they queue behind a writer who waits for the old
	 * ones to leave. When that is us, it is held, and taking it shared would open it to all. */
	if (!(v->held & WREP_HOLD_PENDING)) {
		r = byte_lock(v->db_lock_fd, F_RDLCK, WREP_PENDING_BYTE, 1);
		if (r)
			return lock_rc(v, r, SQLITE_IOERR_LOCK);
	}
	r = 0;
	if (!(v->held & WREP_HOLD_EXCLUSIVE))
		r = byte_lock(v->db_lock_fd, F_RDLCK, WREP_SHARED_FIRST, WREP_SHARED_BYTES);
	if (!(v->held & WREP_HOLD_PENDING))
		byte_lock(v->db_lock_fd, F_UNLCK, WREP_PENDING_BYTE, 1);
	v->shared = r == 0;
	return lock_rc(v, r, SQLITE_IOERR_LOCK);
}

int wrep_vfs_unlock(sqlite3_file *file, int level)
{
	struct wrep_vfs *v = ((struct wrep_vfs_file *)file)->v;
	int r = 0;

	if (level >= SQLITE_LOCK_SHARED || !v->shared)
		return SQLITE_OK;
	if (!(v->held & WREP_HOLD_EXCLUSIVE))
		r = byte_lock(v->db_lock_fd, F_UNLCK, WREP_SHARED_FIRST, WREP_SHARED_BYTES);
	v->shared = false;
	return r ? wrep_vfs_fails(v, "unlock", -r, SQLITE_IOERR_UNLOCK) : SQLITE_OK;
}

int wrep_vfs_check_reserved(sqlite3_file *file, int *out)
{
	struct wrep_vfs *v = ((struct wrep_vfs_file *)file)->v;
	struct flock l = {.l_type = F_WRLCK,
			  .l_whence = SEEK_SET,
			  .l_start = WREP_RESERVED_BYTE,
			  .l_len = 1};

	*out = 1;
	if (v->held & WREP_HOLD_RESERVED)
		return SQLITE_OK;
	if (fcntl(v->db_lock_fd, F_OFD_GETLK, &l))
		return wrep_vfs_fails(v, "look at a lock", errno, SQLITE_IOERR_CHECKRESERVEDLOCK);
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
		return wrep_vfs_fails(v, "look at a lock", errno, SQLITE_IOERR_LOCK);
	if (l.l_type == F_WRLCK)
		return SQLITE_BUSY;
	if (l.l_type == F_UNLCK) {
		r = byte_lock(v->shm_lock_fd, F_WRLCK, SHM_DMS, 1);
		if (r)
			return lock_rc(v, r, SQLITE_IOERR_LOCK);
		if (ftruncate(v->shm_fd, SHM_TRUNCATED))
			return wrep_vfs_fails(v, "truncate of the -shm", errno,
					      SQLITE_IOERR_SHMOPEN);
	}
	return lock_rc(v, byte_lock(v->shm_lock_fd, F_RDLCK, SHM_DMS, 1), SQLITE_IOERR_LOCK);
}

void wrep_vfs_detach(struct wrep_vfs *v)
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

static int shm_open_locked(struct wrep_vfs *v)
{
	int rc;

	/* First through the mount, which makes the file when there is none. */
	v->shm_lock_fd =
		v->host.mounted_open(v->host.ctx, v->shm_name, O_RDWR | O_CREAT | O_CLOEXEC);
	wrep_vfs_opened(v, "open of the mounted -shm", v->shm_lock_fd);
	if (v->shm_lock_fd < 0) {
		v->shm_lock_fd = -1;
		return SQLITE_CANTOPEN;
	}
	v->shm_fd = openat(v->host.shm_fd, v->shm_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	wrep_vfs_opened(v, "open of the -shm", v->shm_fd < 0 ? -errno : 0);
	rc = v->shm_fd < 0 ? SQLITE_CANTOPEN : shm_dead_man_switch(v);
	if (rc)
		wrep_vfs_detach(v);
	return rc;
}

/* Make the -shm at least `size` long. Allocating now is what keeps a full tmpfs from becoming a
 * SIGBUS at some later store. The bytes that are there already stay as they are. */
static int shm_extend(struct wrep_vfs *v, off_t size)
{
	int r;

	do
		r = posix_fallocate(v->shm_fd, 0, size);
	while (r == EINTR);
	return r ? wrep_vfs_fails(v, "allocate the -shm", r, SQLITE_IOERR_SHMSIZE) : SQLITE_OK;
}

int wrep_vfs_shm_map(sqlite3_file *file, int region, int size, int extend, void volatile **out)
{
	struct wrep_vfs *v = ((struct wrep_vfs_file *)file)->v;
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
			return wrep_vfs_fails(v, "fstat of the -shm", errno, SQLITE_IOERR_SHMSIZE);
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
				return wrep_vfs_fails(v, "map the -shm", errno,
						      SQLITE_IOERR_SHMMAP);
			v->regions[v->region_count++] = p;
		}
	}
	*out = v->regions[region];
	return SQLITE_OK;
}

int wrep_vfs_shm_lock(sqlite3_file *file, int first, int n, int flags)
{
	struct wrep_vfs *v = ((struct wrep_vfs_file *)file)->v;
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
		return lock_rc(v, r, SQLITE_IOERR_SHMLOCK);

	v->shm_shared &= ~mask;
	v->shm_exclusive &= ~mask;
	if (type == F_RDLCK)
		v->shm_shared |= mask;
	else if (type == F_WRLCK)
		v->shm_exclusive |= mask;
	return SQLITE_OK;
}

void wrep_vfs_shm_barrier(sqlite3_file *file)
{
	(void)file;
	__sync_synchronize();
}

/* Never deletes: the last one out is not us, see above. */
int wrep_vfs_shm_unmap(sqlite3_file *file, int delete_it)
{
	(void)delete_it;
	wrep_vfs_detach(((struct wrep_vfs_file *)file)->v);
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
