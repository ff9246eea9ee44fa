/* A membership as bytes: libraft's encoding. */
#include "base/configuration.h"

#include <errno.h>
#include "base/address.h"
#include "base/cursor.h"
#include "raftlog.h"

/* libraft's src/configuration.c: version (u8, 1), count (u64), `count` times id (u64), address
 * (zero-terminated), role (u8); zeros up to a multiple of 8 bytes. */
int rlog_configuration_check(const uint8_t *bytes, size_t len)
{
	struct reader r = {.at = bytes, .left = len};
	uint64_t count;

	if (get8(&r) != 1)
		return -EPROTO;
	count = get64(&r);
	if (count == 0 || count > RLOG_MEMBERS_MAX)
		return -EPROTO;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t id = get64(&r);
		size_t address_len = strnlen((const char *)r.at, r.left);

		if (id == 0 || address_len == 0 || address_len >= RLOG_ADDRESS_MAX ||
		    address_len == r.left)
			return -EPROTO;
		r.at += address_len + 1;
		r.left -= address_len + 1;
		if (get8(&r) > RAFT_SPARE || r.short_of_bytes)
			return -EPROTO;
	}
	return r.left < 8 ? 0 : -EPROTO;
}
