#include "node/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

pid_t fsd_process_of(pid_t tid)
{
	char path[64], line[128];
	int pid = tid;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	file = fopen(path, "re");
	if (!file)
		return tid;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "Tgid: %d", &pid) == 1)
			break;
	fclose(file);
	return pid;
}

/* /proc/TID/stat: what follows the name, which may hold anything, is the 3rd field on. The 9th are its
 * flags, the 52nd is what it exits with, as of wait(2). */
bool fsd_process_is_killed(pid_t tid)
{
	const unsigned long exiting = 4; /* PF_EXITING */
	unsigned long flags = 0, code = 0;
	char path[64], text[1024], *at;
	size_t len;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	file = fopen(path, "re");
	if (!file)
		return false;
	len = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[len] = '\0';
	at = strrchr(text, ')');
	for (int field = 3; at && field <= 52; field++) {
		at = strchr(at + 1, ' ');
		if (at && field == 9)
			flags = strtoul(at, NULL, 10);
		else if (at && field == 52)
			code = strtoul(at, NULL, 10);
	}
	return (flags & exiting) && (code & 0x7f);
}

/* Has the thread a signal that it does not block? A thread that is gone counts as one. */
bool fsd_process_has_signal(pid_t tid)
{
	unsigned long long pending = 0, blocked = 0, mask;
	char path[64], line[256];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	file = fopen(path, "re");
	if (!file)
		return errno == ENOENT; /* and not for want of a descriptor */
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "SigPnd: %llx", &mask) == 1 ||
		    sscanf(line, "ShdPnd: %llx", &mask) == 1)
			pending |= mask;
		else if (sscanf(line, "SigBlk: %llx", &mask) == 1)
			blocked = mask;
	}
	fclose(file);
	return (pending & ~blocked) != 0;
}

/* The main thread has ended, but the process has not. */
bool fsd_process_is_dying(pid_t pid)
{
	char path[64], text[512];
	const char *after_name;
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	got = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[got > 0 ? got : 0] = '\0';
	after_name = strrchr(text, ')');
	return after_name && !strncmp(after_name, ") Z", 3);
}
