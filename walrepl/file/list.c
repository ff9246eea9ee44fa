/* An application lists a directory. */
#include <errno.h>
#include <stdlib.h>
#include "base/wrep.h"
#include "db/db.h"
#include "db/directory.h"
#include "db/files.h"
#include "db/stray.h"
#include "db/table.h"
#include "txn/super_journal.h"

struct each_in {
	const char *path;
	int (*each)(void *arg, const char *name);
	void *arg;
};

static int one_elsewhere(void *arg, const char *name)
{
	struct each_in *in = arg;
	const char *last = wrep_dir_name_in(name, in->path);

	return last ? in->each(in->arg, last) : 0;
}

int wrep_list(struct wrep *w, const char *path, int (*each)(void *arg, const char *name), void *arg)
{
	struct wrep_dir **dirs = wrep_dirs_in(w, path);
	struct wrep_db **all;
	const char *name;
	size_t count;
	int rc = dirs ? wrep_db_all(w, &all, &count) : -ENOMEM, stop = 0;

	for (size_t i = 0; dirs && dirs[i]; i++) {
		if (!rc && !stop)
			stop = each(arg, wrep_dir_name_in(dirs[i]->path, path));
		wrep_dir_unref(dirs[i]);
	}
	free(dirs);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < count; i++) {
		for (int k = 0; !stop && k < 4 && wrep_dir_name_in(all[i]->name, path); k++) {
			struct wrep_file *f;

			pthread_mutex_lock(&all[i]->lock);
			f = wrep_db_file(all[i], k);
			pthread_mutex_unlock(&all[i]->lock);
			name = f ? wrep_dir_name_in(f->name, path) : NULL;
			if (name)
				stop = each(arg, name);
			wrep_file_unref(f);
		}
		wrep_db_unref(all[i]);
	}
	free(all);
	if (!stop)
		stop = wrep_super_list(w, one_elsewhere, &(struct each_in){path, each, arg});
	return stop ? stop : wrep_strays_list(w, one_elsewhere, &(struct each_in){path, each, arg});
}
