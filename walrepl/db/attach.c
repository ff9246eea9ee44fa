/* The daemon's own connection to a database is made and dropped. apply/fence.c decides when. */
#include "db/attach.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <unistd.h>
#include "base/wrep.h"
#include "db/db.h"
#include "db/files.h"
#include "db/pin.h"
#include "pages/capture.h"
#include "sqlite/conn.h"
#include "sqlite/conn_host.h"

#define TRIM_CONNS 256 /* connections closed, until the memory of so many goes back to the system */

void wrep_db_invalidate(struct wrep_db *db, enum wrep_kind kind, uint64_t off, uint64_t len)
{
	struct wrep_file *f;

	pthread_mutex_lock(&db->lock);
	f = wrep_db_file(db, kind);
	pthread_mutex_unlock(&db->lock);
	if (f)
		db->w->config.host.invalidate(db->w->config.host_ctx, f, off, len);
	wrep_file_unref(f);
}

static int conn_mounted_open(void *ctx, const char *name, int flags)
{
	struct wrep *w = ((struct wrep_db *)ctx)->w;
	int fd = w->config.host.mounted_open(w->config.host_ctx, name, flags);

	if (fd >= 0 && wrep_descriptor_is_spare(w, fd)) {
		close(fd);
		fd = -EMFILE;
	}
	return fd;
}

static void conn_invalidate(void *ctx, enum wrep_kind kind, uint64_t off, uint64_t len)
{
	wrep_db_invalidate(ctx, kind, off, len);
}

static int conn_settle(void *ctx, enum wrep_kind kind, int fd)
{
	struct wrep_db *db = ctx;
	struct wrep_file *f;
	int rc = 0;

	pthread_mutex_lock(&db->lock);
	f = wrep_db_file(db, kind);
	pthread_mutex_unlock(&db->lock);
	if (f)
		rc = db->w->config.host.settle(db->w->config.host_ctx, f, fd);
	wrep_file_unref(f);
	return rc;
}

/* The database left WAL mode: its -wal or -shm is gone from the backing directory. */
static void conn_removed(void *ctx, enum wrep_kind kind)
{
	struct wrep_db *db = ctx;

	pthread_mutex_lock(&db->lock);
	wrep_db_forget_file(db, kind);
	pthread_mutex_unlock(&db->lock);
}

int wrep_db_attach(struct wrep_db *db)
{
	struct wrep_conn_host host = {
		.data_fd = db->w->config.data_fd,
		.shm_fd = db->w->config.shm_fd,
		.mounted_open = conn_mounted_open,
		.invalidate = conn_invalidate,
		.settle = conn_settle,
		.removed = conn_removed,
		.ctx = db,
	};

	return db->conn ? 0 : wrep_conn_open(&db->conn, db->name, &host);
}

void wrep_db_detach(struct wrep_db *db)
{
	if (!db->conn)
		return;
	wrep_conn_close(db->conn);
	db->conn = NULL;
	if (++db->w->closed_conns % TRIM_CONNS == 0)
		malloc_trim(0);
	pthread_mutex_lock(&db->lock);
	/* Where the lock was not to be had, nothing was written, and a commit may be undecided. */
	if (db->fenced && db->capture)
		wrep_capture_forget(db->capture);
	db->fenced = false;
	pthread_mutex_unlock(&db->lock);
}

int wrep_db_checkpoint(struct wrep_db *db, bool all, uint32_t *frames, uint32_t *copied)
{
	pthread_mutex_lock(&db->lock);
	db->unsynced = true;
	pthread_mutex_unlock(&db->lock);
	return wrep_conn_checkpoint(db->conn, all, frames, copied);
}
