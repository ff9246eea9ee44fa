/* Reads and writes of the daemon's own SQLite connections: of the backing files, each of them invalidated. */
#include "sqlite/vfs_io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sqlite/vfs_file.h"

int wrep_vfs_read(sqlite3_file *file, void *buf, int len, sqlite3_int64 off)
{
	struct wrep_vfs_file *f = (struct wrep_vfs_file *)file;
	char *p = buf;

	while (len > 0) {
		ssize_t n = pread(f->fd, p, (size_t)len, off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return wrep_vfs_fails(f->v, "pread", errno, SQLITE_IOERR_READ);
		if (n == 0) {
			memset(p, 0, (size_t)len);
			return wrep_vfs_fails(f->v, "pread", 0, SQLITE_IOERR_SHORT_READ);
		}
		p += n;
		len -= (int)n;
		off += n;
	}
	return SQLITE_OK;
}

#define WAL_GROWTH (1 << 20)
#define LEARN_TRIES 1000

/* Make the file at least `end` long, and let the kernel know before anybody may need to.
 *
 * A reader that reads behind the size that the kernel knows makes it ask for the size; but the answer
 * is dropped when an invalidation came in between, and then the read ends short: of the -wal an I/O
 * error, of the database a page of zeros. In a storm of applies that happens. So the size grows
 * first, in large steps for the -wal (SQLite does not mind what lies behind the last frame), and is
 * proven known, before the page and the wal-index that leads to it are written. (By statx(), which
 * takes no lock: lseek(SEEK_END) would wait for an application's change of the attributes, and that
 * may wait for us.) Only then it stays known: what the kernel is told in an answer to such a change it
 * takes in at any time, however old. These are waited for in between.
 *
 * The kernel drops every answer while an application's write or truncation of that file is on its way. It is asked
 * a number of times, then the applier does something else and comes back: SQLITE_BUSY, and nothing is written. */
static int grow(struct wrep_vfs_file *f, sqlite3_int64 end)
{
	sqlite3_int64 want = end;
	struct statx known = {0};
	struct stat st;

	if (end <= f->known)
		return SQLITE_OK;
	if (f->kind == WREP_WAL)
		want = (end + WAL_GROWTH - 1) / WAL_GROWTH * WAL_GROWTH;
	if (fstat(f->fd, &st))
		return wrep_vfs_fails(f->v, "fstat", errno, SQLITE_IOERR_FSTAT);
	if (st.st_size < want) {
		if (ftruncate(f->fd, want))
			return wrep_vfs_fails(f->v, "ftruncate", errno,
					      errno == ENOSPC || errno == EDQUOT
						      ? SQLITE_FULL
						      : SQLITE_IOERR_TRUNCATE);
	} else {
		want = st.st_size;
	}
	f->v->host.invalidate(f->v->host.ctx, f->kind, (uint64_t)end, (uint64_t)(want - end + 1));
	if (f->v->host.settle(f->v->host.ctx, f->kind, f->mounted_fd))
		/* for want of memory or descriptors: later */
		return wrep_vfs_fails(f->v, "settle", 0, SQLITE_BUSY);
	for (int i = 0; i < LEARN_TRIES && known.stx_size < (uint64_t)want; i++)
		/* ask; then see what the kernel kept of the answer */
		if (statx(f->mounted_fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_SIZE,
			  &known) ||
		    statx(f->mounted_fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE,
			  &known))
			return wrep_vfs_fails(f->v, "statx of the mounted file", errno,
					      errno == EINTR || errno == ENOMEM
						      ? SQLITE_BUSY
						      : SQLITE_IOERR_FSTAT);
	if (known.stx_size < (uint64_t)want)
		return wrep_vfs_fails(f->v, "statx of the mounted file", 0, SQLITE_BUSY);
	f->known = want;
	return SQLITE_OK;
}

int wrep_vfs_write(sqlite3_file *file, const void *buf, int len, sqlite3_int64 off)
{
	struct wrep_vfs_file *f = (struct wrep_vfs_file *)file;
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
			rc = wrep_vfs_fails(f->v, "pwrite", errno,
					    errno == ENOSPC || errno == EDQUOT
						    ? SQLITE_FULL
						    : SQLITE_IOERR_WRITE);
			break;
		}
		p += n;
		left -= (int)n;
		at += n;
	}
	/* also what was written of a write that failed */
	if (at > off)
		f->v->host.invalidate(f->v->host.ctx, f->kind, (uint64_t)off, (uint64_t)(at - off));
	return rc;
}

int wrep_vfs_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	struct wrep_vfs_file *f = (struct wrep_vfs_file *)file;
	struct stat st;
	uint64_t lo, hi;

	if (fstat(f->fd, &st) || ftruncate(f->fd, size))
		return wrep_vfs_fails(f->v, "ftruncate", errno, SQLITE_IOERR_TRUNCATE);
	if (f->known > size)
		f->known = size;
	lo = (uint64_t)(size < st.st_size ? size : st.st_size);
	hi = (uint64_t)(size < st.st_size ? st.st_size : size);
	if (lo < hi)
		f->v->host.invalidate(f->v->host.ctx, f->kind, lo, hi - lo);
	return SQLITE_OK;
}

int wrep_vfs_sync(sqlite3_file *file, int flags)
{
	(void)file;
	(void)flags;
	return SQLITE_OK;
}

int wrep_vfs_size(sqlite3_file *file, sqlite3_int64 *size)
{
	struct wrep_vfs_file *f = (struct wrep_vfs_file *)file;
	struct stat st;

	if (fstat(f->fd, &st))
		return wrep_vfs_fails(f->v, "fstat", errno, SQLITE_IOERR_FSTAT);
	*size = st.st_size;
	return SQLITE_OK;
}
