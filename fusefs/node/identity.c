/* The node's identity, a JSON object in DATA/.dqlitefs/node, mode 0600:
 *
 *   {"version": 1, "node": "1f00ba42", "cluster": "00c0ffee00c0ffee",
 *    "address": "127.0.0.1:4001", "state": "member"}
 *
 * Version 1 is the first. Numbers are hexadecimal strings, since JSON's own are doubles.
 *
 * A node chooses its number itself and saves it before it asks to join: if it dies in between, the
 * next start asks again under the same number, which is harmless. In the good case the file is
 * written two or three times in a life: with state "starting" or "joining", with the cluster it
 * joined, and with "member" once the log directory exists. Should its cluster lose its majority for good,
 * two times more: with the new cluster and the state "recovering", and with "member".
 */
#include "node/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define VERSION 1
#define FILE_MAX 4096

static const char *const state_names[] = {"starting", "joining", "member", "recovering"};

uint64_t fsd_identity_random64(void)
{
	uint64_t value = 0;

	while (!value) {
		if (getrandom(&value, sizeof(value), 0) != (ssize_t)sizeof(value))
			abort(); /* cannot fail for so few bytes once the machine is up */
	}
	return value;
}

uint32_t fsd_identity_random32(void)
{
	uint32_t value;

	do
		value = (uint32_t)fsd_identity_random64();
	while (!value);
	return value;
}

static int parse_hex(const char *text, size_t digits, uint64_t *out)
{
	if (!text || strlen(text) != digits || strspn(text, "0123456789abcdef") != digits)
		return -EINVAL;
	*out = strtoull(text, NULL, 16);
	return 0;
}

static int parse(const char *text, size_t len, struct fsd_identity *out)
{
	json_t *root = json_loadb(text, len, 0, NULL);
	const char *node, *cluster, *address, *state;
	char host[FSD_ADDRESS_SIZE], port[FSD_ADDRESS_SIZE];
	uint64_t number;
	int version, rv = -EINVAL;

	memset(out, 0, sizeof(*out));
	if (!root || json_unpack(root, "{s:i, s:s, s:s, s:s, s:s}", "version", &version, "node",
				 &node, "cluster", &cluster, "address", &address, "state", &state))
		goto out;
	if (version != VERSION) {
		rv = -EPROTONOSUPPORT;
		goto out;
	}
	if (parse_hex(node, 8, &number) || !number || parse_hex(cluster, 16, &out->cluster) ||
	    fsd_addr_split(address, host, port))
		goto out;
	out->node = (uint32_t)number;
	strcpy(out->address, address);
	for (size_t i = 0; i < sizeof(state_names) / sizeof(state_names[0]); i++) {
		if (!strcmp(state, state_names[i])) {
			out->state = (enum fsd_identity_state)i;
			rv = 0;
		}
	}
out:
	json_decref(root);
	return rv;
}

int fsd_identity_read(int state_fd, struct fsd_identity *out, char errmsg[FSD_ERRMSG_SIZE])
{
	char text[FILE_MAX];
	ssize_t len;
	int rv, fd = openat(state_fd, FSD_NODE_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0) {
		rv = -errno;
		return fsd_fail(errmsg, rv, "cannot open %s/%s: %s", FSD_STATE_DIR, FSD_NODE_FILE,
				strerror(-rv));
	}
	len = read(fd, text, sizeof(text));
	rv = len < 0 ? -errno : 0;
	close(fd);
	if (!rv)
		rv = parse(text, (size_t)len, out);
	if (rv == -EPROTONOSUPPORT)
		return fsd_fail(errmsg, rv, "%s/%s was written by a newer dqlitefs: use that one",
				FSD_STATE_DIR, FSD_NODE_FILE);
	if (rv)
		return fsd_fail(
			errmsg, rv,
			"%s/%s is damaged (%s): bring it back from a backup, or empty the data "
			"directory and join again with --join",
			FSD_STATE_DIR, FSD_NODE_FILE, strerror(-rv));
	return 0;
}

/* All of `text` into a file of its own, then over the name, so that a crash leaves the old one or
 * the new one. */
static int replace(int state_fd, const char *text)
{
	static const char temp[] = FSD_NODE_FILE ".new";
	size_t len = strlen(text);
	int rv = 0;
	int fd =
		openat(state_fd, temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	if (write(fd, text, len) != (ssize_t)len)
		rv = errno ? -errno : -ENOSPC;
	if (!rv && (fchmod(fd, 0600) || fsync(fd)))
		rv = -errno;
	if (close(fd) && !rv)
		rv = -errno;
	if (!rv && renameat(state_fd, temp, state_fd, FSD_NODE_FILE))
		rv = -errno;
	if (rv) {
		unlinkat(state_fd, temp, 0);
		return rv;
	}
	return fsync(state_fd) ? -errno : 0;
}

int fsd_identity_write(int state_fd, const struct fsd_identity *identity,
		       char errmsg[FSD_ERRMSG_SIZE])
{
	char text[FILE_MAX];
	int rv;

	/* An address that parsed has no character that JSON would want escaped. */
	snprintf(text, sizeof(text),
		 "{\"version\": %d, \"node\": \"%08" PRIx32 "\", \"cluster\": \"%016" PRIx64
		 "\",\n \"address\": \"%s\", \"state\": \"%s\"}\n",
		 VERSION, identity->node, identity->cluster, identity->address,
		 state_names[identity->state]);
	errno = 0;
	rv = replace(state_fd, text);
	if (rv)
		return fsd_fail(errmsg, rv, "cannot write %s/%s: %s", FSD_STATE_DIR, FSD_NODE_FILE,
				strerror(-rv));
	return 0;
}

int fsd_identity_lock(int state_fd, bool create, pid_t *owner)
{
	char text[32] = "";
	int rv, fd = openat(state_fd, FSD_LOCK_FILE,
			    O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), 0600);

	*owner = 0;
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		rv = -errno;
		if (rv == -EWOULDBLOCK && read(fd, text, sizeof(text) - 1) > 0)
			*owner = atoi(text);
		close(fd);
		return rv;
	}
	return fd;
}

int fsd_identity_sign_lock(int lock_fd)
{
	char text[32];

	snprintf(text, sizeof(text), "%d\n", getpid());
	if (ftruncate(lock_fd, 0) || pwrite(lock_fd, text, strlen(text), 0) < 0)
		return -errno;
	return 0;
}
