/* A membership: its bytes, which are libraft's encoding, and who is in it. */
#include "base/configuration.h"

#include <errno.h>
#include <string.h>
#include "base/address.h"
#include "base/cursor.h"

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

struct rlog_buf *rlog_configuration_encode(const struct raft_configuration *conf)
{
	struct raft_buffer encoded;
	struct rlog_buf *buf;

	if (raft_configuration_encode(conf, &encoded) != 0)
		return NULL;
	buf = rlog_buf_new(encoded.len);
	if (buf != NULL)
		memcpy(buf->data, encoded.base, encoded.len);
	raft_free(encoded.base);
	return buf;
}

struct rlog_buf *rlog_configuration_alone(uint64_t id, const char *address)
{
	struct raft_configuration conf;
	struct rlog_buf *buf = NULL;

	raft_configuration_init(&conf);
	if (raft_configuration_add(&conf, id, address, RAFT_VOTER) == 0)
		buf = rlog_configuration_encode(&conf);
	raft_configuration_close(&conf);
	return buf;
}

struct raft_server *rlog_configuration_find(const struct raft_configuration *conf, uint64_t id)
{
	for (unsigned i = 0; i < conf->n; i++)
		if (conf->servers[i].id == id)
			return &conf->servers[i];
	return NULL;
}

bool rlog_configuration_sole_voter(const struct raft_configuration *conf, uint64_t id)
{
	unsigned voters = 0;
	bool self = false;

	for (unsigned i = 0; i < conf->n; i++) {
		if (conf->servers[i].role != RAFT_VOTER)
			continue;
		voters++;
		self = self || conf->servers[i].id == id;
	}
	return self && voters == 1;
}

unsigned rlog_configuration_members(const struct raft_configuration *conf,
				    struct rlog_member out[RLOG_MEMBERS_MAX])
{
	unsigned count = 0;

	for (unsigned i = 0; i < conf->n && count < RLOG_MEMBERS_MAX; i++) {
		const struct raft_server *server = &conf->servers[i];
		struct rlog_member *member = &out[count++];

		memset(member, 0, sizeof *member);
		member->id = server->id;
		strncpy(member->address, server->address, sizeof member->address - 1);
		member->role = server->role == RAFT_VOTER     ? RLOG_VOTER
			       : server->role == RAFT_STANDBY ? RLOG_STANDBY
							      : RLOG_SPARE;
	}
	return count;
}
