#include "node/paths.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int fsd_path_resolve(const char *path, char out[PATH_MAX])
{
	char parent[PATH_MAX], rest[PATH_MAX] = "", *slash, *last;
	int n;

	n = path[0] == '/' ? 0 : -1;
	if (n && !getcwd(parent, sizeof(parent)))
		return -errno;
	n = n ? snprintf(out, PATH_MAX, "%s/%s", parent, path)
	      : snprintf(out, PATH_MAX, "%s", path);
	if (n >= PATH_MAX)
		return -ENAMETOOLONG;
	strcpy(parent, out);

	/* Take components off the end until the rest exists, then put them back. A directory whose
	 * file system is dead counts as one that does not exist. */
	while (!realpath(parent, out)) {
		if (errno != ENOENT && errno != ENOTCONN && errno != ECONNABORTED)
			return -errno;
		for (n = (int)strlen(parent); n > 1 && parent[n - 1] == '/'; n--)
			parent[n - 1] = '\0';
		slash = strrchr(parent, '/');
		last = slash + 1;
		if (!strcmp(last, ".."))
			return -ENOENT;
		if (*last && strcmp(last, ".")) {
			char longer[PATH_MAX];

			if (snprintf(longer, sizeof(longer), "/%s%s", last, rest) >=
			    (int)sizeof(longer))
				return -ENAMETOOLONG;
			strcpy(rest, longer);
		}
		slash[slash == parent] = '\0';
	}
	if (strlen(out) + strlen(rest) >= PATH_MAX)
		return -ENAMETOOLONG;
	strcat(out, !strcmp(out, "/") && rest[0] ? rest + 1 : rest);
	return 0;
}

int fsd_path_within(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	if (!strcmp(dir, "/"))
		return 1;
	return !strncmp(path, dir, len) && (path[len] == '\0' || path[len] == '/');
}
