/* Reading /proc/self/mountinfo (proc(5)). */
#ifndef FUSEFS_MOUNTINFO_H
#define FUSEFS_MOUNTINFO_H

#include <limits.h>
#include <stdbool.h>

#define FSD_FSTYPE "fuse.dqlitefs"

struct fsd_mountinfo {
	int id;
	char mountpoint[PATH_MAX];
	char fstype[64];
	char source[PATH_MAX]; /* of ours: the data directory */
};

/* The topmost mount at exactly `mountpoint` (an absolute path). 0, -ENOENT, -errno. */
int fsd_mountinfo_at(const char *mountpoint, struct fsd_mountinfo *out);

/* Where a mount is made before it takes the place of a dead one, for mkdtemp(). */
#define FSD_MOUNT_ASIDE "/run/dqlitefs-XXXXXX"

/* A mount of ours whose data directory is `data`, not one that is aside. 0, -ENOENT, -errno. */
int fsd_mountinfo_of_data(const char *data, struct fsd_mountinfo *out);

/* The same, but only one that is aside. */
int fsd_mountinfo_aside(const char *data, struct fsd_mountinfo *out);

/* A descriptor of it, which poll(2) knows for POLLPRI when the mounts have changed; or -errno. */
int fsd_mountinfo_open(void);

/* Is mount `id` still there? When that cannot be told, yes. `fd` is of fsd_mountinfo_open(), so that no
 * lack of descriptors stands in the way; -1: open one. */
bool fsd_mountinfo_has(int fd, int id);

/* Undo the \ooo escapes of a field, in place. */
void fsd_mountinfo_unescape(char *field);

/* One line into `out`; false when it is no line of mountinfo. */
bool fsd_mountinfo_parse(char *line, struct fsd_mountinfo *out);

#endif
