/* The thread that reads all pages: see page_check.c. */
#include "repair/scrubber.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "base/wrep.h"
#include "db/db.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/table.h"
#include "repair/page_check.h"

#define SCRUB_RATE (8u << 20) /* bytes a second, default of wrep_config.scrub_rate */
#define CHUNK_BYTES (256u << 10)
#define PAUSE_S 60    /* between rounds, so that small databases are not read all the time */
#define NOT_READY_S 1 /* before the first round */

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
	rc = f ? wrep_db_pin(db, true) : 0;
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
	wrep_db_unpin(db);
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
