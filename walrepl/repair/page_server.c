/* Serving a peer that fetches this node's databases (fetch.c is the other side).
 *
 * What is served is the state behind the newest snapshot: its image, and of each database the page
 * hashes and the pages that the peer asks for. Nothing is frozen for it: every page is handed out as
 * newly committed as it is at that moment, so never older than the snapshot says, and the index told
 * at the end is one that no page was newer than. The peer gets all pages right by applying the entries
 * between the two again, as after a crash (restore.c). So a fetch holds up neither readers nor writers,
 * and keeps nothing but the log's entries from the snapshot on.
 *
 * The peer's appetite is bounded: after each answer a pause as long as it took to read, or longer while
 * applications commit, leaves them the disk and the network.
 */
#include "repair/page_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/bytes.h"
#include "base/phase.h"
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/table.h"
#include "pages/capture.h"
#include "pages/wal_content.h"
#include "repair/page_check.h"
#include "repair/wire.h"
#include "snapshot/snapshotter.h"

#define OFFERS_MAX 4
#define POINT_MS 30000
#define PAGES_LOCKED 16	      /* pages read under one hold of a database's lock */
#define BUSY_RATE (32u << 20) /* bytes a second while applications commit */

struct wrep_page_server {
	struct wrep *w;
	struct wrep_page_server *next; /* in w->page_servers */
	uint64_t from;
	struct wrep_wire stream;
	uint64_t delivered; /* when last looked at: have there been commits? */
	bool holds;	    /* the snapshot: it was asked for */
	uint8_t *answer;
};

static bool closing(void *arg)
{
	return !wrep_goes_on(((struct wrep_page_server *)arg)->w);
}

static int refuse(struct wrep_page_server *o, const char *why)
{
	wrep_wire_send(&o->stream, WREP_STREAM_REFUSED, why, strlen(why));
	return -EAGAIN;
}

/* The newest snapshot, if it is of `oldest` or a later index. -ENOENT, -errno. */
static int copy_image(struct wrep *w, uint64_t oldest, struct rlog_buf **out)
{
	struct rlog_buf *payload;
	uint64_t index, term;
	int rc = rlog_snapshot_image(w->log, out);

	if (rc)
		return rc;
	rc = rlog_image_read(*out, w->config.log.cluster_id, &index, &term, &payload);
	if (!rc) {
		rlog_buf_unref(payload);
		rc = index < oldest ? -ENOENT : 0;
	}
	if (rc)
		rlog_buf_unref(*out);
	return rc;
}

static int send_image(struct wrep_page_server *o)
{
	struct wrep *w = o->w;
	struct rlog_buf *image;
	uint64_t oldest;
	int rc;

	if (o->stream.len != 8)
		return -EBADMSG;
	oldest = wrep_get64(o->stream.body);
	if (!wrep_is_ready(w))
		return refuse(o, "this node has not caught up itself");
	rc = o->holds ? 0 : wrep_snapshotter_hold(w, POINT_MS);
	o->holds = true;
	if (!rc)
		rc = copy_image(w, oldest, &image);
	if (rc == -ENOENT) { /* what was taken for others, if anything, does not help this one */
		rc = wrep_snapshotter_take(w, POINT_MS);
		if (!rc)
			rc = copy_image(w, oldest, &image);
	}
	if (rc)
		return refuse(o, "the databases cannot be made durable here now");
	rc = wrep_wire_send(&o->stream, WREP_STREAM_IMAGE, image->data, image->len);
	rlog_buf_unref(image);
	return rc;
}

/* The database in question, if it lives; `*moving`: it does, but must be asked for again. */
static struct wrep_db *find(struct wrep_page_server *o, uint64_t id, bool *moving)
{
	struct wrep_db *db = wrep_db_by_id(o->w, id);
	bool gone = true;

	*moving = false;

	if (db) {
		pthread_mutex_lock(&db->lock);
		*moving = !db->removed && !db->files[WREP_DB];
		gone = db->removed || *moving;
		pthread_mutex_unlock(&db->lock);
	}
	if (!gone)
		return db;
	wrep_db_unref(db);
	return NULL;
}

static int send_sums(struct wrep_page_server *o)
{
	uint32_t first, count = 0;
	struct wrep_db *db;
	struct stat st;
	bool moving;
	uint8_t *a = o->answer;
	int rc = 0;

	if (o->stream.len != 12)
		return -EBADMSG;
	first = wrep_get32(o->stream.body + 8);
	db = find(o, wrep_get64(o->stream.body), &moving);
	if (moving)
		return refuse(o, "a database is being renamed");
	if (!db || !first) {
		wrep_db_unref(db);
		return wrep_wire_send(&o->stream, WREP_STREAM_GONE, "", 0);
	}
	memset(a, 0, WREP_STREAM_SUMS_HEAD);
	pthread_mutex_lock(&db->lock);
	if (!db->files[WREP_DB] || wrep_db_pin(db, true)) {
		rc = -EIO;
	} else {
		rc = fstat(db->files[WREP_DB]->fd, &st) < 0 ? -EIO : 0;
		wrep_db_unpin(db);
	}
	wrep_put32(a, db->state.sum.page_size);
	wrep_put32(a + 4, db->state.sum.page_count);
	if (first <= db->state.sum.page_count) {
		count = db->state.sum.page_count - first + 1;
		if (count > WREP_STREAM_SUMS_MAX)
			count = WREP_STREAM_SUMS_MAX;
		memcpy(a + WREP_STREAM_SUMS_HEAD, db->state.sum.hash + first - 1,
		       (size_t)count * 8);
	}
	pthread_mutex_unlock(&db->lock);
	wrep_db_unref(db);
	if (rc)
		return rc;
	wrep_put32(a + 8, st.st_mode & 07777);
	wrep_put32(a + 12, st.st_uid);
	wrep_put32(a + 16, st.st_gid);
	wrep_put64(a + 24, (uint64_t)st.st_mtim.tv_sec * 1000000000 + (uint64_t)st.st_mtim.tv_nsec);
	return wrep_wire_send(&o->stream, WREP_STREAM_SUMS, a,
			      WREP_STREAM_SUMS_HEAD + (size_t)count * 8);
}

struct wanted {
	uint32_t page_size, count;
	const uint8_t *pgnos; /* 4 bytes each */
};

/* Some pages as newly committed as they are: from the -wal where it has them, else from the file.
 * 0, -ESTALE (the page size has changed), -EBADMSG (`*bad` is damaged here), -errno. */
static int read_pages(struct wrep_db *db, const struct wanted *wanted, uint8_t *out, uint32_t *bad)
{
	const uint32_t page_size = wanted->page_size, count = wanted->count;
	uint64_t offset[PAGES_LOCKED];
	uint32_t pgno[PAGES_LOCKED];
	struct wrep_file *wal;
	bool held;
	int rc = 0;

	for (uint32_t i = 0; i < count; i++)
		pgno[i] = wrep_get32(wanted->pgnos + (size_t)i * 4);
	pthread_mutex_lock(&db->lock);
	if (!db->files[WREP_DB] || db->removed)
		rc = -ENOENT;
	else if (db->state.sum.page_size != page_size)
		rc = -ESTALE;
	if (!rc)
		rc = wrep_db_pin(db, true);
	held = !rc;
	wal = rc ? NULL : wrep_db_file(db, WREP_WAL);
	memset(offset, 0, sizeof offset);
	if (wal) {
		if (db->fenced && !db->pending)
			wrep_capture_forget(db->capture);
		rc = wrep_wal_content_find(db->capture, page_size, pgno, count, offset);
	}
	for (uint32_t i = 0; i < count && !rc; i++) {
		int fd = offset[i] ? wal->fd : db->files[WREP_DB]->fd;
		uint64_t off = offset[i] ? offset[i] : (uint64_t)(pgno[i] - 1) * page_size;
		ssize_t n = pgno[i] ? pread(fd, out, page_size, (off_t)off) : 0;

		if (n < 0)
			rc = -errno;
		else
			memset(out + n, 0, page_size - (size_t)n); /* the file has become shorter */
		if (!rc && pgno[i] && !wrep_page_is_newest(db, pgno[i], out)) {
			*bad = pgno[i];
			rc = -EBADMSG;
		}
		out += page_size;
	}
	if (held)
		wrep_db_unpin(db);
	pthread_mutex_unlock(&db->lock);
	wrep_file_unref(wal);
	return rc;
}

/* While applications commit, this may cost them only so much. */
static void pause_for(struct wrep_page_server *o, size_t bytes)
{
	uint64_t delivered = atomic_load(&o->w->delivered);
	struct timespec t = {0};

	if (delivered != o->delivered)
		t.tv_nsec = (long)((uint64_t)bytes * 1000000000 / BUSY_RATE);
	o->delivered = delivered;
	nanosleep(&t, NULL);
}

static int send_pages(struct wrep_page_server *o)
{
	const uint8_t *b = o->stream.body;
	uint32_t page_size, count, done = 0, bad = 0;
	struct wrep_db *db;
	bool moving;
	int rc = 0;

	if (o->stream.len < WREP_STREAM_PAGES_HEAD + 4)
		return -EBADMSG;
	page_size = wrep_get32(b + 8);
	count = (uint32_t)((o->stream.len - WREP_STREAM_PAGES_HEAD) / 4);
	if (page_size < 512 || page_size > 65536 ||
	    (uint64_t)count * page_size > WREP_STREAM_PAGES_BYTES)
		return -EBADMSG;
	db = find(o, wrep_get64(b), &moving);
	if (moving)
		return refuse(o, "a database is being renamed");
	if (!db)
		return wrep_wire_send(&o->stream, WREP_STREAM_GONE, "", 0);
	while (done < count && !rc) {
		const struct wanted wanted = {
			.page_size = page_size,
			.count = count - done < PAGES_LOCKED ? count - done : PAGES_LOCKED,
			.pgnos = b + WREP_STREAM_PAGES_HEAD + (size_t)done * 4,
		};

		rc = read_pages(db, &wanted, o->answer + (size_t)done * page_size, &bad);
		done += wanted.count;
	}
	if (bad)
		wrep_page_damaged(db, bad);
	wrep_db_unref(db);
	if (bad)
		return refuse(o, "a page is damaged here");
	if (rc == -ENOENT)
		return wrep_wire_send(&o->stream, WREP_STREAM_GONE, "", 0);
	if (rc == -ESTALE)
		return wrep_wire_send(&o->stream, WREP_STREAM_CHANGED, "", 0);
	if (rc)
		return rc;
	rc = wrep_wire_send(&o->stream, WREP_STREAM_PAGES, o->answer, (size_t)count * page_size);
	pause_for(o, (size_t)count * page_size);
	return rc;
}

static int send_end(struct wrep_page_server *o)
{
	uint8_t index[8];

	/* Hashes and pages that were served are of this entry or earlier ones. */
	wrep_put64(index, atomic_load(&o->w->delivering));
	return wrep_wire_send(&o->stream, WREP_STREAM_END, index, sizeof index);
}

static void *offer_main(void *arg)
{
	struct wrep_page_server *o = arg, **p;
	struct wrep *w = o->w;
	int rc;

	prctl(PR_SET_NAME, "offer");
	do {
		rc = wrep_wire_receive(&o->stream);
		if (rc)
			break;
		switch (o->stream.type) {
		case WREP_STREAM_OPEN:
			rc = send_image(o);
			break;
		case WREP_STREAM_SUMS:
			rc = send_sums(o);
			break;
		case WREP_STREAM_PAGES:
			rc = send_pages(o);
			break;
		case WREP_STREAM_END:
			rc = send_end(o);
			break;
		default:
			rc = -EBADMSG;
		}
	} while (!rc);
	if (rc != -ECONNRESET && rc != -ECANCELED && rc != -EAGAIN)
		wrep_logf(w, 'W', "a peer's fetch broke off node=%08llx error=\"%s\"",
			  (unsigned long long)o->from, strerror(-rc));
	if (o->holds)
		wrep_snapshotter_unhold(w);
	close(o->stream.fd);
	wrep_wire_clear(&o->stream);
	pthread_mutex_lock(&w->lock);
	for (p = &w->page_servers; *p != o; p = &(*p)->next)
		;
	*p = o->next;
	w->page_server_count--;
	pthread_cond_broadcast(&w->peers_gone);
	pthread_mutex_unlock(&w->lock);
	free(o->answer);
	free(o);
	return NULL;
}

void wrep_page_server_start(struct wrep *w, int fd, uint64_t from_id)
{
	struct wrep_page_server *o = calloc(1, sizeof *o);
	bool go = false;
	pthread_t thread;

	if (o) {
		o->w = w;
		o->from = from_id;
		o->answer = malloc(WREP_STREAM_PAGES_BYTES + WREP_STREAM_SUMS_HEAD);
		wrep_wire_init(&o->stream, fd, closing, o);
	}
	if (o && o->answer) {
		pthread_mutex_lock(&w->lock);
		go = wrep_goes_on(w) && wrep_opened(w) && w->page_server_count < OFFERS_MAX;
		if (go) {
			w->page_server_count++;
			o->next = w->page_servers;
			w->page_servers = o;
			go = pthread_create(&thread, NULL, offer_main, o) == 0;
			if (go) {
				pthread_detach(thread);
			} else {
				w->page_servers = o->next;
				w->page_server_count--;
			}
		}
		pthread_mutex_unlock(&w->lock);
	}
	if (go)
		return;
	close(fd);
	if (o)
		free(o->answer);
	free(o);
}

void wrep_page_servers_stop(struct wrep *w)
{
	pthread_mutex_lock(&w->lock);
	for (struct wrep_page_server *o = w->page_servers; o; o = o->next)
		shutdown(o->stream.fd, SHUT_RDWR);
	while (w->page_server_count)
		pthread_cond_wait(&w->peers_gone, &w->lock);
	pthread_mutex_unlock(&w->lock);
}
