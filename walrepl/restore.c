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
 * one in there (`redo_until`). Until a database has got there it is *unproven*: its checksum is taken
 * from the entries and not compared. Then the hashes, added up anew, must give it: wrep_prove(). That
 * finds a lost or flipped hash, and a write of the log's that did not come through; a flipped bit in a
 * page is found when the page is read (scrub.c).
 *
 * A transaction over several databases may be in the files of some and not of others. The manifest says
 * which of them took effect (group.c).
 *
 * The -wal that the manifest counts on is moved aside, to DATA/.dqlitefs/wal-ID, since its name belongs
 * to applications from now on; it is kept until a manifest is written that needs it no more, so that
 * another crash finds it.
 */
#include "internal.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "group.h"
#include "io.h"
#include "names.h"
#include "sumfile.h"
#include "walfile.h"

/* ---- the -wal ------------------------------------------------------------------------------------ */

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
		snprintf(name, sizeof name, "%s-wal", d->name);
		fd = open_generation(w->config.data_fd, name, d, &h);
		if (fd < 0)
			return -EBADMSG;
		if (renameat(w->config.data_fd, name, w->config.state_fd, aside) < 0 ||
		    fsync(w->config.state_fd) < 0 || fsync(w->config.data_fd) < 0) {
			rc = -errno;
			close(fd);
			return rc;
		}
	}
	rc = copy_frames(fd, &h, d, db_fd);
	close(fd);
	return rc;
}

/* ---- the databases ----------------------------------------------------------------------------- */

static int restore_database(struct wrep *w, const struct wrep_manifest_db *d)
{
	struct wrep_db *db = wrep_db_new(w, d->name, d->id);
	uint64_t *hash = NULL;
	int fd, rc;

	if (!db)
		return -ENOMEM;
	rc = wrep_sumfile_load(w->config.state_fd, d->id, d->page_count, &hash);
	if (!rc)
		rc = wrep_pagesum_load(&db->sum, d->page_size, d->page_count, hash);
	if (rc) {
		free(hash);
		return rc;
	}
	db->sum.sum = d->checksum;
	db->version = db->local_version = d->version;
	db->index = db->local_index = d->index;
	db->wal_mode = db->local_wal_mode = d->wal_mode;
	db->unproven = db->wal_aside = true;
	db->touched = d->wal_frames > 0;
	fd = openat(w->config.data_fd, d->name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno == ENOENT) {
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
		wrep_db_rest(db);
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
	wrep_db_rest(db);
	return rc;
}

/* ---- what does not belong there ---------------------------------------------------------------- */

/* Remove what is named like a file of a database from `dir_fd`, but the databases in the table. */
static int tidy(struct wrep *w, int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	enum wrep_kind kind;

	if (!dir) {
		rc = -errno;
		if (fd >= 0)
			close(fd);
		return rc;
	}
	while (!rc && (entry = readdir(dir))) {
		struct wrep_db *db = NULL;

		if (!wrep_name_kind(w, entry->d_name, &kind))
			continue;
		if (kind == WREP_DB && dir_fd == w->config.data_fd)
			db = wrep_db_by_name(w, entry->d_name);
		if (!db && unlinkat(dir_fd, entry->d_name, 0) < 0)
			rc = -errno;
		wrep_db_unref(db);
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
	int rc = tidy(w, w->config.data_fd);

	if (!rc)
		rc = tidy(w, w->config.shm_fd);
	if (!rc)
		rc = wrep_sumfile_tidy(w->config.state_fd, is_known, w);
	return rc;
}

int wrep_restore(struct wrep *w, const struct wrep_manifest *m, uint64_t last_index)
{
	int rc = wrep_groups_adopt(w, m);

	w->redo_until = m->redo_until > last_index ? m->redo_until : last_index;
	w->prove_from = m->redo_until;
	for (size_t i = 0; i < m->count && !rc; i++)
		rc = restore_database(w, &m->dbs[i]);
	return rc ? rc : wrep_restore_nothing(w);
}

bool wrep_prove(struct wrep_db *db)
{
	if (!db->unproven)
		return true;
	if (db->lost || wrep_pagesum_total(&db->sum) != db->sum.sum)
		return false;
	db->unproven = false;
	return true;
}
