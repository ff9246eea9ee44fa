/* Noticing a page of a database file that is not what was committed: a bit that flipped on the disk, a
 * write that the disk lost, somebody's hand in the data directory.
 *
 * Every page has its hash in memory (pagesum.h), so every page that is read can be told from a damaged
 * one: those that applications read, before they get it, and all others by a thread that reads the
 * databases from the disk, slowly, again and again. What is found makes this node get its databases from
 * the leader (fetch.c), which moves the damaged pages only.
 *
 * The hash is that of the newest committed content. The file may rightly be older than that: where the
 * applier has not come so far, and for pages that are in the -wal. Those are not judged.
 */
#include "repair/scrubber.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/table.h"
#include "pages/capture.h"
#include "pages/pagesum.h"
#include "pages/wal_content.h"

#define SCRUB_RATE (8u << 20) /* bytes a second, default of wrep_config.scrub_rate */
#define CHUNK_BYTES (256u << 10)
#define PAUSE_S 60    /* between rounds, so that small databases are not read all the time */
#define NOT_READY_S 1 /* before the first round */

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

/* ---- the thread ------------------------------------------------------------------------------------ */

struct wrep_scrub {
	struct wrep *w;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stop;
};

/* False: to be stopped. */
static bool rest(struct wrep_scrub *s, uint64_t ns)
{
	const uint64_t until_ns = rlog_clock_ns() + ns;
	bool stop;

	pthread_mutex_lock(&s->lock);
	while (!s->stop && rlog_cond_wait(&s->wake, &s->lock, until_ns) == 0)
		;
	stop = s->stop;
	pthread_mutex_unlock(&s->lock);
	return !stop;
}

/* Check some pages from `*off` on, read from the disk, not from memory. Returns the bytes read, 0 at the
 * end. */
static size_t check_chunk(struct wrep_db *db, uint64_t *off, uint8_t *chunk)
{
	struct wrep_file *f;
	uint64_t end;
	size_t len = CHUNK_BYTES;
	ssize_t n;
	int rc;

	pthread_mutex_lock(&db->lock);
	end = (uint64_t)db->state.sum.page_count * db->state.sum.page_size;
	f = *off >= end ? NULL : wrep_db_file(db, WREP_DB);
	rc = f ? wrep_db_hold(db, true) : 0;
	pthread_mutex_unlock(&db->lock);
	if (!f || rc) {
		wrep_file_unref(f);
		if (rc == -ENOENT)
			wrep_db_missing(db);
		return 0;
	}
	if (len > end - *off)
		len = (size_t)(end - *off);
	posix_fadvise(f->fd, (off_t)*off, (off_t)len, POSIX_FADV_DONTNEED);
	n = pread(f->fd, chunk, len, (off_t)*off);
	if (n >= 0)
		wrep_pages_are_sound(f, chunk, (size_t)n, len, *off);
	pthread_mutex_lock(&db->lock);
	wrep_db_unhold(db);
	pthread_mutex_unlock(&db->lock);
	wrep_file_unref(f);
	*off += len;
	return len;
}

static bool check_all(struct wrep_scrub *s, uint8_t *chunk, uint64_t rate)
{
	struct wrep_db **all;
	size_t count;
	bool go = true;

	if (wrep_db_all(s->w, &all, &count) < 0)
		return true;
	for (size_t i = 0; i < count; i++) {
		uint64_t off = 0;
		size_t done;

		while (go && wrep_is_ready(s->w) && (done = check_chunk(all[i], &off, chunk)))
			go = rest(s, (uint64_t)done * RLOG_NS_PER_S / rate);
		wrep_db_unref(all[i]);
	}
	free(all);
	return go;
}

static void *scrub_main(void *arg)
{
	struct wrep_scrub *s = arg;
	uint64_t rate = s->w->config.scrub_rate ? s->w->config.scrub_rate : SCRUB_RATE;
	uint8_t *chunk = malloc(CHUNK_BYTES);
	bool go = true;

	prctl(PR_SET_NAME, "scrub");
	while (chunk && go) {
		bool ready = wrep_is_ready(s->w);

		go = (!ready || check_all(s, chunk, rate)) &&
		     rest(s, (ready ? PAUSE_S : NOT_READY_S) * RLOG_NS_PER_S);
	}
	free(chunk);
	return NULL;
}

int wrep_scrub_start(struct wrep *w)
{
	struct wrep_scrub *s = calloc(1, sizeof *s);
	int rc;

	if (!s)
		return -ENOMEM;
	s->w = w;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->wake, NULL);
	rc = -pthread_create(&s->thread, NULL, scrub_main, s);
	if (rc) {
		pthread_cond_destroy(&s->wake);
		pthread_mutex_destroy(&s->lock);
		free(s);
		return rc;
	}
	w->scrub = s;
	return 0;
}

void wrep_scrub_stop(struct wrep *w)
{
	struct wrep_scrub *s = w->scrub;

	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	pthread_cond_destroy(&s->wake);
	pthread_mutex_destroy(&s->lock);
	free(s);
	w->scrub = NULL;
}
