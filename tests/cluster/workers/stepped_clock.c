/* A preloaded library: the wall clock is set back by an hour, always just after it was looked at.
 *
 * Whoever computes the end of a wait from it waits for an hour longer. Other clocks are left alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

#define STEP_S 3600

int clock_gettime(clockid_t clock, struct timespec *now)
{
	static int (*real)(clockid_t clock, struct timespec *now);
	int rv;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
	rv = real(clock, now);
	if (!rv && clock == CLOCK_REALTIME)
		now->tv_sec += STEP_S;
	return rv;
}
