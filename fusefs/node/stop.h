/* The end of the daemon is asked for, and its main loop is woken. */
#ifndef FUSEFS_STOP_H
#define FUSEFS_STOP_H

#include <stdbool.h>

struct fsd_stop;

/* NULL: out of memory. It is never freed: threads ask until the process ends. */
struct fsd_stop *fsd_stop_new(void);

/* The main loop (serve.c) is to end, and the process with this exit code; of several, with the last one that is
 * not 0. [any thread] */
void fsd_stop_ask(struct fsd_stop *stop, int exit_code);
bool fsd_stop_is_asked(struct fsd_stop *stop);
int fsd_stop_exit_code(struct fsd_stop *stop);

/* The main loop is to look at everything again. [any thread] */
void fsd_stop_wake(struct fsd_stop *stop);

/* A descriptor that poll(2) finds readable when somebody has woken the loop; and forget that. [the main loop] */
int fsd_stop_fd(const struct fsd_stop *stop);
void fsd_stop_drain(struct fsd_stop *stop);

#endif
