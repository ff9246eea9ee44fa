/* Numbers as bytes: little-endian in what walrepl writes to the log, to disks and to peers, big-endian in
 * SQLite's files. Private to walrepl; any thread. */
#ifndef WALREPL_BASE_BYTES_H
#define WALREPL_BASE_BYTES_H

#include <stdint.h>

static inline void wrep_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static inline void wrep_put32(uint8_t *p, uint32_t v)
{
	wrep_put16(p, (uint16_t)v);
	wrep_put16(p + 2, (uint16_t)(v >> 16));
}

static inline void wrep_put64(uint8_t *p, uint64_t v)
{
	wrep_put32(p, (uint32_t)v);
	wrep_put32(p + 4, (uint32_t)(v >> 32));
}

static inline uint16_t wrep_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t wrep_get32(const uint8_t *p)
{
	return (uint32_t)wrep_get16(p) | (uint32_t)wrep_get16(p + 2) << 16;
}

static inline uint64_t wrep_get64(const uint8_t *p)
{
	return (uint64_t)wrep_get32(p) | (uint64_t)wrep_get32(p + 4) << 32;
}

static inline void wrep_put_be32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static inline uint16_t wrep_get_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t wrep_get_be32(const uint8_t *p)
{
	return (uint32_t)wrep_get_be16(p) << 16 | wrep_get_be16(p + 2);
}

#endif
