/* Taking up the databases where the last durable point left them.
 *
 * The manifest says of each database: its file holds everything up to `version`, but for the pages that
 * are in the first frames of its -wal. These are copied into the file first; then the log is delivered
 * from behind the snapshot on, and entries that a database does not have yet (index above the one in
 * the manifest) are applied as at any other time. So a restart costs what came since the last durable
 * point, however large the databases are; only their page hashes, 8 bytes each, are read whole.
 *
 * A file may hold more than `version`: pages that later transactions wrote before the crash, torn ones
 * among them, and so may the stored hashes. Entries carry whole pages, so applying again whatever was
 * written since `version` makes all of that right, and what a page held in between does not matter. All
 * of it was delivered to this process's predecessor, so it is in the local log: no index above the last
 * one in there (`redo_until`). Until a database has got there it is *unverified*: its checksum is taken
 * from the entries and not compared. Then the hashes, added up anew, must give it: wrep_verify(). That
 * finds a lost or flipped hash, and a write of the log's that did not come through; a flipped bit in a
 * page is found when the page is read (repair/page_check.c).
 *
 * A transaction over several databases may be in the files of some and not of others. The manifest says
 * which of them took effect (state/multi_list.c).
 *
 * Names are as the manifest says: the directories of the last durable point are made where they are
 * missing, and what changes names behind `names_index` is done again (names/directory.c, names/rename.c).
 *
 * The -wal that the manifest counts on is moved aside, to DATA/.dqlitefs/wal-ID, since its name belongs
 * to applications from now on; it is kept until a manifest is written that needs it no more, so that
 * another crash finds it.
 */
#include "snapshot/restore.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/io.h"
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/directory.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/state_files.h"
#include "db/table.h"
#include "pages/sumfile.h"
#include "pages/wal_chain.h"
#include "record/entry.h"
#include "record/manifest.h"
#include "sqlite/names.h"
#include "sqlite/wal_format.h"
#include "state/state.h"
#include "state/version.h"

/* ---- the -wal ------------------------------------------------------------------------------------ */

#define LOST_FOUND "lost+found" /* a file system's own, at its top */

#define ASIDE_SIZE 40
#define ASIDE_PREFIX "wal-"

static void aside_name(char name[ASIDE_SIZE], uint64_t id)
{
	snprintf(name, ASIDE_SIZE, ASIDE_PREFIX "%" PRIu64, id);
}

void wrep_wal_aside_remove(struct wrep *w, uint64_t id)
{
	char name[ASIDE_SIZE];

	aside_name(name, id);
	unlinkat(w->config.state_fd, name, 0);
}

/* Does the file begin with the header of the generation that the manifest means? */
static int open_generation(int dir_fd, const char *name, const struct wrep_manifest_db *d,
			   struct wrep_wal_header *h)
{
	uint8_t bytes[WREP_WAL_HEADER_BYTES];
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd >= 0 &&
	    (wrep_read_exact(fd, bytes, sizeof bytes, 0) || !wrep_wal_header_parse(bytes, h) ||
	     memcmp(h->salt, d->wal_salt, sizeof h->salt) != 0)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* Copy the frames that the manifest counts on into the database file. 0, -EBADMSG (they are not all
 * there), -errno. */
static int copy_frames(int wal_fd, const struct wrep_wal_header *h,
		       const struct wrep_manifest_db *d, int db_fd)
{
	const uint64_t frame_bytes = wrep_wal_frame_bytes(h->page_size);
	uint8_t *bytes = malloc(frame_bytes);
	uint32_t sum[2] = {h->sum[0], h->sum[1]}, page_count = 0;
	int rc = bytes ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < d->wal_frames && !rc; i++) {
		struct wrep_wal_frame f;
		const uint8_t *page = bytes + WREP_FRAME_HEADER_BYTES;

		if (wrep_read_exact(wal_fd, bytes, frame_bytes,
				    wrep_wal_frame_offset(h->page_size, i)) ||
		    !wrep_wal_frame_parse(h, sum, bytes, page, &f)) {
			rc = -EBADMSG;
			break;
		}
		memcpy(sum, f.sum, sizeof sum);
		rc = wrep_write_all(db_fd, page, h->page_size,
				    (uint64_t)(f.pgno - 1) * h->page_size);
		page_count = f.page_count;
	}
	free(bytes);
	if (!rc && !page_count)
		rc = -EBADMSG; /* it does not end with a transaction */
	if (!rc && ftruncate(db_fd, (off_t)page_count * h->page_size) < 0)
		rc = -errno;
	return rc;
}

static int take_frames(struct wrep *w, const struct wrep_manifest_db *d, int db_fd)
{
	char aside[ASIDE_SIZE], name[WREP_NAME_MAX + 16];
	struct wrep_wal_header h;
	int fd, rc;

	aside_name(aside, d->id);
	fd = open_generation(w->config.state_fd, aside, d, &h);
	if (fd < 0) {
		wrep_names_file(d->name, WREP_WAL, name);
		fd = open_generation(w->config.data_fd, name, d, &h);
		if (fd < 0)
			return -EBADMSG;
		wrep_dir_touch(w, d->name);
		if (renameat(w->config.data_fd, name, w->config.state_fd, aside) < 0 ||
		    fsync(w->config.state_fd) < 0)
			rc = -errno;
		else
			rc = wrep_dirs_sync(w);
		if (rc) {
			close(fd);
			return rc;
		}
	}
	rc = copy_frames(fd, &h, d, db_fd);
	close(fd);
	return rc;
}

/* ---- the databases ----------------------------------------------------------------------------- */

static int restore_database(struct wrep *w, const struct wrep_manifest_db *d, uint64_t names_index)
{
	struct wrep_db *db;
	uint64_t *hash = NULL;
	int fd, rc;

	db = wrep_db_new(w, d->name, d->id);
	if (!db)
		return -ENOMEM;
	rc = wrep_state_restore_name(w->state, d->id, d->name, false, &db->state);
	if (rc)
		return rc;
	wrep_db_show(db, names_index);
	rc = wrep_moved_place(w, d->id, d->name);
	if (!rc)
		rc = wrep_sumfile_load(w->config.state_fd, d->id, d->page_count, &hash);
	if (!rc)
		rc = wrep_version_restore(&db->state, d, hash);
	if (rc) {
		free(hash);
		return rc;
	}
	db->local_version = d->version;
	db->local_index = d->index;
	db->local_wal_mode = d->wal_mode;
	db->wal_moved_aside = true;
	db->touched = d->wal_frames > 0;
	fd = d->gone ? -1 : openat(w->config.data_fd, d->name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && (d->gone || errno == ENOENT)) {
		/* Removed by an entry that comes yet, or by somebody: then it is fetched. What stands in
		 * for it has no name: the next start must not find it. */
		db->lost = true;
		fd = openat(w->config.data_fd, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	}
	if (fd < 0)
		return -errno;
	rc = wrep_file_make(db, WREP_DB, fd, 0, &db->files[WREP_DB]);
	if (rc) {
		close(fd);
		return rc;
	}
	if (!d->wal_frames || db->lost) {
		wrep_db_close_unpinned(db);
		return 0;
	}
	db->unsynced = true;
	rc = take_frames(w, d, fd);
	if (rc == -EBADMSG) {
		wrep_logf(w, 'W',
			  "the -wal does not hold what the last durable point left there "
			  "database=%s frames=%u",
			  d->name, d->wal_frames);
		db->lost = true;
		rc = 0;
	}
	wrep_db_close_unpinned(db);
	return rc;
}

/* ---- what does not belong there ---------------------------------------------------------------- */

static int tidy_dir(struct wrep *w, int at_fd, const char *path, bool data);

/* One name: `path` from the top, `name` in the open directory `dir_fd`. */
static int tidy_name(struct wrep *w, int dir_fd, const char *path, const char *name, bool data)
{
	struct wrep_db *db = NULL;
	struct wrep_dir *d = NULL;
	enum wrep_kind kind;
	struct stat st, parent;
	bool known;
	int rc;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (S_ISDIR(st.st_mode)) {
		if (fstat(dir_fd, &parent) < 0 || parent.st_dev != st.st_dev)
			return 0; /* something is mounted there */
		known = wrep_dir_lookup(w, path, &d) == 0;
		wrep_dir_unref(d);
		rc = tidy_dir(w, dir_fd, path, data);
		/* One that holds what is not ours stays. */
		if (!rc && !known && strcmp(path, LOST_FOUND) != 0)
			unlinkat(dir_fd, name, AT_REMOVEDIR);
		return rc;
	}
	if (!wrep_name_kind(w, path, &kind))
		return 0;
	if (kind == WREP_DB && data)
		db = wrep_db_by_name(w, path);
	known = db;
	wrep_db_unref(db);
	return !known && unlinkat(dir_fd, name, 0) < 0 ? -errno : 0;
}

/* Remove what is named like a file of a database from the directory `path` ("": the top) and those in it,
 * but the databases that are known; and directories that are not known. `at_fd`: the directory that it is
 * in. Links lead nowhere. */
static int tidy_dir(struct wrep *w, int at_fd, const char *path, bool data)
{
	const char *slash = strrchr(path, '/');
	const char *last = slash ? slash + 1 : *path ? path : ".";
	int fd = openat(at_fd, last, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), rc = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	char below[WREP_NAME_MAX + 16];
	struct dirent *entry;

	if (!dir) {
		rc = -errno;
		if (fd >= 0)
			close(fd);
		return rc;
	}
	while (!rc && (entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") ||
		    (!*path && !strcmp(entry->d_name, WREP_STATE_DIR)))
			continue;
		/* Longer than any name of ours: somebody else's. */
		if (snprintf(below, sizeof below, "%s%s%s", path, *path ? "/" : "", entry->d_name) <
		    (int)sizeof below)
			rc = tidy_name(w, fd, below, entry->d_name, data);
	}
	closedir(dir);
	return rc;
}

static bool is_known(void *arg, uint64_t id)
{
	struct wrep_db *db = wrep_db_by_id(arg, id);

	wrep_db_unref(db);
	return db;
}

int wrep_restore_nothing(struct wrep *w)
{
	int rc = tidy_dir(w, w->config.data_fd, "", true);

	if (!rc)
		rc = tidy_dir(w, w->config.shm_fd, "", false);
	if (!rc)
		rc = wrep_moved_tidy(w);
	if (!rc)
		rc = wrep_sumfile_tidy(w->config.state_fd, is_known, w);
	return rc;
}

int wrep_restore(struct wrep *w, const struct wrep_manifest *m, uint64_t last_index)
{
	int rc = wrep_state_restore(w->state, m, last_index);

	w->verify_from = m->redo_until;
	if (!rc)
		rc = wrep_dirs_restore(w, m);
	for (size_t i = 0; i < m->count && !rc; i++)
		rc = restore_database(w, &m->dbs[i], m->names_index);
	pthread_mutex_lock(&w->lock);
	w->names_index = m->names_index;
	pthread_mutex_unlock(&w->lock);
	return rc ? rc : wrep_restore_nothing(w);
}

bool wrep_verify(struct wrep_db *db)
{
	if (db->lost && db->state.unverified)
		return false;
	return wrep_version_verify(&db->state);
}
