/* Storing and loading page hashes. The file is in the machine's byte order on little-endian machines,
 * which are the only ones that io_uring over FUSE runs on so far; the assert below would tell.
 */
#include "pages/sumfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "page hashes are stored as they are in memory: little-endian"
#endif

#define NAME_SIZE 40
#define PREFIX "sums-"

static void file_name(char name[NAME_SIZE], uint64_t id)
{
	snprintf(name, NAME_SIZE, PREFIX "%" PRIu64, id);
}

/* Copy the next dirty block at or behind `*block` out, and take its mark away. Returns how many hashes
 * it has, 0 when there is none. */
static uint32_t take_block(struct wrep_pagesum *sum, pthread_mutex_t *lock, uint32_t *block,
			   uint64_t out[WREP_SUM_BLOCK])
{
	uint32_t n = 0;

	pthread_mutex_lock(lock);
	for (; *block < sum->dirty_bytes * 8 && !n; ++*block) {
		uint32_t first = *block * WREP_SUM_BLOCK;

		if (!(sum->dirty[*block / 8] & 1u << *block % 8))
			continue;
		sum->dirty[*block / 8] &= (uint8_t) ~(1u << *block % 8);
		if (first >= sum->page_count)
			continue; /* cut off since */
		n = sum->page_count - first < WREP_SUM_BLOCK ? sum->page_count - first
							     : WREP_SUM_BLOCK;
		memcpy(out, sum->hash + first, n * sizeof *out);
		break;
	}
	pthread_mutex_unlock(lock);
	return n;
}

int wrep_sumfile_store(int state_fd, uint64_t id, struct wrep_pagesum *sum, pthread_mutex_t *lock)
{
	uint64_t hashes[WREP_SUM_BLOCK];
	char name[NAME_SIZE];
	uint32_t block = 0, n;
	int fd, rc = 0;

	file_name(name, id);
	fd = openat(state_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	while (!rc && (n = take_block(sum, lock, &block, hashes))) {
		size_t len = n * sizeof *hashes;
		ssize_t done = pwrite(fd, hashes, len, (off_t)block * WREP_SUM_BLOCK * 8);

		if (done != (ssize_t)len) {
			rc = done < 0 ? -errno : -ENOSPC;
			pthread_mutex_lock(lock);
			wrep_pagesum_mark(sum, block * WREP_SUM_BLOCK + 1);
			pthread_mutex_unlock(lock);
		}
		block++;
	}
	if (!rc && fdatasync(fd) < 0) {
		/* Which of them are on disk is unknown: all of them again. */
		rc = -errno;
		pthread_mutex_lock(lock);
		memset(sum->dirty, 0xff, sum->dirty_bytes);
		pthread_mutex_unlock(lock);
	}
	if (close(fd) < 0 && !rc)
		rc = -errno;
	return rc;
}

int wrep_sumfile_load(int state_fd, uint64_t id, uint32_t page_count, uint64_t **out)
{
	size_t len = (size_t)page_count * sizeof **out, got = 0;
	char name[NAME_SIZE];
	int fd, rc = 0;

	*out = NULL;
	if (!page_count)
		return 0;
	*out = calloc(page_count, sizeof **out);
	if (!*out)
		return -ENOMEM;
	file_name(name, id);
	fd = openat(state_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	while (got < len) {
		ssize_t n = pread(fd, (char *)*out + got, len - got, (off_t)got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			rc = -errno;
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	close(fd);
	if (rc) {
		free(*out);
		*out = NULL;
	}
	return rc;
}

int wrep_sumfile_remove(int state_fd, uint64_t id)
{
	char name[NAME_SIZE];

	file_name(name, id);
	return unlinkat(state_fd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

int wrep_numbered_tidy(int state_fd, const char *prefix, bool (*keep)(void *arg, uint64_t id),
		       void *arg)
{
	int fd = openat(state_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir) {
		rc = -errno;
		if (fd >= 0)
			close(fd);
		return rc;
	}
	while (!rc && (entry = readdir(dir))) {
		uint64_t id;
		char name[NAME_SIZE];

		if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
			continue;
		id = strtoull(entry->d_name + strlen(prefix), NULL, 10);
		snprintf(name, sizeof name, "%s%" PRIu64, prefix, id);
		if (strcmp(name, entry->d_name) == 0 && !keep(arg, id) &&
		    unlinkat(state_fd, name, 0) < 0 && errno != ENOENT)
			rc = -errno;
	}
	closedir(dir);
	return rc;
}

int wrep_sumfile_tidy(int state_fd, bool (*keep)(void *arg, uint64_t id), void *arg)
{
	return wrep_numbered_tidy(state_fd, PREFIX, keep, arg);
}
