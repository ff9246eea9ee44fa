/* Which lock guards what, in words that a compiler checks.
 *
 * A field that a lock of its own struct guards says so where it is declared, the lock before the field. A
 * function that expects its caller to hold a lock, or that leaves with another state of it than it came with,
 * says so at its prototype, or at its definition if it has none:
 *
 *     struct jar {
 *             pthread_mutex_t lock;
 *             int coins GUARDED_BY(lock);
 *     };
 *     void jar_add_locked(struct jar *jar) REQUIRES(jar->lock);
 *
 * scripts/test has clang compare that with the code (scripts/guarded.py). It sees a field that is used without
 * the lock, a lock that a function forgets on one of its ways out, or takes twice. It tells locks of one
 * struct's name and field apart by what they are reached through (jar->lock, other->lock) in a function's
 * words, and not in a field's. gcc, and clang before 19, which knows no struct fields of C, see nothing of it.
 *
 * Not checked: what a thread may do while it is the only one (to make a struct, to take it apart), which is to
 * be in a function of its own that says UNCHECKED, and why.
 */
#ifndef RAFTLOG_GUARDED_H
#define RAFTLOG_GUARDED_H

#include <pthread.h>

#if defined(__clang__) && __clang_major__ >= 19
#define GUARDED_ATTRIBUTE(words) __attribute__((words))
#else
#define GUARDED_ATTRIBUTE(words)
#endif

/* Of a field: read and written under this lock alone; for _AT, what it points to is. */
#define GUARDED_BY(lock) GUARDED_ATTRIBUTE(guarded_by(&lock))
#define GUARDED_AT_BY(lock) GUARDED_ATTRIBUTE(pt_guarded_by(&lock))

/* Of a function: called with the lock held, which it keeps; called without. */
#define REQUIRES(lock) GUARDED_ATTRIBUTE(requires_capability(&lock))
#define EXCLUDES(lock) GUARDED_ATTRIBUTE(locks_excluded(&lock))

/* Of a function: returns with the lock held; without the lock that its caller held. */
#define ACQUIRES(lock) GUARDED_ATTRIBUTE(acquire_capability(&lock))
#define RELEASES(lock) GUARDED_ATTRIBUTE(release_capability(&lock))

#define UNCHECKED GUARDED_ATTRIBUTE(no_thread_safety_analysis)

#if defined(__clang__) && __clang_major__ >= 19
int pthread_mutex_lock(pthread_mutex_t *mutex) ACQUIRES(*mutex);
int pthread_mutex_unlock(pthread_mutex_t *mutex) RELEASES(*mutex);
int pthread_mutex_trylock(pthread_mutex_t *mutex)
	GUARDED_ATTRIBUTE(try_acquire_capability(0, mutex));
#endif

#endif
