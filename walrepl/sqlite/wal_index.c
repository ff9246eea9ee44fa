/* The wal-index after a writer died.
 *
 * A writer commits in two steps: the commit frame goes into the -wal, and then the new header goes
 * into the wal-index. Killed in between it leaves a committed transaction that local readers do not
 * see, and that the next writer would overwrite. SQLite notices after a restart only, when it
 * recovers the wal-index from the -wal; so here it is made to.
 *
 * The start of the -shm (section 2.1 of "WAL-mode File Format"), native byte order:
 *
 *	 0  version, 3007000       16  mxFrame: last committed frame of the -wal
 *	 4  unused                 20  size of the database in pages
 *	 8  change counter         24  checksum of that frame, 2 words
 *	12  isInit (1 byte)        32  salts, the 8 bytes as they are in the -wal's header
 *	13  big-endian checksums   40  checksum of bytes 0 to 39, 2 words
 *	14  page size (2 bytes)
 *	48  the same again. A writer writes this copy first, a reader reads it last.
 *	96  nBackfill: so many frames are in the database file; a checkpointer moves it after the copy
 *
 * Invalid means: isInit is 0. Everything else in the header stays, and that matters for a live
 * writer who is in a transaction of his own while this happens (SQLite's wal.c):
 *
 * - walFrames() compares his private copy of the header with this one, and when they differ takes
 *   the frames above *this* mxFrame for his own uncommitted ones that it may overwrite in place.
 *   With mxFrame untouched it is right.
 * - At his commit walIndexWriteHdr() sets isInit, computes the checksum and writes both copies
 *   whole, from his private copy. So an invalidation that falls between the commit frame and that
 *   is undone by it, and one that falls right behind it costs a recovery that finds the same.
 * - At his rollback sqlite3WalUndo() fetches his private copy from here, the 0 included. He uses of
 *   it what is still true; his next transaction begins with walIndexReadHdr(), which validates it.
 * - The next reader who finds no valid header takes the write lock, and waits for it if a writer
 *   has it: recovery and writing never meet.
 *
 * Two copies that differ are a header that is being written, or the remains of it when the writer
 * died right there. Neither needs us: the one will be valid in a moment, the other is invalid
 * already.
 */
#include "sqlite/wal_index.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/bytes.h"

struct shm_header {
	uint32_t version;
	uint32_t unused;
	uint32_t change;
	uint8_t is_init;
	uint8_t big_endian_checksum;
	uint16_t page_size;
	uint32_t max_frame;
	uint32_t page_count;
	uint32_t frame_checksum[2];
	uint32_t salt[2];
	uint32_t checksum[2];
};
_Static_assert(sizeof(struct shm_header) == 48, "the layout of a wal-index header");
_Static_assert(offsetof(struct shm_header, salt) == 32, "the layout of a wal-index header");

/* As SQLite's walChecksumBytes() in native byte order. */
static bool header_valid(const struct shm_header *h)
{
	uint32_t words[offsetof(struct shm_header, checksum) / 4], s1 = 0, s2 = 0;

	memcpy(words, h, sizeof(words));
	for (size_t i = 0; i < sizeof(words) / 4; i += 2) {
		s1 += words[i] + s2;
		s2 += words[i + 1] + s1;
	}
	return h->is_init && h->checksum[0] == s1 && h->checksum[1] == s2;
}

static bool header_lags(const struct shm_header *h, uint32_t frames, const uint32_t salt[2])
{
	if (frames == 0)
		return h->max_frame > 0; /* the -wal it describes is gone */
	if (memcmp(h->salt, salt, sizeof(h->salt)) == 0)
		return h->max_frame < frames; /* more: published since `frames` was looked up */
	/* All frames were checkpointed and the log restarted, which the -wal itself will not show
	 * before the next commit: walRestartHdr() adds 1 to the first salt. */
	return h->max_frame > 0 ||
	       wrep_get_be32((const uint8_t *)h->salt) != wrep_get_be32((const uint8_t *)salt) + 1;
}

/* 1: it lags; 0: all is well, or there is none yet; -errno. */
static int index_lags(int shm_fd, uint32_t frames, const uint32_t salt[2])
{
	struct shm_header h[2];
	ssize_t n = pread(shm_fd, h, sizeof(h), 0);

	if (n < 0)
		return -errno;
	if (n < (ssize_t)sizeof(h))
		return 0; /* nobody has written one yet */
	return memcmp(&h[0], &h[1], sizeof(h[0])) == 0 && header_valid(&h[0]) &&
	       header_lags(&h[0], frames, salt);
}

bool wrep_wal_index_lags(int shm_fd, uint32_t frames, const uint32_t salt[2])
{
	return index_lags(shm_fd, frames, salt) == 1;
}

bool wrep_wal_index_copied(int shm_fd, uint32_t frames, const uint32_t salt[2])
{
	struct {
		struct shm_header h[2];
		uint32_t backfill;
	} index;

	return pread(shm_fd, &index, sizeof(index), 0) == sizeof(index) &&
	       memcmp(&index.h[0], &index.h[1], sizeof(index.h[0])) == 0 &&
	       header_valid(&index.h[0]) &&
	       memcmp(index.h[0].salt, salt, sizeof(index.h[0].salt)) == 0 &&
	       index.backfill >= frames;
}

/* There is a header. */
static int invalidate(int shm_fd)
{
	const uint8_t invalid = 0;

	for (size_t i = 0; i < 2; i++) {
		off_t at = (off_t)(i * sizeof(struct shm_header) +
				   offsetof(struct shm_header, is_init));
		ssize_t n = pwrite(shm_fd, &invalid, 1, at);

		if (n != 1)
			return n < 0 ? -errno : -EIO;
	}
	return 0;
}

int wrep_wal_index_repair(int shm_fd, uint32_t frames, const uint32_t salt[2])
{
	int lags = index_lags(shm_fd, frames, salt);
	int rc = lags == 1 ? invalidate(shm_fd) : 0;

	return rc ? rc : lags;
}

int wrep_wal_index_spoil(int shm_fd)
{
	struct stat st;

	if (fstat(shm_fd, &st) < 0)
		return -errno;
	return st.st_size < (off_t)(2 * sizeof(struct shm_header)) ? 0 : invalidate(shm_fd);
}
