/* The files of databases: incarnations of the four that each has. */
#include "db/files.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "base/wrep.h"
#include "db/db.h"
#include "db/stray.h"
#include "db/table.h"
#include "pages/capture.h"
#include "record/entry.h"
#include "sqlite/names.h"

void wrep_db_backing_name(const struct wrep_db *db, enum wrep_kind kind,
			  char name[WREP_NAME_MAX + 16])
{
	wrep_names_file(db->name, kind, name);
}

int wrep_dir_fd(const struct wrep *w, enum wrep_kind kind)
{
	return kind == WREP_SHM ? w->config.shm_fd : w->config.data_fd;
}

struct wrep_file *wrep_file_ref(struct wrep_file *f)
{
	atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
	return f;
}

void wrep_file_unref(struct wrep_file *f)
{
	if (!f || atomic_fetch_sub(&f->refs, 1) != 1)
		return;
	if (f->fd >= 0)
		close(f->fd);
	wrep_db_unref(f->db);
	wrep_stray_free(f->stray);
	free(f);
}

enum wrep_kind wrep_file_kind(const struct wrep_file *f)
{
	return f->kind;
}

const char *wrep_file_name(const struct wrep_file *f)
{
	return f->name;
}

_Atomic(void *) *wrep_file_host_data(struct wrep_file *f)
{
	return &f->host_data;
}

int wrep_file_fd(struct wrep_file *f)
{
	return f->fd;
}

int wrep_file_make(struct wrep_db *db, enum wrep_kind kind, int fd, ino_t ino,
		   struct wrep_file **out)
{
	char name[WREP_NAME_MAX + 16];
	struct wrep_file *f;

	wrep_db_backing_name(db, kind, name);
	f = calloc(1, sizeof *f + strlen(name) + 1);
	if (!f)
		return -ENOMEM;
	strcpy(f->name, name);
	atomic_init(&f->refs, 1);
	f->kind = kind;
	f->fd = fd;
	f->ino = ino;
	f->db = wrep_db_ref(db);
	if (kind == WREP_WAL && fd >= 0) {
		int rc;

		assert(!db->capture);
		rc = wrep_capture_open(&db->capture, fd);
		if (rc < 0) {
			wrep_db_unref(db);
			free(f);
			return rc;
		}
	}
	*out = f;
	return 0;
}

struct wrep_file *wrep_db_file(struct wrep_db *db, enum wrep_kind kind)
{
	struct wrep_file *f = db->files[kind];
	char name[WREP_NAME_MAX + 16];
	struct stat st = {0};
	int fd = -1;

	if (!f && kind != WREP_DB && db->files[WREP_DB] && !db->removed) {
		/* The daemon's own SQLite makes -wal and -shm as well. Before the applier has made
		 * the database itself, what lies under the name belonged to a former one. */
		wrep_db_backing_name(db, kind, name);
		if (!db->pins) {
			if (fstatat(wrep_dir_fd(db->w, kind), name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
			    !S_ISREG(st.st_mode))
				return NULL;
		} else {
			fd = openat(wrep_dir_fd(db->w, kind), name,
				    O_RDWR | O_CLOEXEC | O_NOFOLLOW);
			if (fd < 0)
				return NULL;
		}
		if (wrep_file_make(db, kind, fd, st.st_ino, &f) < 0) {
			if (fd >= 0)
				close(fd);
			return NULL;
		}
		db->files[kind] = f;
	}
	return f ? wrep_file_ref(f) : NULL;
}

void wrep_db_forget_file(struct wrep_db *db, enum wrep_kind kind)
{
	struct wrep_file *f = db->files[kind];

	db->files[kind] = NULL;
	if (kind == WREP_WAL && db->capture) {
		db->up->db_closing(db);
		wrep_capture_close(db->capture);
		db->capture = NULL;
	}
	if (f && !db->pins && f->fd >= 0) { /* else whoever has it open goes on with it */
		close(f->fd);
		f->fd = -1;
	}
	wrep_file_unref(f);
}

void wrep_stray_free(struct wrep_stray *s)
{
	if (s)
		free(s->name);
	free(s);
}
