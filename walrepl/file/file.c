/* See file.h. */
#include "file/file.h"

#include <errno.h>
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/stray.h"
#include "db/table.h"
#include "record/entry.h"
#include "sqlite/names.h"
#include "txn/super_journal.h"
#include "txn/unjournaled.h"

struct wrep_db *wrep_file_db(struct wrep *w, const char *name, enum wrep_kind *kind)
{
	char base[WREP_PATH_MAX + 1];

	if (!wrep_names_kind(w->config.match, name, kind, base))
		return NULL;
	return wrep_db_by_name(w, base);
}

int wrep_lookup(struct wrep *w, const char *name, struct wrep_file **out)
{
	enum wrep_kind kind = WREP_DB;
	struct wrep_db *db = wrep_file_db(w, name, &kind);

	if (kind == WREP_SUPER) {
		wrep_db_unref(db);
		*out = wrep_super_find(w, name);
		return *out ? 0 : -ENOENT;
	}
	*out = NULL;
	if (db) {
		pthread_mutex_lock(&db->lock);
		*out = wrep_db_file(db, kind);
		pthread_mutex_unlock(&db->lock);
	}
	if (!*out && kind != WREP_DB)
		*out = wrep_stray_find(w, name);
	if (!db && !*out)
		return wrep_is_ready(w) ? -ENOENT : -EAGAIN;
	wrep_db_unref(db);
	return *out ? 0 : -ENOENT;
}

int wrep_file_cannot_open(struct wrep_db *db, int rc)
{
	wrep_out_of_descriptors(db->w, rc, db->name);
	if (rc != -ENOENT)
		return rc;
	wrep_db_missing(db);
	return -ESTALE;
}

void wrep_file_unpin_db(struct wrep_db *db)
{
	pthread_mutex_lock(&db->lock);
	wrep_db_unpin(db);
	pthread_mutex_unlock(&db->lock);
}

bool wrep_may_write(const struct wrep *w)
{
	return atomic_load(&w->may_write);
}

int wrep_file_refuse_write(struct wrep_db *db, const char *what)
{
	wrep_logf(db->w, 'W', "write refused: %s database=%s", what, db->name);
	return -EPERM;
}

bool wrep_file_rollback_pending(const struct wrep_db *db)
{
	return db->pending && db->pending->mode != WREP_COMMIT_WAL;
}

int wrep_file_write_later(struct wrep_db *db, struct wrep_op *op)
{
	if (!wrep_unjournaled_is_ending(db))
		return -EIO;
	op->next = db->pending->writers;
	db->pending->writers = op;
	return WREP_PENDING;
}

bool wrep_file_is_unlinked(const struct wrep_file *f)
{
	return f->db->files[f->kind] != f;
}

bool wrep_file_is_rollback(const struct wrep_db *db)
{
	return !wrep_db_may_write(db) && !db->unjournaled.active;
}
