/* The thread of the stand-ins: it locks them, answers, and looks what has become of each. */
#ifndef FUSEFS_STANDIN_THREAD_H
#define FUSEFS_STANDIN_THREAD_H

struct fsd_standin;

/* Its main function, of a struct fsd. It ends when `is_stopped` is set. */
void *fsd_standins_main(void *fs);

/* Let go of the lock, if the daemon still holds it. [any thread; takes the stand-ins' lock] */
void fsd_standin_unlock(struct fsd_standin *s);

#endif
