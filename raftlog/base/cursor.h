/* Little-endian numbers, written to memory and read from it one after the other.
 *
 * An encoder writes through a cursor into memory that is known to be large enough; a decoder reads
 * through a cursor that remembers whether anything was missing, so that the check stands once, at
 * the end of each message, and covers trailing bytes too. */
#ifndef RAFTLOG_CURSOR_H
#define RAFTLOG_CURSOR_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct writer {
	uint8_t *at;
};

static inline void put8(struct writer *w, uint8_t v)
{
	*w->at++ = v;
}

static inline void put16(struct writer *w, uint16_t v)
{
	v = htole16(v);
	memcpy(w->at, &v, sizeof v);
	w->at += sizeof v;
}

static inline void put32(struct writer *w, uint32_t v)
{
	v = htole32(v);
	memcpy(w->at, &v, sizeof v);
	w->at += sizeof v;
}

static inline void put64(struct writer *w, uint64_t v)
{
	v = htole64(v);
	memcpy(w->at, &v, sizeof v);
	w->at += sizeof v;
}

struct reader {
	const uint8_t *at;
	size_t left;
	bool short_of_bytes;
};

static inline bool take(struct reader *r, void *out, size_t len)
{
	if (r->left < len) {
		r->short_of_bytes = true;
		r->left = 0;
		memset(out, 0, len);
		return false;
	}
	memcpy(out, r->at, len);
	r->at += len;
	r->left -= len;
	return true;
}

static inline uint8_t get8(struct reader *r)
{
	uint8_t v;

	take(r, &v, sizeof v);
	return v;
}

static inline uint16_t get16(struct reader *r)
{
	uint16_t v;

	take(r, &v, sizeof v);
	return le16toh(v);
}

static inline uint32_t get32(struct reader *r)
{
	uint32_t v;

	take(r, &v, sizeof v);
	return le32toh(v);
}

static inline uint64_t get64(struct reader *r)
{
	uint64_t v;

	take(r, &v, sizeof v);
	return le64toh(v);
}

#endif
