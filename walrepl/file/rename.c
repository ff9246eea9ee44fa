/* An application renames a database or a stray. */
#include <errno.h>
#include <stdio.h>
#include "base/wrep.h"
#include "db/db.h"
#include "db/directory.h"
#include "db/table.h"
#include "file/stray.h"
#include "names/rename.h"
#include "sqlite/names.h"

int wrep_rename(struct wrep *w, const char *from, const char *to, unsigned flags,
		struct wrep_op *op)
{
	char base[WREP_PATH_MAX + 1];
	enum wrep_kind kind;
	struct wrep_dir *dir;
	struct wrep_db *db;
	int rc;

	if (flags & ~RENAME_NOREPLACE)
		return -EINVAL;
	if (wrep_dir_lookup(w, from, &dir) == 0) {
		wrep_dir_unref(dir);
		return -EXDEV;
	}
	if (!wrep_names_kind(w->config.match, from, &kind, base))
		return -EPERM;
	if (kind != WREP_DB)
		return wrep_stray_rename(w, from, to, flags, op);
	if (!wrep_names_kind(w->config.match, to, &kind, base))
		return wrep_name_refusal(w, to);
	if (kind != WREP_DB)
		return -EPERM;
	if (wrep_dir_lookup(w, to, &dir) == 0) {
		wrep_dir_unref(dir);
		return -EISDIR;
	}
	db = wrep_db_by_name(w, from);
	if (!db)
		return -ENOENT;
	rc = wrep_db_rename(db, to, flags, op);
	wrep_db_unref(db);
	return rc;
}
