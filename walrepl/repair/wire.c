/* Frames over a blocking socket, with an eye on the time. */
#include "repair/wire.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <xxhash.h>
#include "base/bytes.h"

#define HEAD_BYTES 16
#define LOOK_MS 1000
#define PATIENCE 10 /* looks */

void wrep_stream_init(struct wrep_stream *s, int fd, bool (*stop)(void *arg), void *arg)
{
	*s = (struct wrep_stream){.fd = fd, .stop = stop, .arg = arg};
}

void wrep_stream_clear(struct wrep_stream *s)
{
	free(s->body);
	s->body = NULL;
	s->room = 0;
}

static int wait_for(struct wrep_stream *s, short events)
{
	struct pollfd p = {.fd = s->fd, .events = events};

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

static int send_all(struct wrep_stream *s, const uint8_t *bytes, size_t len)
{
	while (len) {
		ssize_t n;
		int rc = wait_for(s, POLLOUT);

		if (rc)
			return rc;
		n = send(s->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n > 0) {
			bytes += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

static int receive_all(struct wrep_stream *s, uint8_t *bytes, size_t len)
{
	while (len) {
		ssize_t n;
		int rc = wait_for(s, POLLIN);

		if (rc)
			return rc;
		n = recv(s->fd, bytes, len, MSG_DONTWAIT);
		if (n == 0)
			return -ECONNRESET;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n > 0) {
			bytes += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

int wrep_stream_send(struct wrep_stream *s, enum wrep_stream_type type, const void *body,
		     size_t len)
{
	uint8_t head[HEAD_BYTES];
	int rc;

	wrep_put32(head, type);
	wrep_put32(head + 4, (uint32_t)len);
	wrep_put64(head + 8, XXH3_64bits(body, len));
	rc = send_all(s, head, sizeof head);
	return rc ? rc : send_all(s, body, len);
}

int wrep_stream_receive(struct wrep_stream *s)
{
	uint8_t head[HEAD_BYTES];
	int rc = receive_all(s, head, sizeof head);

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
	rc = receive_all(s, s->body, s->len);
	if (!rc && XXH3_64bits(s->body, s->len) != wrep_get64(head + 8))
		rc = -EBADMSG;
	return rc;
}
