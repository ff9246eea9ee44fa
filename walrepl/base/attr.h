/* Mode, owner and times of an open file. Private to walrepl; any thread. */
#ifndef WALREPL_BASE_ATTR_H
#define WALREPL_BASE_ATTR_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include "walrepl.h"

/* Give them to a file that was made just now, whatever the umask left of its mode. 0 or -errno. */
int wrep_attr_own(int fd, mode_t mode, uid_t uid, gid_t gid);
/* Change what `attr->valid` names. 0 or -errno: then some of it may have changed. */
int wrep_attr_set(int fd, const struct wrep_attr *attr);

/* A time since 1970 (before it: below 0); `omit`: UTIME_OMIT instead. */
struct timespec wrep_attr_time(int64_t ns, bool omit);

#endif
