/* The attributes of a file. */
#include "base/attr.h"

#include <sys/stat.h>

struct timespec wrep_to_timespec(int64_t ns, bool omit)
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
