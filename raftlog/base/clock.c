#include "clock.h"

#include <time.h>

uint64_t rlog_clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * RLOG_NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t rlog_clock_ms(void)
{
	return rlog_clock_ns() / RLOG_NS_PER_MS;
}

int rlog_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t until_ns)
{
	const struct timespec until = {.tv_sec = (time_t)(until_ns / RLOG_NS_PER_S),
				       .tv_nsec = (long)(until_ns % RLOG_NS_PER_S)};

	return -pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, &until);
}
