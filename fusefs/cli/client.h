/* The command line's side: from a mount point to its daemon. */
#ifndef FUSEFS_CLIENT_H
#define FUSEFS_CLIENT_H

#include "cli/cli.h"
#include "mount/mountinfo.h"
#include "node/values.h"

/* The dqlitefs mount at `mountpoint`, which may be dead. `path` (PATH_MAX bytes) gets its absolute
 * name. 0; else a line on stderr and -errno. */
int fsd_client_find(const char *mountpoint, char *path, struct fsd_mountinfo *out);

/* Send a request, which is consumed, to the daemon that serves `data`. Its answer, or NULL after a
 * line on stderr; an answer that is an error is printed, too. */
json_t *fsd_client_call(const char *data, json_t *request);

/* The text of an answer under `key`, for people; "-" when there is none. Returns `out`. */
const char *fsd_client_text(json_t *object, const char *key, char out[FSD_SHOWN_SIZE]);

#endif
