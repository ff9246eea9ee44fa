/* The clock that only goes forward, and waiting by it. All folders use it, through raftlog.h.
 *
 * The wall clock is set by administrators and by NTP: a wait that ends at a time of it lasts longer by
 * whatever it is set back meanwhile. So every timed wait goes through rlog_cond_wait(). The wall clock
 * itself is only for people to read (log lines, times of files).
 */
#ifndef RAFTLOG_CLOCK_H
#define RAFTLOG_CLOCK_H

#include <pthread.h>
#include <stdint.h>

#define RLOG_NS_PER_MS UINT64_C(1000000)
#define RLOG_NS_PER_S UINT64_C(1000000000)

uint64_t rlog_clock_ns(void);
uint64_t rlog_clock_ms(void);

/* pthread_cond_wait(), until the clock says `until_ns` at the latest: 0 (signalled, or for no reason, as
 * pthreads allow) or -ETIMEDOUT. */
int rlog_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t until_ns);

/* Whose clock is the wall clock, unless each condition was told otherwise when it was made. */
#pragma GCC poison pthread_cond_timedwait

#endif
