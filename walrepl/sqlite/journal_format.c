/* The bytes of a rollback journal, see journal_format.h. */
#include "sqlite/journal_format.h"

#include <string.h>
#include <sys/stat.h>
#include "base/bytes.h"
#include "base/io.h"
#include "sqlite/file_format.h"

static const uint8_t journal_magic[WREP_JOURNAL_MAGIC_BYTES] = {0xd9, 0xd5, 0x05, 0xf9,
								0x20, 0xa1, 0x63, 0xd7};

bool wrep_journal_begins(const void *bytes, size_t len)
{
	return len >= sizeof journal_magic && !memcmp(bytes, journal_magic, sizeof journal_magic);
}

bool wrep_journal_fd_is_hot(int fd)
{
	uint8_t head[sizeof journal_magic];

	return wrep_read_exact(fd, head, sizeof head, 0) == 0 &&
	       wrep_journal_begins(head, sizeof head);
}

bool wrep_journal_read_header(int fd, uint64_t off, struct wrep_journal_header *h)
{
	uint8_t bytes[28];

	if (wrep_read_exact(fd, bytes, sizeof bytes, off) ||
	    !wrep_journal_begins(bytes, sizeof bytes))
		return false;
	*h = (struct wrep_journal_header){
		.records = wrep_get_be32(bytes + 8),
		.nonce = wrep_get_be32(bytes + 12),
		.page_count = wrep_get_be32(bytes + 16),
		.sector = wrep_get_be32(bytes + 20),
		.page_size = wrep_get_be32(bytes + 24),
	};
	return h->sector >= 32 && h->sector <= 65536 && !(h->sector & (h->sector - 1)) &&
	       wrep_page_size_valid(h->page_size);
}

uint32_t wrep_journal_checksum(const uint8_t *page, uint32_t page_size, uint32_t nonce)
{
	for (int64_t i = (int64_t)page_size - 200; i > 0; i -= 200)
		nonce += page[i];
	return nonce;
}

bool wrep_journal_super(int fd, char path[WREP_SUPER_PATH_MAX])
{
	uint8_t tail[16];
	uint32_t len, sum = 0;
	struct stat st;

	if (fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof tail ||
	    wrep_read_exact(fd, tail, sizeof tail, (uint64_t)st.st_size - sizeof tail) ||
	    memcmp(tail + 8, journal_magic, sizeof journal_magic) != 0)
		return false;
	len = wrep_get_be32(tail);
	if (len == 0 || len >= WREP_SUPER_PATH_MAX || len > (uint64_t)st.st_size - sizeof tail ||
	    wrep_read_exact(fd, path, len, (uint64_t)st.st_size - sizeof tail - len))
		return false;
	for (uint32_t i = 0; i < len; i++)
		sum += (uint32_t)path[i]; /* signed or not, as SQLite on this machine */
	path[len] = '\0';
	return sum == wrep_get_be32(tail + 4) && path[0] != '\0';
}
