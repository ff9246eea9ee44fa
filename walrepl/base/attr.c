/* Mode, owner and times of an open file, see attr.h. */
#include "base/attr.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

int wrep_attr_own(int fd, mode_t mode, uid_t uid, gid_t gid)
{
	return fchown(fd, uid, gid) < 0 || fchmod(fd, mode & 07777) < 0 ? -errno : 0;
}

int wrep_attr_set(int fd, const struct wrep_attr *attr)
{
	/* The owner first: a change of it clears bits of the mode. */
	if ((attr->valid & (WREP_ATTR_UID | WREP_ATTR_GID)) &&
	    fchown(fd, attr->valid & WREP_ATTR_UID ? attr->uid : (uid_t)-1,
		   attr->valid & WREP_ATTR_GID ? attr->gid : (gid_t)-1) < 0)
		return -errno;
	if ((attr->valid & WREP_ATTR_MODE) && fchmod(fd, attr->mode & 07777) < 0)
		return -errno;
	if ((attr->valid & WREP_ATTR_TIMES) &&
	    futimens(fd, (struct timespec[]){attr->atime, attr->mtime}) < 0)
		return -errno;
	return 0;
}

struct timespec wrep_attr_time(int64_t ns, bool omit)
{
	struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

	if (omit)
		t.tv_nsec = UTIME_OMIT;
	else if (t.tv_nsec < 0) {
		t.tv_nsec += 1000000000;
		t.tv_sec--;
	}
	return t;
}
