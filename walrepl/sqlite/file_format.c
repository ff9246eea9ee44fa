/* The bytes of a database file, see file_format.h. */
#include "sqlite/file_format.h"

#include <assert.h>
#include <string.h>
#include "base/bytes.h"

bool wrep_page_size_valid(uint32_t page_size)
{
	return page_size >= 512 && page_size <= 65536 && (page_size & (page_size - 1)) == 0;
}

uint32_t wrep_page1_page_size(const uint8_t *page1)
{
	uint16_t size = wrep_get_be16(page1 + 16);

	return size == 1 ? 65536 : size;
}

bool wrep_page1_is_wal(const uint8_t *page1)
{
	return page1[18] == 2 && page1[19] == 2;
}

bool wrep_db_header_parse(const uint8_t bytes[WREP_DB_HEADER_BYTES], uint32_t *page_size,
			  uint32_t *page_count)
{
	static const char magic[16] = "SQLite format 3";
	bool counted = wrep_get_be32(bytes + 24) == wrep_get_be32(bytes + 92);

	*page_size = wrep_page1_page_size(bytes);
	*page_count = counted ? wrep_get_be32(bytes + 28) : 0;
	return memcmp(bytes, magic, sizeof magic) == 0 && wrep_page_size_valid(*page_size);
}

uint32_t wrep_lock_page(uint32_t page_size)
{
	return WREP_PENDING_BYTE / page_size + 1;
}

const char *wrep_kind_suffix(enum wrep_kind kind)
{
	static const char *const suffix[] = {"", "-wal", "-shm", "-journal"};

	assert(kind <= WREP_JOURNAL);
	return suffix[kind];
}
