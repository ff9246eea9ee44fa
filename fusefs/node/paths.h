/* Paths that somebody has given are made absolute, and compared. [any thread] */
#ifndef FUSEFS_PATHS_H
#define FUSEFS_PATHS_H

#include <limits.h>

/* `path` as an absolute path without links; its end need not exist yet. 0 or -errno. */
int fsd_path_resolve(const char *path, char out[PATH_MAX]);

/* Is `path` equal to `dir`, or beneath it? Both absolute and resolved. */
int fsd_path_within(const char *path, const char *dir);

#endif
