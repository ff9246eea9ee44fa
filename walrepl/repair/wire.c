/* Frames over a blocking socket, with an eye on the time. */
#include "repair/wire.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "base/bytes.h"
#include "whole.h"

#define HEAD_BYTES 16
#define LOOK_MS 1000
#define PATIENCE 10 /* looks */

void wrep_wire_init(struct wrep_wire *s, int fd, bool (*stop)(void *arg), void *arg)
{
	*s = (struct wrep_wire){.fd = fd, .stop = stop, .arg = arg};
}

void wrep_wire_clear(struct wrep_wire *s)
{
	free(s->body);
	s->body = NULL;
	s->room = 0;
}

/* As of struct rlog_waiter. */
static int wait_for(void *arg, int fd, short events)
{
	struct wrep_wire *s = arg;
	struct pollfd p = {.fd = fd, .events = events};

	for (int i = 0; i < PATIENCE; i++) {
		int n = poll(&p, 1, LOOK_MS);

		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (s->stop(s->arg))
			return -ECANCELED;
	}
	return -ETIMEDOUT;
}

int wrep_wire_send(struct wrep_wire *s, enum wrep_wire_type type, const void *body, size_t len)
{
	const struct rlog_waiter waiter = {wait_for, s};
	uint8_t head[HEAD_BYTES];
	int rc;

	wrep_put32(head, type);
	wrep_put32(head + 4, (uint32_t)len);
	wrep_put64(head + 8, XXH3_64bits(body, len));
	rc = rlog_send_whole(s->fd, head, sizeof head, &waiter);
	return rc ? rc : rlog_send_whole(s->fd, body, len, &waiter);
}

int wrep_wire_receive(struct wrep_wire *s)
{
	const struct rlog_waiter waiter = {wait_for, s};
	uint8_t head[HEAD_BYTES];
	int rc = rlog_receive_whole(s->fd, head, sizeof head, &waiter);

	if (rc)
		return rc;
	s->type = wrep_get32(head);
	s->len = wrep_get32(head + 4);
	if (s->len > WREP_STREAM_BODY_MAX)
		return -EBADMSG;
	if (s->len > s->room) {
		free(s->body);
		s->room = 0;
		s->body = malloc(s->len);
		if (!s->body)
			return -ENOMEM;
		s->room = s->len;
	}
	rc = rlog_receive_whole(s->fd, s->body, s->len, &waiter);
	if (!rc && XXH3_64bits(s->body, s->len) != wrep_get64(head + 8))
		rc = -EBADMSG;
	return rc;
}
