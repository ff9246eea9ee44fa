/* The bytes of a -wal file: see the diagram in sqlite/wal_format.h. */
#include "sqlite/wal_format.h"

#include <assert.h>
#include <string.h>
#include "base/bytes.h"
#include "sqlite/file_format.h"

#define WAL_MAGIC 0x377f0682u /* the lowest bit: big-endian checksums */
#define WAL_VERSION 3007000u

void wrep_wal_checksum(bool big_endian, const void *data, size_t len, uint32_t sum[2])
{
	const uint8_t *p = data;
	const uint8_t *end = p + len;
	bool swap = big_endian != (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
	uint32_t s1 = sum[0], s2 = sum[1];
	uint32_t x[2];

	assert(len % 8 == 0);
	if (swap) {
		for (; p < end; p += 8) {
			memcpy(x, p, 8);
			s1 += __builtin_bswap32(x[0]) + s2;
			s2 += __builtin_bswap32(x[1]) + s1;
		}
	} else {
		for (; p < end; p += 8) {
			memcpy(x, p, 8);
			s1 += x[0] + s2;
			s2 += x[1] + s1;
		}
	}
	sum[0] = s1;
	sum[1] = s2;
}

bool wrep_wal_header_parse(const uint8_t bytes[WREP_WAL_HEADER_BYTES], struct wrep_wal_header *out)
{
	uint32_t magic = wrep_get_be32(bytes);

	if ((magic & ~1u) != WAL_MAGIC || wrep_get_be32(bytes + 4) != WAL_VERSION)
		return false;
	out->big_endian = (magic & 1) != 0;
	out->page_size = wrep_get_be32(bytes + 8);
	if (!wrep_page_size_valid(out->page_size))
		return false;
	out->checkpoint_seq = wrep_get_be32(bytes + 12);
	memcpy(out->salt, bytes + 16, sizeof(out->salt));
	out->sum[0] = out->sum[1] = 0;
	wrep_wal_checksum(out->big_endian, bytes, 24, out->sum);
	return out->sum[0] == wrep_get_be32(bytes + 24) && out->sum[1] == wrep_get_be32(bytes + 28);
}

bool wrep_wal_frame_parse(const struct wrep_wal_header *h, const uint32_t before[2],
			  const uint8_t bytes[WREP_FRAME_HEADER_BYTES], const uint8_t *page,
			  struct wrep_wal_frame *out)
{
	out->pgno = wrep_get_be32(bytes);
	out->page_count = wrep_get_be32(bytes + 4);
	if (out->pgno == 0 || memcmp(bytes + 8, h->salt, sizeof(h->salt)) != 0)
		return false;
	out->sum[0] = before[0];
	out->sum[1] = before[1];
	wrep_wal_checksum(h->big_endian, bytes, 8, out->sum);
	wrep_wal_checksum(h->big_endian, page, h->page_size, out->sum);
	return out->sum[0] == wrep_get_be32(bytes + 16) && out->sum[1] == wrep_get_be32(bytes + 20);
}

void wrep_wal_header_encode(struct wrep_wal_header *h, uint8_t bytes[WREP_WAL_HEADER_BYTES])
{
	wrep_put_be32(bytes, WAL_MAGIC | (h->big_endian ? 1 : 0));
	wrep_put_be32(bytes + 4, WAL_VERSION);
	wrep_put_be32(bytes + 8, h->page_size);
	wrep_put_be32(bytes + 12, h->checkpoint_seq);
	memcpy(bytes + 16, h->salt, sizeof(h->salt));
	h->sum[0] = h->sum[1] = 0;
	wrep_wal_checksum(h->big_endian, bytes, 24, h->sum);
	wrep_put_be32(bytes + 24, h->sum[0]);
	wrep_put_be32(bytes + 28, h->sum[1]);
}

void wrep_wal_frame_header(const struct wrep_wal_header *h, uint32_t pgno, uint32_t page_count,
			   const uint32_t sum[2], uint8_t bytes[WREP_FRAME_HEADER_BYTES])
{
	wrep_put_be32(bytes, pgno);
	wrep_put_be32(bytes + 4, page_count);
	memcpy(bytes + 8, h->salt, sizeof(h->salt));
	wrep_put_be32(bytes + 16, sum[0]);
	wrep_put_be32(bytes + 20, sum[1]);
}

void wrep_wal_frame_encode(const struct wrep_wal_header *h, const uint32_t before[2],
			   struct wrep_wal_frame *frame, const uint8_t *page,
			   uint8_t bytes[WREP_FRAME_HEADER_BYTES])
{
	wrep_put_be32(bytes, frame->pgno);
	wrep_put_be32(bytes + 4, frame->page_count);
	frame->sum[0] = before[0];
	frame->sum[1] = before[1];
	wrep_wal_checksum(h->big_endian, bytes, 8, frame->sum);
	wrep_wal_checksum(h->big_endian, page, h->page_size, frame->sum);
	wrep_wal_frame_header(h, frame->pgno, frame->page_count, frame->sum, bytes);
}
