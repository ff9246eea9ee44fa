/* /proc/locks tells of all locks of the machine, and taking it stops every lock call there for as long as it
 * is read. /proc/PID/fdinfo/FD tells of one process's locks on one file, and stops nobody.
 */
#include "mount/locks.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* All of /proc/locks, to be freed; NULL: no memory. `*at_once`: as of one moment. The kernel hands it out in
 * pieces, and from one to the next counts lines: when a lock goes that was told of already, another one
 * is passed over. */
static char *read_locks(bool *at_once)
{
	size_t len = 0, room = 8192;
	char *text = malloc(room);
	unsigned pieces = 0;
	ssize_t n = 0;
	int fd = open("/proc/locks", O_RDONLY | O_CLOEXEC);

	while (text && fd >= 0 && (n = read(fd, text + len, room - 1 - len)) > 0) {
		len += (size_t)n;
		pieces++;
		if (room - len < 4096 + 1) {
			char *more = realloc(text, room *= 2);

			if (!more)
				free(text);
			text = more;
		}
	}
	if (fd >= 0)
		close(fd);
	if (text)
		text[len] = '\0';
	*at_once = pieces <= 1 && n == 0;
	return text;
}

/* The holder of the lock according to this text; -1: one that is not known here; 0: nobody.
 * "1: POSIX  ADVISORY  WRITE 4711 00:2a:5 120 120": process, device and inode, first and last byte. */
static pid_t find_lock(char *text, const struct fsd_locked_file *file, uint64_t byte)
{
	unsigned long long ino, first, last;
	unsigned major, minor;
	char *line;
	int pid;

	while ((line = strsep(&text, "\n")))
		/* (SQLite's have a last byte, where others may say "EOF".) */
		if (sscanf(line, "%*s POSIX ADVISORY WRITE %d %x:%x:%llu %llu %llu", &pid, &major,
			   &minor, &ino, &first, &last) == 6 &&
		    major == 0 && minor == file->device && ino == file->number && first <= byte &&
		    byte <= last)
			return pid ? pid : -1;
	return 0;
}

/* Where there are too many locks for one piece, so often until one is believed not to be held. */
#define LOCKS_READS 20

pid_t fsd_lock_holder(const struct fsd_locked_file *file, uint64_t byte)
{
	bool at_once = false;
	pid_t holder = 0;

	for (int i = 0; i < LOCKS_READS && !holder && !at_once; i++) {
		char *text = read_locks(&at_once);

		holder = find_lock(text, file, byte);
		free(text);
	}
	return holder;
}

/* ---- one process --------------------------------------------------------------------------------- */

/* The next of its descriptors of the file that `dir`, its /proc/PID/fd, lists; NULL: there is no more. */
static const char *next_descriptor(DIR *dir, const struct fsd_locked_file *file)
{
	struct dirent *entry;
	struct statx about;

	while (dir && (entry = readdir(dir)))
		/* The kernel's own knowledge: asking for more would come back here as a request. */
		if (entry->d_name[0] != '.' &&
		    !statx(dirfd(dir), entry->d_name, AT_STATX_DONT_SYNC, STATX_INO, &about) &&
		    about.stx_dev_major == 0 && about.stx_dev_minor == file->device &&
		    about.stx_ino == file->number)
			return entry->d_name;
	return NULL;
}

static DIR *open_descriptors(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	return opendir(path);
}

bool fsd_has_open(const struct fsd_locked_file *file, pid_t pid)
{
	DIR *dir = open_descriptors(pid);
	bool found = next_descriptor(dir, file);

	if (dir)
		closedir(dir);
	return found;
}

/* Is no write lock on the byte held through that descriptor? A line for each that is:
 * "lock:	1: POSIX  ADVISORY  WRITE 4711 00:2a:5 120 120". */
static bool is_free(pid_t pid, const char *descriptor, uint64_t byte)
{
	unsigned long long first, last;
	char path[64], line[256];
	bool read = false, held = false;
	FILE *text;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%.20s", pid, descriptor);
	text = fopen(path, "re");
	while (text && fgets(line, sizeof(line), text)) {
		read = true;
		/* (What is no number is "EOF".) */
		if (sscanf(line, "lock: %*s POSIX ADVISORY WRITE %*d %*s %llu %llu", &first,
			   &last) == 2)
			held |= first <= byte && byte <= last;
		else if (strstr(line, " WRITE ") && strstr(line, " EOF"))
			held = true;
	}
	if (text)
		fclose(text);
	return read && !held;
}

/* A process that ends gives up its table of descriptors first, and its locks after the FLUSH requests have
 * been answered: so no descriptor to be seen says nothing. One that is seen, without the lock, says that the
 * lock has been released. */
bool fsd_lock_may_be_held(const struct fsd_locked_file *file, uint64_t byte, pid_t pid)
{
	const char *descriptor;
	bool free_ = false;
	DIR *dir;

	if (pid <= 0)
		return true;
	dir = open_descriptors(pid);
	while ((descriptor = next_descriptor(dir, file))) {
		free_ = is_free(pid, descriptor, byte);
		if (!free_)
			break;
	}
	if (dir)
		closedir(dir);
	return !free_;
}
