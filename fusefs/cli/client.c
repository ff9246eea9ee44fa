/* Finds the data directory of a mount in /proc/self/mountinfo, where the mount's source names it,
 * and talks to the control socket there.
 */
#include "cli/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include "cli/cli.h"
#include "node/identity.h"
#include "node/paths.h"

int fsd_client_find(const char *mountpoint, char *path, struct fsd_mountinfo *out)
{
	/* A dead mount's own directory cannot be asked, but the way to it can. */
	if (fsd_path_resolve(mountpoint, path)) {
		fsd_complain("no such directory: %s", mountpoint);
		return -ENOENT;
	}
	if (fsd_mountinfo_at(path, out) || strcmp(out->fstype, FSD_FSTYPE)) {
		if (access(path, F_OK) && errno == ENOENT)
			fsd_complain("no such directory: %s", mountpoint);
		else
			fsd_complain("%s is not a dqlitefs mount: 'dqlitefs mount %s' makes it one",
				     path, mountpoint);
		return -ENOENT;
	}
	return 0;
}

static int dial(const char *data)
{
	const struct timeval patience = {.tv_sec = 30};
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	char dir[PATH_MAX + 16];
	int dir_fd, rv = 0, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	snprintf(dir, sizeof(dir), "%s/%s", data, FSD_STATE_DIR);
	dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0) {
		rv = -errno;
	} else {
		snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/%s", dir_fd,
			 FSD_CONTROL_SOCKET);
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
		if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
			rv = -errno;
		close(dir_fd);
	}
	if (rv) {
		close(fd);
		return rv;
	}
	return fd;
}

static json_t *receive(int fd)
{
	FILE *stream = fdopen(fd, "r");
	json_t *answer;

	if (!stream) {
		close(fd);
		return NULL;
	}
	answer = json_loadf(stream, 0, NULL);
	fclose(stream);
	return answer;
}

const char *fsd_client_text(json_t *object, const char *key, char out[FSD_SHOWN_SIZE])
{
	char *bytes = fsd_bytes_of(json_object_get(object, key));

	fsd_shown(bytes ? bytes : "-", out);
	free(bytes);
	return out;
}

json_t *fsd_client_call(const char *data, json_t *request)
{
	char *text = json_dumps(request, JSON_COMPACT);
	json_t *answer = NULL;
	char *error;
	int fd = dial(data);

	json_decref(request);
	if (fd < 0) {
		if (fd == -EACCES || fd == -EPERM)
			fsd_complain("only root may talk to the daemon: run it with sudo");
		else
			fsd_complain("the daemon of %s does not answer (%s): see %s/%s/%s", data,
				     strerror(-fd), data, FSD_STATE_DIR, FSD_LOG_FILE);
		free(text);
		return NULL;
	}
	if (text && send(fd, text, strlen(text), MSG_NOSIGNAL) > 0 &&
	    send(fd, "\n", 1, MSG_NOSIGNAL) == 1)
		answer = receive(fd);
	else
		close(fd);
	free(text);
	if (!answer) {
		fsd_complain("the daemon of %s hung up without an answer: see %s/%s/%s", data, data,
			     FSD_STATE_DIR, FSD_LOG_FILE);
	} else if (json_object_get(answer, "error")) {
		error = fsd_bytes_of(json_object_get(answer, "error"));
		fsd_complain("%s", error ? error : "the daemon's answer cannot be understood");
		free(error);
		json_decref(answer);
		answer = NULL;
	}
	return answer;
}
