/* Questions about processes and threads, which /proc answers. [any thread] */
#ifndef FUSEFS_PROCESS_H
#define FUSEFS_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

/* The process that the thread belongs to; the thread itself, if that cannot be told. */
pid_t fsd_process_of(pid_t tid);
/* Is it ending because of a signal? */
bool fsd_process_is_killed(pid_t tid);
/* Has the thread a signal that it does not block? A thread that is gone counts as one. */
bool fsd_process_has_signal(pid_t tid);
/* The main thread has ended, but the process has not. */
bool fsd_process_is_dying(pid_t pid);

#endif
