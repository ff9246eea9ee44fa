/* Noticing a page of a database file that is not what was committed: a bit that flipped on the disk, a
 * write that the disk lost, somebody's hand in the data directory.
 *
 * Every page has its hash in memory (pagesum.h), so every page that is read can be told from a damaged
 * one: those that applications read, before they get it, and all others by a thread that reads the
 * databases from the disk, slowly, again and again (scrubber.c). What is found makes this node get its databases from
 * the leader (fetch.c), which moves the damaged pages only.
 *
 * The hash is that of the newest committed content. The file may rightly be older than that: where the
 * applier has not come so far, and for pages that are in the -wal. Those are not judged.
 */
#include "repair/page_check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/files.h"
#include "pages/capture.h"
#include "pages/pagesum.h"
#include "pages/wal_content.h"

/* Can nothing be said of the pages of `db` now? db->lock held. */
static bool in_motion(const struct wrep_db *db)
{
	return db->removed || db->damaged || db->state.unverified ||
	       db->local_version != db->state.version || db->overlay || db->pending ||
	       !db->files[WREP_DB] || !db->state.sum.page_count;
}

bool wrep_page_is_newest(const struct wrep_db *db, uint32_t pgno, const uint8_t *page)
{
	uint64_t hash;

	if (in_motion(db) || pgno > db->state.sum.page_count)
		return true;
	hash = db->state.sum.hash[pgno - 1];
	return !hash || hash == wrep_page_hash(pgno, page, db->state.sum.page_size);
}

/* Is the page, read from the file under this hold of db->lock, what it may be? */
static bool page_is_sound(struct wrep_db *db, uint32_t pgno, const uint8_t *page)
{
	if (wrep_page_is_newest(db, pgno, page))
		return true;
	/* The newest is in the -wal, so the file may hold an older one. */
	if (!db->capture)
		wrep_file_unref(wrep_db_file(db, WREP_WAL));
	if (!db->capture)
		return false;
	if (db->fenced)
		wrep_capture_forget(db->capture);
	return wrep_wal_content_holds(db->capture, pgno, db->state.sum.hash[pgno - 1]);
}

void wrep_page_damaged(struct wrep_db *db, uint32_t pgno)
{
	wrep_damagef(db->w, "a page of a database file is damaged database=%s page=%u offset=%llu",
		     db->name, pgno, (unsigned long long)(pgno - 1) * db->state.sum.page_size);
	db->w->up->damaged(db->w, "the database file is damaged", db);
}

/* The page as it is in the file under this hold of db->lock. */
static bool read_page(struct wrep_db *db, uint32_t pgno, uint8_t *page)
{
	uint32_t size = db->state.sum.page_size;
	ssize_t n = pread(db->files[WREP_DB]->fd, page, size, (off_t)(pgno - 1) * size);

	if (n < 0)
		return false;
	memset(page + n, 0, size - (size_t)n);
	return true;
}

/* Look again, under the lock, at a page that seemed to be damaged. */
static bool look_again(struct wrep_db *db, uint32_t pgno)
{
	uint8_t *page;
	bool sound = true;

	pthread_mutex_lock(&db->lock);
	page = in_motion(db) ? NULL : malloc(db->state.sum.page_size);
	if (page)
		sound = read_page(db, pgno, page) && page_is_sound(db, pgno, page);
	pthread_mutex_unlock(&db->lock);
	free(page);
	return sound;
}

bool wrep_pages_are_sound(struct wrep_file *f, const uint8_t *buf, size_t got, size_t len,
			  uint64_t off)
{
	struct wrep_db *db = f->db;
	uint64_t at;
	uint32_t size, suspect = 0;

	pthread_mutex_lock(&db->lock);
	size = in_motion(db) || db->files[WREP_DB] != f ? 0 : db->state.sum.page_size;
	/* What lies behind the last page is nobody's. */
	if (size && off + len > (uint64_t)db->state.sum.page_count * size)
		len = off < (uint64_t)db->state.sum.page_count * size
			      ? (size_t)((uint64_t)db->state.sum.page_count * size - off)
			      : 0;
	pthread_mutex_unlock(&db->lock);
	if (!size)
		return true;
	at = (off + size - 1) / size * size;
	for (; at + size <= off + len && !suspect; at += size) {
		uint32_t pgno = (uint32_t)(at / size + 1);
		bool whole = at + size <= off + got, differs;
		uint64_t hash = whole ? wrep_page_hash(pgno, buf + (at - off), size) : 0;

		pthread_mutex_lock(&db->lock);
		differs = db->state.sum.page_size == size && pgno <= db->state.sum.page_count &&
			  db->state.sum.hash[pgno - 1] && db->state.sum.hash[pgno - 1] != hash;
		pthread_mutex_unlock(&db->lock);
		if (differs && !look_again(db, pgno))
			suspect = pgno;
	}
	if (suspect)
		wrep_page_damaged(db, suspect);
	return !suspect;
}
