/* The node that asks: to join a cluster, or for a stream to another member. */
#include "net/dial.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "whole.h"

#define RETRY_MS 100
#define ATTEMPT_MS 4000

/* As of struct rlog_waiter; `arg` is the time until which it may take. */
static int wait_until(void *arg, int fd, short events)
{
	const uint64_t until_ms = *(const uint64_t *)arg;
	struct pollfd p = {.fd = fd, .events = events};
	uint64_t now = rlog_clock_ms();
	int rv = poll(&p, 1, now >= until_ms ? 0 : (int)(until_ms - now));

	if (rv < 0)
		return -errno;
	return rv == 0 ? -ETIMEDOUT : 0;
}

static int dial(const char *address, uint64_t until_ms)
{
	struct sockaddr_storage to;
	socklen_t len;
	int rv = rlog_address_resolve(address, true, &to, &len);
	int error = 0;
	socklen_t error_len = sizeof error;
	int fd;

	if (rv != 0)
		return rv;
	fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&to, len) == 0)
		return fd;
	rv = errno == EINPROGRESS ? wait_until(&until_ms, fd, POLLOUT) : -errno;
	if (rv == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_len) == 0 && error != 0)
		rv = -error;
	if (rv != 0) {
		close(fd);
		return rv;
	}
	return fd;
}

/* Send a message and receive the answer, of type `expected`; nothing behind it is read. */
static int exchange(int fd, const struct rlog_message *question, enum rlog_message_type expected,
		    struct rlog_message *reply, uint64_t until_ms)
{
	uint8_t header[RLOG_FRAME_HEADER], body[1024];
	struct rlog_frame *f = rlog_frame_new(question);
	const struct rlog_waiter waiter = {wait_until, &until_ms};
	struct rlog_frame_header h;
	int rv;

	if (f == NULL)
		return -ENOMEM;
	rv = rlog_send_whole(fd, f->head, f->bytes, &waiter);
	rlog_frame_free(f);
	if (rv == 0)
		rv = rlog_receive_whole(fd, header, sizeof header, &waiter);
	if (rv == 0 && (rlog_frame_header_read(header, &h) != 0 || h.type != expected ||
			h.body_bytes > sizeof body))
		rv = -EPROTO;
	if (rv == 0)
		rv = rlog_receive_whole(fd, body, h.body_bytes, &waiter);
	if (rv == 0 && rlog_message_read(&h, body, reply) != 0)
		rv = -EPROTO;
	return rv;
}

/* One question to one member. 0 and its answer, or -errno. */
static int ask(const char *address, const struct rlog_message *question, struct rlog_message *reply,
	       uint64_t until_ms)
{
	int fd = dial(address, until_ms), rv;

	if (fd < 0)
		return fd;
	rv = exchange(fd, question, RLOG_MSG_JOINED, reply, until_ms);
	close(fd);
	return rv;
}

int rlog_dial_stream(const struct rlog_self *self, uint64_t id, const char *address,
		     unsigned timeout_ms, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_message question = {.type = RLOG_MSG_STREAM}, reply;
	const uint64_t until_ms = rlog_clock_ms() + timeout_ms;
	int fd = dial(address, until_ms), rv, one = 1;

	errmsg[0] = 0;
	question.hello.cluster_id = self->cluster_id;
	question.hello.from = self->id;
	question.hello.to = id;
	memcpy(question.hello.address, self->address, sizeof question.hello.address);
	question.reads = self->format_reads;
	rv = fd < 0 ? fd : exchange(fd, &question, RLOG_MSG_WELCOME, &reply, until_ms);
	if (rv == 0 && reply.welcome.answer == RLOG_ANSWER_NO_MEMBER)
		rv = -EPERM;
	else if (rv == 0 && reply.welcome.answer == RLOG_ANSWER_TOO_OLD)
		rv = -ENOTSUP;
	else if (rv == 0 && (reply.welcome.answer != RLOG_ANSWER_OK || reply.welcome.from != id))
		rv = -EXDEV;
	if (rv == 0 && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) < 0)
		rv = -errno;
	if (rv == 0) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		return fd;
	}
	if (fd >= 0)
		close(fd);
	snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot reach node=%08llx address=%.128s: %s",
		 (unsigned long long)id, address,
		 rv == -EXDEV	? "another node answers there"
		 : rv == -EPERM ? "this node is not a member there: join again"
		 : rv == -ENOTSUP
			 ? "its log has entries of a newer format than this version reads: upgrade "
			   "this node"
			 : strerror(-rv));
	return rv;
}

static void sleep_ms(unsigned ms)
{
	poll(NULL, 0, (int)ms);
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* A member's answer to JOIN: 0 (added), -EAGAIN (ask again, at `at`), or another -errno with a line in
 * `errmsg`. */
static int take_answer(const struct rlog_message *reply, struct rlog_joiner *self,
		       char at[RLOG_ADDRESS_MAX], char errmsg[RLOG_ERRMSG_SIZE])
{
	switch (reply->joined.answer) {
	case RLOG_ANSWER_OK:
		self->cluster_id = reply->joined.cluster_id;
		return 0;
	case RLOG_ANSWER_OTHER_CLUSTER:
		snprintf(errmsg, RLOG_ERRMSG_SIZE,
			 "%.100s is of another cluster (%016llx) than this data directory "
			 "(%016llx): join a member of the same, or start empty",
			 at, (unsigned long long)reply->joined.cluster_id,
			 (unsigned long long)self->cluster_id);
		return -EXDEV;
	case RLOG_ANSWER_ADDRESS_USED:
		snprintf(errmsg, RLOG_ERRMSG_SIZE,
			 "another member has the address %.128s: listen on another one, "
			 "or remove that member",
			 self->address);
		return -EADDRINUSE;
	case RLOG_ANSWER_FULL:
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "the cluster has its %d members: remove one",
			 RLOG_MEMBERS_MAX);
		return -EPROTO;
	case RLOG_ANSWER_TOO_OLD:
		snprintf(errmsg, RLOG_ERRMSG_SIZE,
			 "the log at %.90s has entries of a newer format (level %u) than this "
			 "version reads (%u): install the version of its members, then try again",
			 at, reply->needs, RLOG_FORMAT_LEVEL);
		return -EPROTO;
	case RLOG_ANSWER_LEADER:
		strcpy(at, reply->joined.address);
		return -EAGAIN;
	default:
		return -EAGAIN;
	}
}

/* No member has added it in time; `error` is of the last attempt, or 0: it was answered. */
static int gave_up(const char *peer, bool reached, int error, char errmsg[RLOG_ERRMSG_SIZE])
{
	if (reached)
		snprintf(errmsg, RLOG_ERRMSG_SIZE,
			 "the cluster at %.128s has no leader now: see that most of its nodes run, "
			 "then try again",
			 peer);
	else
		snprintf(errmsg, RLOG_ERRMSG_SIZE,
			 "nobody answers at %.128s (%s): check the address, and that the node runs",
			 peer, strerror(-error));
	return -EHOSTUNREACH;
}

int rlog_join(const char *peer, struct rlog_joiner *self, unsigned timeout_ms,
	      char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_message question = {.type = RLOG_MSG_JOIN}, reply;
	const uint64_t until_ms = rlog_clock_ms() + timeout_ms;
	char at[RLOG_ADDRESS_MAX];
	bool reached = false;
	int rv, result;

	errmsg[0] = 0;
	if (strlen(self->address) >= RLOG_ADDRESS_MAX || strlen(peer) >= RLOG_ADDRESS_MAX) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE, "an address is longer than %d bytes",
			 RLOG_ADDRESS_MAX - 1);
		return -ENAMETOOLONG;
	}
	question.join.cluster_id = self->cluster_id;
	question.join.id = self->id;
	question.reads = RLOG_FORMAT_LEVEL;
	strcpy(question.join.address, self->address);
	strcpy(at, peer);
	for (;;) {
		/* One attempt must not eat all the time: its member may have died under way. */
		rv = ask(at, &question, &reply, sooner(until_ms, rlog_clock_ms() + ATTEMPT_MS));
		if (rv == -EINVAL || rv == -EPROTO) {
			snprintf(errmsg, RLOG_ERRMSG_SIZE,
				 rv == -EINVAL
					 ? "%.128s is not an address: write HOST:PORT"
					 : "whatever answers at %.128s is not a dqlitefs node, or "
					   "of another version: check the address",
				 at);
			return -EPROTO;
		}
		if (rv == 0) {
			reached = true;
			result = take_answer(&reply, self, at, errmsg);
			if (result != -EAGAIN)
				return result;
		} else {
			strcpy(at, peer); /* the leader we were sent to may be gone */
		}
		if (rlog_clock_ms() + RETRY_MS >= until_ms)
			return gave_up(peer, reached, rv, errmsg);
		sleep_ms(rv == 0 && reply.joined.answer == RLOG_ANSWER_LEADER ? 1 : RETRY_MS);
	}
}
