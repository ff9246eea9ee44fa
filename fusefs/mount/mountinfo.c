/* Finds our mounts in /proc/self/mountinfo. A line there is
 *
 *   36 35 98:0 /root /mountpoint rw,noatime master:1 - fuse.dqlitefs /data/dir rw,user_id=0
 *   |          |     |                     |         | |             |
 *   mount id   root  mount point           optional  - type          source
 *
 * with blanks and backslashes inside a field written as \ooo. Later lines lie on top of earlier
 * ones at the same mount point.
 */
#include "mount/mountinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void fsd_mountinfo_unescape(char *field)
{
	char *to = field;

	for (const char *from = field; *from;) {
		if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' &&
		    from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
			*to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 |
				       (from[3] - '0'));
			from += 4;
		} else {
			*to++ = *from++;
		}
	}
	*to = '\0';
}

static bool copy_field(char *to, size_t size, char *field)
{
	if (!field)
		return false;
	fsd_mountinfo_unescape(field);
	if (strlen(field) >= size)
		return false;
	strcpy(to, field);
	return true;
}

bool fsd_mountinfo_parse(char *line, struct fsd_mountinfo *out)
{
	char *save = NULL, *field, *mountpoint;

	line[strcspn(line, "\n")] = '\0';
	field = strtok_r(line, " ", &save);
	if (!field)
		return false;
	out->id = atoi(field);
	strtok_r(NULL, " ", &save); /* parent */
	strtok_r(NULL, " ", &save); /* major:minor */
	strtok_r(NULL, " ", &save); /* root */
	mountpoint = strtok_r(NULL, " ", &save);
	do
		field = strtok_r(NULL, " ", &save);
	while (field && strcmp(field, "-"));
	return copy_field(out->mountpoint, sizeof(out->mountpoint), mountpoint) &&
	       copy_field(out->fstype, sizeof(out->fstype), strtok_r(NULL, " ", &save)) &&
	       copy_field(out->source, sizeof(out->source), strtok_r(NULL, " ", &save));
}

/* All of it, to be freed; NULL with errno. */
static char *read_all(int fd)
{
	size_t len = 0, room = 16384;
	char *text = malloc(room), *more;
	ssize_t n = 0;

	if (lseek(fd, 0, SEEK_SET) < 0) {
		free(text);
		return NULL;
	}
	while (text && (n = read(fd, text + len, room - 1 - len)) > 0) {
		len += (size_t)n;
		if (room - len > 4096)
			continue;
		more = realloc(text, room *= 2);
		if (!more)
			free(text);
		text = more;
	}
	if (text && n < 0) {
		free(text);
		return NULL;
	}
	if (text)
		text[len] = '\0';
	return text;
}

/* Calls `match` for each mount and keeps the last one it likes. */
static int find_in(int fd, bool (*match)(const struct fsd_mountinfo *m, const void *arg),
		   const void *arg, struct fsd_mountinfo *out)
{
	char *text = read_all(fd), *rest = text, *line;
	struct fsd_mountinfo m;
	int rv = -ENOENT;

	if (!text)
		return -errno;
	while ((line = strsep(&rest, "\n"))) {
		if (fsd_mountinfo_parse(line, &m) && match(&m, arg)) {
			*out = m;
			rv = 0;
		}
	}
	free(text);
	return rv;
}

static int find(bool (*match)(const struct fsd_mountinfo *m, const void *arg), const void *arg,
		struct fsd_mountinfo *out)
{
	int rv, fd = fsd_mountinfo_open();

	if (fd < 0)
		return fd;
	rv = find_in(fd, match, arg, out);
	close(fd);
	return rv;
}

static bool match_mountpoint(const struct fsd_mountinfo *m, const void *arg)
{
	return !strcmp(m->mountpoint, arg);
}

static bool is_aside(const char *mountpoint)
{
	const size_t size = sizeof(FSD_MOUNT_ASIDE), common = size - sizeof("XXXXXX");

	return strlen(mountpoint) == size - 1 && !strncmp(mountpoint, FSD_MOUNT_ASIDE, common) &&
	       !strchr(mountpoint + common, '/');
}

static bool match_data(const struct fsd_mountinfo *m, const void *arg)
{
	return !strcmp(m->fstype, FSD_FSTYPE) && !strcmp(m->source, arg) &&
	       !is_aside(m->mountpoint);
}

static bool match_aside(const struct fsd_mountinfo *m, const void *arg)
{
	return !strcmp(m->fstype, FSD_FSTYPE) && !strcmp(m->source, arg) && is_aside(m->mountpoint);
}

static bool match_id(const struct fsd_mountinfo *m, const void *arg)
{
	return m->id == *(const int *)arg;
}

int fsd_mountinfo_at(const char *mountpoint, struct fsd_mountinfo *out)
{
	return find(match_mountpoint, mountpoint, out);
}

int fsd_mountinfo_of_data(const char *data, struct fsd_mountinfo *out)
{
	return find(match_data, data, out);
}

int fsd_mountinfo_aside(const char *data, struct fsd_mountinfo *out)
{
	return find(match_aside, data, out);
}

int fsd_mountinfo_open(void)
{
	int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

bool fsd_mountinfo_has(int fd, int id)
{
	struct fsd_mountinfo m;
	int rv = fd < 0 ? find(match_id, &id, &m) : find_in(fd, match_id, &id, &m);

	return rv != -ENOENT;
}
