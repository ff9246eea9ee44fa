/* A descriptor of an application is closed. */
#include "base/report.h"
#include "db/db.h"
#include "file/stray.h"
#include "pages/wal_content.h"
#include "sqlite/wal_index.h"
#include "txn/unjournaled.h"

/* The byte of a -shm that the WAL write lock is taken on (SQLite's "WAL-mode File Format", 2.3). */
#define SHM_WRITE_LOCK 120

/* db->lock held. */
static void flush_shm(struct wrep_file *f, struct wrep_op *op)
{
	struct wrep_db *db = f->db;
	struct wrep_host *host = &db->w->config.host;
	void *ctx = db->w->config.host_ctx;
	struct wrep_wal_position at;
	pid_t holder;

	/* Under the fence only the daemon's SQLite writes, and it does not die half-way alone. */
	if (db->files[WREP_SHM] != f || db->fenced || !db->capture || db->pending ||
	    wrep_wal_content_position(db->capture, &at) != 0 || at.frame_count == 0 ||
	    !wrep_wal_index_lags(f->fd, at.frame_count, at.salt))
		return;
	/* Another process that holds the WAL write lock is about to update the wal-index itself. */
	holder = host->lock_holder(ctx, f, SHM_WRITE_LOCK);
	if (holder && holder != host->process_of(ctx, op->tid)) /* not known: may live */
		return;
	if (wrep_wal_index_repair(f->fd, at.frame_count, at.salt) == 1)
		wrep_logf(db->w, 'I',
			  "a writer died between its commit and the wal-index; the next "
			  "reader recovers it database=%s frames=%u",
			  db->name, at.frame_count);
}

int wrep_file_flush(struct wrep_file *f, struct wrep_op *op)
{
	struct wrep_db *db = f->db;

	if (f->kind == WREP_STRAY)
		return wrep_stray_flush(f, op);
	if (f->kind != WREP_SHM && f->kind != WREP_DB)
		return 0;
	pthread_mutex_lock(&db->lock);
	if (f->kind == WREP_DB)
		return wrep_unjournaled_flush(f, op); /* unlocks */
	flush_shm(f, op);
	pthread_mutex_unlock(&db->lock);
	return 0;
}
