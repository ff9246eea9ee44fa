/* The snapshot's bytes and its file. */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "log/scan.h"
#include "log/snapshot.h"
#include "base/configuration.h"

#define SNAPSHOT_VERSION 1
#define SNAPSHOT_ASIDE RLOG_SNAPSHOT_NAME ".tmp"

static const char magic[4] = {'d', 'q', 'l', 'S'};

struct header {
	char magic[4];
	uint32_t version;
	uint64_t cluster_id, index, term, taken_term, conf_index;
	uint32_t conf_len, payload_len;
	uint64_t content_hash, hash;
};
static_assert(sizeof(struct header) == 72, "the layout of a snapshot's header");

struct rlog_buf *rlog_snapshot_encode(uint64_t cluster_id, const struct rlog_snapshot *s)
{
	const size_t room = RLOG_SNAPSHOT_MAX - sizeof(struct header);
	struct rlog_buf *image = NULL;
	struct header h = {
		.version = htole32(SNAPSHOT_VERSION),
		.cluster_id = htole64(cluster_id),
		.index = htole64(s->index),
		.term = htole64(s->term),
		.taken_term = htole64(s->taken_term),
		.conf_index = htole64(s->conf_index),
		.conf_len = htole32((uint32_t)s->conf_len),
		.payload_len = htole32((uint32_t)s->payload_len),
	};
	uint8_t *content;

	if (s->conf_len > room || s->payload_len > room - s->conf_len) {
		errno = EFBIG;
		return NULL;
	}
	image = rlog_buf_new(sizeof(h) + s->conf_len + s->payload_len);
	if (!image) {
		errno = ENOMEM;
		return NULL;
	}
	content = image->data + sizeof(h);
	memcpy(h.magic, magic, sizeof(magic));
	memcpy(content, s->conf, s->conf_len);
	if (s->payload_len > 0)
		memcpy(content + s->conf_len, s->payload, s->payload_len);
	h.content_hash = htole64(XXH3_64bits(content, s->conf_len + s->payload_len));
	h.hash = htole64(XXH3_64bits(&h, offsetof(struct header, hash)));
	memcpy(image->data, &h, sizeof(h));
	return image;
}

int rlog_snapshot_decode(struct rlog_buf *image, uint64_t cluster_id, struct rlog_snapshot *out)
{
	struct header h;
	uint64_t content;

	memset(out, 0, sizeof(*out));
	if (image->len < sizeof(h))
		return -EBADMSG;
	memcpy(&h, image->data, sizeof(h));
	content = (uint64_t)le32toh(h.conf_len) + le32toh(h.payload_len);
	if (memcmp(h.magic, magic, sizeof(magic)) != 0 ||
	    le64toh(h.hash) != XXH3_64bits(&h, offsetof(struct header, hash)))
		return -EBADMSG;
	if (le32toh(h.version) != SNAPSHOT_VERSION)
		return -ENOTSUP;
	if (image->len != sizeof(h) + content ||
	    le64toh(h.content_hash) != XXH3_64bits(image->data + sizeof(h), content))
		return -EBADMSG;
	if (le64toh(h.cluster_id) != cluster_id)
		return -EXDEV;
	out->index = le64toh(h.index);
	out->term = le64toh(h.term);
	out->taken_term = le64toh(h.taken_term);
	out->conf_index = le64toh(h.conf_index);
	out->conf = image->data + sizeof(h);
	out->conf_len = le32toh(h.conf_len);
	out->payload = out->conf + out->conf_len;
	out->payload_len = le32toh(h.payload_len);
	if (out->index == 0 || out->term == 0 || out->taken_term < out->term ||
	    out->conf_index == 0 || out->conf_index > out->index ||
	    rlog_configuration_check(out->conf, out->conf_len) != 0)
		return -EBADMSG;
	out->image = rlog_buf_ref(image);
	return 0;
}

void rlog_snapshot_clear(struct rlog_snapshot *s)
{
	rlog_buf_unref(s->image);
	memset(s, 0, sizeof(*s));
}

int rlog_snapshot_store(struct rlog_disk *d, const struct rlog_buf *image)
{
	size_t bytes = (image->len + RLOG_BLOCK - 1) / RLOG_BLOCK * RLOG_BLOCK;
	uint8_t *block = aligned_alloc(RLOG_BLOCK, bytes);
	struct iovec iov = {block, bytes};
	int handle, err;
	int64_t rv;

	if (!block)
		return -ENOMEM;
	memcpy(block, image->data, image->len);
	memset(block + image->len, 0, bytes - image->len);
	handle = d->open(d, SNAPSHOT_ASIDE, true);
	if (handle == -EEXIST) {
		err = d->unlink(d, SNAPSHOT_ASIDE);
		handle = err < 0 ? err : d->open(d, SNAPSHOT_ASIDE, true);
	}
	if (handle < 0) {
		free(block);
		return handle;
	}
	rv = d->pwritev(d, handle, &iov, 1, 0);
	free(block);
	err = d->close(d, handle);
	if (rv >= 0)
		rv = err;
	if (rv >= 0)
		rv = d->replace(d, SNAPSHOT_ASIDE, RLOG_SNAPSHOT_NAME);
	if (rv >= 0)
		return d->sync_dir(d);
	d->unlink(d, SNAPSHOT_ASIDE);
	return (int)rv;
}

static int read_image(struct rlog_disk *d, int handle, struct rlog_buf **out)
{
	int64_t size = d->size(d, handle), got = 0;
	struct rlog_buf *padded;
	struct header h;
	uint8_t *block;
	uint64_t len;

	if (size < 0)
		return (int)size;
	if (size < RLOG_BLOCK || size % RLOG_BLOCK || size > RLOG_SNAPSHOT_MAX)
		return -EBADMSG;
	block = aligned_alloc(RLOG_BLOCK, (size_t)size);
	if (!block)
		return -ENOMEM;
	got = d->pread(d, handle, block, (size_t)size, 0);
	if (got != size) {
		free(block);
		return got < 0 ? (int)got : -EIO;
	}
	memcpy(&h, block, sizeof(h));
	len = sizeof(h) + (uint64_t)le32toh(h.conf_len) + le32toh(h.payload_len);
	if (len > (uint64_t)size) {
		free(block);
		return -EBADMSG;
	}
	padded = rlog_buf_new((size_t)len);
	if (padded)
		memcpy(padded->data, block, (size_t)len);
	free(block);
	*out = padded;
	return padded ? 0 : -ENOMEM;
}

int rlog_snapshot_load(struct rlog_disk *d, uint64_t cluster_id, struct rlog_snapshot *out,
		       char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_buf *image = NULL;
	int handle = d->open(d, RLOG_SNAPSHOT_NAME, false), rv;

	memset(out, 0, sizeof(*out));
	if (handle == -ENOENT)
		return 0;
	rv = handle < 0 ? handle : read_image(d, handle, &image);
	if (handle >= 0)
		d->close(d, handle);
	if (rv == 0)
		rv = rlog_snapshot_decode(image, cluster_id, out);
	rlog_buf_unref(image);
	switch (rv) {
	case 0:
		break;
	case -EBADMSG:
		snprintf(errmsg, RLOG_ERRMSG_SIZE,
			 "raft log damaged file=" RLOG_SNAPSHOT_NAME
			 " offset=0 (the snapshot is not valid): " RLOG_RESTORE_HINT);
		break;
	case -ENOTSUP:
		snprintf(errmsg, RLOG_ERRMSG_SIZE,
			 "the raft log was written by a later version file=" RLOG_SNAPSHOT_NAME
			 ": upgrade this node");
		break;
	case -EXDEV:
		snprintf(errmsg, RLOG_ERRMSG_SIZE,
			 "raft log of another cluster file=" RLOG_SNAPSHOT_NAME
			 ": give the data directory of this node, or remove it and join again");
		break;
	default:
		snprintf(errmsg, RLOG_ERRMSG_SIZE,
			 "cannot read the raft log file=" RLOG_SNAPSHOT_NAME ": %s", strerror(-rv));
	}
	return rv;
}
