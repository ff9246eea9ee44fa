/* Getting the databases from the leader, when this node's own are unfit: the log no longer holds what
 * this node lacks (it is new, or was away for long), or a file is damaged.
 *
 * In the good case the applier finds the work in its queue. From wrep_fetch_wanted() on nothing more is
 * delivered, nor applied of what is queued (apply/applier.c). Peers that fetch from here are sent away, and all
 * databases are *retired*: their names lead nowhere, what applications had open answers with errors, new
 * opens wait, and what is still queued for them is dropped (the log has it). Then the leader is asked (repair/page_server.c): for its snapshot, and for each
 * database in it for the hashes of its pages. Before the first file is touched a mark in DATA/.dqlitefs
 * says, also after a crash, that the files are not what the manifest says; until then a restart finds
 * them, and what the -wal files hold, as they were. The pages of the file that lies here are hashed;
 * those that differ are fetched and written in place. A fetch that breaks off starts again and finds
 * most of them equal. At the end everything is synced, raftlog is given the leader's snapshot with a
 * manifest of this node, the mark goes, and the databases are taken up as after a restart.
 *
 * Why that gives the right databases. Every page here is, like every hash, as of the leader's snapshot S
 * or newer, up to the entry R that the leader names at the end. raftlog delivers from S + 1 on. Applying
 * what lies between gives every page and hash that changed after S its last content; those that did not
 * were right from the start. It is the argument of restore.c with R for the end of the redo, and ends in
 * the same proof: no database is shown before its hashes add up to the checksum that its last entry
 * names, and every hash was computed here, from the bytes that were written.
 *
 * A node that leads hands that over first. One that has no peer cannot be helped: there the damaged
 * database alone is taken out of service, and the others stay as they are.
 */
#include "repair/fetch.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/attr.h"
#include "base/bytes.h"
#include "base/io.h"
#include "base/phase.h"
#include "base/report.h"
#include "base/work.h"
#include "base/wrep.h"
#include "db/attach.h"
#include "db/db.h"
#include "db/directory.h"
#include "db/files.h"
#include "db/state_files.h"
#include "db/table.h"
#include "pages/pagesum.h"
#include "pages/sumfile.h"
#include "record/manifest.h"
#include "repair/page_server.h"
#include "repair/wire.h"
#include "snapshot/current_manifest.h"
#include "snapshot/restore.h"
#include "snapshot/snapshotter.h"
#include "sqlite/file_format.h"
#include "sqlite/wal_index.h"
#include "txn/discard.h"
#include "txn/sender.h"
#include "txn/streaming.h"
#include "txn/super_journal.h"

#define MARK "unfit"
#define DIAL_MS 5000
#define TRANSFER_MS 5000
#define RETRY_MS 500
#define LOG_MS 10000

struct fetch {
	struct wrep *w;
	struct wrep_wire stream;
	uint8_t *pages;	   /* of this node's file, or those that were asked for */
	uint8_t *question; /* PAGES */
	uint64_t logged_ms;
	unsigned transfers; /* tried */
};

static bool stopping(void *arg)
{
	return wrep_stopping(((struct fetch *)arg)->w);
}

/* ---- the mark -------------------------------------------------------------------------------------- */

bool wrep_is_unfit(int state_fd)
{
	return faccessat(state_fd, MARK, F_OK, 0) == 0;
}

bool wrep_fetch_marked(struct wrep *w)
{
	return wrep_is_unfit(w->config.state_fd);
}

static int set_mark(struct wrep *w)
{
	int fd = openat(w->config.state_fd, MARK, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	close(fd);
	return fsync(w->config.state_fd) < 0 ? -errno : 0;
}

static int remove_mark(struct wrep *w)
{
	if (unlinkat(w->config.state_fd, MARK, 0) < 0 && errno != ENOENT)
		return -errno;
	return fsync(w->config.state_fd) < 0 ? -errno : 0;
}

static unsigned voters(const struct rlog_status *status)
{
	unsigned n = 0;

	for (unsigned i = 0; i < status->member_count; i++)
		n += status->members[i].role == RLOG_VOTER;
	return n;
}

/* The voter to hand leadership to at the n-th attempt: each in turn, since the one whose log is the
 * newest may be fetching, too. */
static uint64_t successor(const struct wrep *w, const struct rlog_status *status, unsigned n)
{
	uint64_t others[RLOG_MEMBERS_MAX];
	unsigned count = 0;

	for (unsigned i = 0; i < status->member_count; i++)
		if (status->members[i].role == RLOG_VOTER && status->members[i].id != w->node_id)
			others[count++] = status->members[i].id;
	return count ? others[n % count] : 0;
}

/* ---- one database ------------------------------------------------------------------------------ */

static int ask(struct fetch *f, enum wrep_wire_type type, const void *body, size_t len,
	       enum wrep_wire_type expected)
{
	int rc = stopping(f) ? -ECANCELED : wrep_wire_send(&f->stream, type, body, len);

	if (!rc)
		rc = wrep_wire_receive(&f->stream);
	if (rc)
		return rc;
	if (f->stream.type == expected)
		return 0;
	switch (f->stream.type) {
	case WREP_STREAM_GONE:
		return -ENOENT;
	case WREP_STREAM_CHANGED:
		return -ESTALE;
	case WREP_STREAM_REFUSED:
		return -EAGAIN;
	default:
		return -EBADMSG;
	}
}

/* Fetch the pages in f->question, and keep their hashes. */
static int fetch_pages(struct fetch *f, const struct wrep_manifest_db *d, int fd, uint32_t count,
		       uint64_t *hash)
{
	uint8_t *q = f->question;
	int rc;

	wrep_put64(q, d->id);
	wrep_put32(q + 8, d->page_size);
	wrep_put32(q + 12, 0);
	rc = ask(f, WREP_STREAM_PAGES, q, WREP_STREAM_PAGES_HEAD + (size_t)count * 4,
		 WREP_STREAM_PAGES);
	if (!rc && f->stream.len != (size_t)count * d->page_size)
		rc = -EBADMSG;
	for (uint32_t i = 0; i < count && !rc; i++) {
		uint32_t pgno = wrep_get32(q + WREP_STREAM_PAGES_HEAD + (size_t)i * 4);
		const uint8_t *page = f->stream.body + (size_t)i * d->page_size;

		hash[pgno - 1] = wrep_page_hash(pgno, page, d->page_size);
		rc = wrep_write_all(fd, page, d->page_size, (uint64_t)(pgno - 1) * d->page_size);
	}
	atomic_fetch_add(&f->w->fetched_bytes, (uint64_t)count * d->page_size);
	return rc;
}

static void log_progress(struct fetch *f, const struct wrep_manifest_db *d, uint32_t pgno)
{
	if (wrep_now_ms() - f->logged_ms < LOG_MS)
		return;
	f->logged_ms = wrep_now_ms();
	wrep_logf(f->w, 'I', "catching up database=%s page=%u of=%u fetched_bytes=%llu", d->name,
		  pgno, d->page_count, (unsigned long long)atomic_load(&f->w->fetched_bytes));
}

/* The hashes of the leader's pages [first, first + count), 8 bytes each. */
struct theirs {
	uint32_t first, count;
	const uint8_t *hashes;
};

/* Bring these pages of the file to what their hashes say; `hash` gets those of what is in the file then. */
static int compare_pages(struct fetch *f, const struct wrep_manifest_db *d, int fd,
			 const struct theirs *theirs, uint64_t *hash)
{
	const uint32_t first = theirs->first, count = theirs->count;
	const uint32_t per_read = WREP_STREAM_PAGES_BYTES / d->page_size;
	uint32_t wanted = 0;
	int rc = 0;

	for (uint32_t at = 0; at < count && !rc; at += per_read) {
		uint32_t n = count - at < per_read ? count - at : per_read;
		ssize_t got;

		/* From the disk: what a failed sync left in memory passes for written, and is not. */
		posix_fadvise(fd, (off_t)(first + at - 1) * d->page_size, (off_t)n * d->page_size,
			      POSIX_FADV_DONTNEED);
		got = wrep_read_some(fd, f->pages, (size_t)n * d->page_size,
				     (uint64_t)(first + at - 1) * d->page_size);

		for (uint32_t i = 0; i < n && !rc; i++) {
			uint32_t pgno = first + at + i;
			uint64_t their = wrep_get64(theirs->hashes + (size_t)(at + i) * 8);

			hash[pgno - 1] = 0;
			if (!their)
				continue; /* never written: what is there does not matter */
			if (got >= (ssize_t)((size_t)(i + 1) * d->page_size))
				hash[pgno - 1] =
					wrep_page_hash(pgno, f->pages + (size_t)i * d->page_size,
						       d->page_size);
			if (hash[pgno - 1] == their)
				continue;
			wrep_put32(f->question + WREP_STREAM_PAGES_HEAD + (size_t)wanted * 4, pgno);
			if (++wanted == per_read) {
				rc = fetch_pages(f, d, fd, wanted, hash);
				wanted = 0;
			}
		}
		atomic_fetch_add(&f->w->compared_bytes, (uint64_t)n * d->page_size);
		log_progress(f, d, first + at);
	}
	if (wanted && !rc)
		rc = fetch_pages(f, d, fd, wanted, hash);
	return rc;
}

static int set_attributes(int fd, const uint8_t *answer)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_NOW},
				    wrep_attr_time((int64_t)wrep_get64(answer + 24), false)};
	int rc = wrep_attr_own(fd, wrep_get32(answer + 8), wrep_get32(answer + 12),
			       wrep_get32(answer + 16));

	if (rc)
		return rc;
	return futimens(fd, times) < 0 ? -errno : 0;
}

/* Bring the file open as `fd` to what the leader has. Fills in the shape of `d` and all `*hash`. */
static int fetch_file(struct fetch *f, struct wrep_manifest_db *d, int fd, uint64_t **hash)
{
	uint8_t question[12], *sums = NULL;
	uint32_t first = 1, page_size = 0;
	int rc = 0;

	wrep_put64(question, d->id);
	do {
		uint32_t count;
		uint64_t *more;

		wrep_put32(question + 8, first);
		rc = ask(f, WREP_STREAM_SUMS, question, sizeof question, WREP_STREAM_SUMS);
		if (rc)
			break;
		if (f->stream.len < WREP_STREAM_SUMS_HEAD || f->stream.len % 8) {
			rc = -EBADMSG;
			break;
		}
		count = (uint32_t)((f->stream.len - WREP_STREAM_SUMS_HEAD) / 8);
		d->page_size = wrep_get32(f->stream.body);
		d->page_count = wrep_get32(f->stream.body + 4);
		if (first == 1) {
			page_size = d->page_size;
			rc = set_attributes(fd, f->stream.body);
		} else if (page_size != d->page_size) {
			rc = -ESTALE;
		}
		if (!rc && (count > WREP_STREAM_SUMS_MAX ||
			    (count && (!wrep_page_size_valid(page_size) ||
				       (uint64_t)first + count - 1 > d->page_count))))
			rc = -EBADMSG;
		if (rc || !count)
			break;
		more = reallocarray(*hash, (size_t)first - 1 + count, sizeof **hash);
		if (more)
			*hash = more;
		/* The next answer overwrites this one. */
		free(sums);
		sums = malloc((size_t)count * 8);
		if (!more || !sums) {
			rc = -ENOMEM;
			break;
		}
		memcpy(sums, f->stream.body + WREP_STREAM_SUMS_HEAD, (size_t)count * 8);
		rc = compare_pages(f, d, fd, &(struct theirs){first, count, sums}, *hash);
		first += count;
	} while (!rc && first <= d->page_count);
	free(sums);
	/* What the leader's has grown by since, the log brings. */
	if (!rc && first - 1 < d->page_count)
		d->page_count = first - 1;
	if (!rc && ftruncate(fd, (off_t)d->page_count * d->page_size) < 0)
		rc = -errno;
	if (!rc && fsync(fd) < 0)
		rc = -errno;
	return rc;
}

/* Store all hashes of a database. */
static int store_sums(struct wrep *w, const struct wrep_manifest_db *d, uint64_t *hash)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct wrep_pagesum sum = {0};
	int rc = wrep_pagesum_load(&sum, d->page_size, d->page_count, hash);

	if (rc) {
		free(hash);
		return rc;
	}
	memset(sum.dirty, 0xff, sum.dirty_bytes);
	rc = wrep_sumfile_store(w->config.state_fd, d->id, &sum, &lock);
	wrep_pagesum_close(&sum);
	return rc;
}

static int fetch_database(struct fetch *f, struct wrep_manifest_db *d)
{
	struct wrep *w = f->w;
	uint64_t *hash = NULL;
	int rc = wrep_moved_place(w, d->id, d->name), fd = -1;

	if (!rc) {
		fd = openat(w->config.data_fd, d->name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
			    0600);
		rc = fd < 0 ? -errno : 0;
	}
	for (int i = 0; !rc && i < 3; i++) {
		rc = fetch_file(f, d, fd, &hash);
		if (rc != -ESTALE)
			break;
		rc = i < 2 ? 0 : -EAGAIN; /* its page size changes again and again */
	}
	if (!rc)
		rc = store_sums(w, d, hash);
	else
		free(hash);
	if (fd >= 0)
		close(fd);
	return rc;
}

static int sync_dirs(struct wrep *w, const struct wrep_manifest *m)
{
	int rc = fsync(w->config.data_fd) < 0 ? -errno : 0;

	for (size_t i = 0; i < m->dir_count && !rc; i++) {
		int fd = openat(w->config.data_fd, m->dirs[i].path,
				O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

		rc = fd < 0 || fsync(fd) < 0 ? -errno : 0;
		if (fd >= 0)
			close(fd);
	}
	return rc;
}

/* ---- all of them --------------------------------------------------------------------------------- */

/* Fetch everything that `m`, the leader's manifest, names. What has been removed there meanwhile is taken
 * up without a file: the log removes it here as well, and until then it has a say in whether transactions
 * over several databases take effect. */
static int fetch_databases(struct fetch *f, struct wrep_manifest *m)
{
	int rc = wrep_dirs_prepare(f->w, m, false);

	for (size_t i = 0; i < m->count && !rc; i++) {
		struct wrep_manifest_db *d = &m->dbs[i];

		rc = d->gone ? -ENOENT : fetch_database(f, d);
		if (rc == -ENOENT) {
			d->gone = true;
			rc = wrep_sumfile_remove(f->w->config.state_fd, d->id);
		}
		d->wal_frames = 0;
	}
	if (!rc)
		rc = wrep_dirs_prepare(f->w, m, true);
	if (!rc)
		rc = sync_dirs(f->w, m);
	if (!rc && fsync(f->w->config.state_fd) < 0)
		rc = -errno;
	if (!rc)
		rc = ask(f, WREP_STREAM_END, "", 0, WREP_STREAM_END);
	if (!rc && f->stream.len != 8)
		rc = -EBADMSG;
	if (!rc)
		m->redo_until = wrep_get64(f->stream.body);
	return rc;
}

static int copy_image(struct fetch *f, struct rlog_buf **out)
{
	struct rlog_status status;
	uint8_t oldest[8];
	int rc;

	/* The log stays, and must go on from the image without a gap. */
	rlog_status(f->w->log, &status);
	wrep_put64(oldest, status.first_index - 1);
	rc = ask(f, WREP_STREAM_OPEN, oldest, sizeof oldest, WREP_STREAM_IMAGE);
	if (rc)
		return rc;
	*out = rlog_buf_new(f->stream.len);
	if (!*out)
		return -ENOMEM;
	memcpy((*out)->data, f->stream.body, f->stream.len);
	return 0;
}

/* With a connection: fetch, and make it what this node has. */
static int fetch_all(struct fetch *f)
{
	struct wrep *w = f->w;
	struct rlog_buf *image = NULL, *theirs = NULL, *ours = NULL;
	struct wrep_manifest m = {0};
	uint64_t index, term;
	int rc = copy_image(f, &image);

	if (!rc)
		rc = rlog_image_read(image, w->config.log.cluster_id, &index, &term, &theirs);
	if (!rc)
		rc = wrep_manifest_decode(theirs, &m);
	if (!rc && !m.names_index)
		m.names_index = index; /* of an earlier version */
	if (!rc)
		rc = set_mark(w);
	if (!rc)
		rc = fetch_databases(f, &m);
	if (!rc) {
		ours = wrep_manifest_encode(&m);
		rc = !ours ? -ENOMEM : stopping(f) ? -ECANCELED : rlog_install(w->log, image, ours);
	}
	if (!rc)
		rc = remove_mark(w);
	if (!rc) {
		rc = wrep_restore(w, &m, m.redo_until);
		if (!rc) {
			atomic_store(&w->delivered, index);
			wrep_snapshotter_adopt(w, &m, index);
		} else {
			wrep_fatalf(w,
				    "cannot take up the databases that were fetched error=\"%s\"; "
				    "repair the disk and mount again",
				    strerror(-rc));
		}
	}
	wrep_manifest_clear(&m);
	rlog_buf_unref(image);
	rlog_buf_unref(theirs);
	rlog_buf_unref(ours);
	return rc;
}

/* One attempt. 0, or -errno: try again. */
static int attempt(struct fetch *f)
{
	struct wrep *w = f->w;
	struct rlog_status status;
	char errmsg[RLOG_ERRMSG_SIZE] = "no leader is known";
	int fd, rc;
	bool stop;

	rlog_status(w->log, &status);
	if (status.view.leader_id == w->node_id) {
		if (voters(&status) < 2) {
			wrep_fatalf(
				w, "the databases of this node are half replaced, and there is no "
				   "other node to get them from; restore them from a backup into a "
				   "new data directory");
			return -EIO;
		}
		rc = rlog_transfer(w->log, successor(w, &status, f->transfers++), TRANSFER_MS);
		return rc ? rc : -EAGAIN;
	}
	if (!status.view.leader_id || !status.leader_address[0])
		return -EHOSTUNREACH;
	fd = rlog_dial(w->log, status.view.leader_id, status.leader_address, DIAL_MS, errmsg);
	if (fd < 0)
		return fd;
	pthread_mutex_lock(&w->lock);
	stop = wrep_closing(w);
	if (!stop)
		w->fetch_fd = fd;
	pthread_mutex_unlock(&w->lock);
	wrep_wire_init(&f->stream, fd, stopping, f);
	rc = stop ? -ECANCELED : fetch_all(f);
	if (rc == -EAGAIN && f->stream.type == WREP_STREAM_REFUSED && f->stream.len)
		wrep_logf(w, 'I', "the leader cannot be asked yet: %.*s", (int)f->stream.len,
			  (const char *)f->stream.body);
	pthread_mutex_lock(&w->lock);
	w->fetch_fd = -1;
	pthread_mutex_unlock(&w->lock);
	close(fd);
	wrep_wire_clear(&f->stream);
	return rc;
}

/* ---- retiring -------------------------------------------------------------------------------------- */

/* Nobody sees the files of `db` any more. They stay where they are: what the fetch does not replace goes
 * at its end (restore.c). */
static void retire(struct wrep_db *db)
{
	struct wrep *w = db->w;
	struct wrep_file *file[2];

	pthread_mutex_lock(&db->lock);
	db->removed = db->retired = true;
	file[0] = db->files[WREP_DB] ? wrep_file_ref(db->files[WREP_DB]) : NULL;
	file[1] = db->files[WREP_WAL] ? wrep_file_ref(db->files[WREP_WAL]) : NULL;
	if (file[0] && db->unjournaled.active)
		file[0]->lost = true;
	if (db->files[WREP_SHM])
		wrep_wal_index_spoil(db->files[WREP_SHM]->fd);
	if (!db->pending)
		wrep_db_drop_overlay(db);
	if (!db->pending)
		for (int k = 0; k < 4; k++)
			wrep_db_forget_file(db, k);
	wrep_streaming_forget(db);
	wrep_txn_unlock(db);
	for (int i = 0; i < 2; i++) {
		if (file[i])
			w->config.host.invalidate(w->config.host_ctx, file[i], 0, 0);
		wrep_file_unref(file[i]);
	}
	wrep_db_detach(db); /* last: what it kept readers out of may be half applied */
	wrep_db_hide(db, 0);
	wrep_db_remove(db);
}

static void retire_all(struct wrep *w)
{
	struct wrep_db **all;
	size_t count;

	if (wrep_db_all(w, &all, &count) < 0) {
		wrep_fatalf(w, "out of memory");
		return;
	}
	for (size_t i = 0; i < count; i++) {
		retire(all[i]);
		wrep_db_unref(all[i]);
	}
	free(all);
	wrep_super_forget_all(w);
	wrep_queue_retire(w->queue); /* what is queued for names comes again, too */
	wrep_dirs_retire(w);
}

/* Try until it is done. 0, or -errno: the node stops. */
static int fetch(struct fetch *f)
{
	struct wrep *w = f->w;
	uint64_t logged_ms = 0;
	int rc = -ECANCELED;

	while (!stopping(f)) {
		rc = attempt(f);
		if (!rc)
			break;
		if (rc != -EAGAIN && wrep_now_ms() - logged_ms > LOG_MS && !stopping(f)) {
			logged_ms = wrep_now_ms();
			wrep_logf(w, 'W',
				  "cannot get the databases from the leader; trying again "
				  "error=\"%s\"%s",
				  strerror(-rc), rc == -ENOSPC ? "; free the disk" : "");
		}
		nanosleep(&(struct timespec){.tv_nsec = RETRY_MS * 1000000L}, NULL);
	}
	return rc;
}

static void run(struct wrep *w, struct wrep_work *work)
{
	struct fetch f = {.w = w, .logged_ms = wrep_now_ms()};
	uint64_t begun_ms = wrep_now_ms();
	int rc;

	(void)work;
	if (!wrep_phase_fetch(w))
		return;
	/* What raftlog's thread was at is done; now it sees that nothing may be delivered. */
	pthread_mutex_lock(&w->delivery);
	pthread_mutex_unlock(&w->delivery);
	atomic_store(&w->compared_bytes, 0);
	atomic_store(&w->fetched_bytes, 0);
	wrep_snapshotter_void(w);
	wrep_page_servers_stop(w);
	retire_all(w);
	f.pages = malloc(WREP_STREAM_PAGES_BYTES);
	f.question = malloc(WREP_STREAM_PAGES_HEAD + WREP_STREAM_PAGES_BYTES / 512 * 4);
	if (!f.pages || !f.question)
		wrep_fatalf(w, "out of memory");
	rc = fetch(&f);
	free(f.pages);
	free(f.question);
	if (!rc)
		wrep_logf(w, 'I',
			  "the databases are the leader's now; what came since is applied "
			  "compared_bytes=%llu fetched_bytes=%llu seconds=%.1f",
			  (unsigned long long)atomic_load(&w->compared_bytes),
			  (unsigned long long)atomic_load(&w->fetched_bytes),
			  (double)(wrep_now_ms() - begun_ms) / 1000);
	wrep_phase_fetched(w, !rc);
	pthread_mutex_lock(&w->lock); /* wrep_close() frees the log */
	if (!rc && w->resumable)
		rlog_resume(w->log);
	pthread_mutex_unlock(&w->lock);
}

static const struct wrep_work_ops ops = {.name = "fetch", .run = run, .release = wrep_work_free};

static void queue(struct wrep *w)
{
	struct wrep_work *work = wrep_work_make(sizeof *work, &ops);

	wrep_work_is_about_all(work);
	wrep_queue_push(w->queue, work);
}

/* ---- wanting it ------------------------------------------------------------------------------------ */

/* Nobody else has a copy. w->lock held. */
static bool alone(struct wrep *w)
{
	struct rlog_status status;

	if (!w->resumable) /* the log may not be used */
		return false;
	rlog_status(w->log, &status);
	return status.view.leader_id == w->node_id && voters(&status) == 1;
}

void wrep_fetch_wanted(struct wrep *w, const char *reason, struct wrep_db *db)
{
	bool first, given_up = false;

	pthread_mutex_lock(&w->lock);
	first = wrep_phase_can_be_unfit(w);
	if (first && db && alone(w)) {
		pthread_mutex_lock(&db->lock);
		given_up = !db->damaged;
		db->damaged = true;
		pthread_mutex_unlock(&db->lock);
		first = false;
	}
	if (first)
		first = wrep_phase_unfit(w);
	pthread_mutex_unlock(&w->lock);
	if (given_up)
		wrep_damagef(
			w,
			"%s, and no other node has a copy: it cannot be opened any more; remove it "
			"and restore it from a backup database=%s",
			reason, db->name);
	if (!first)
		return;
	atomic_store(&w->may_write, false);
	if (db)
		wrep_damagef(w, "%s; getting it from the leader database=%s", reason, db->name);
	else
		wrep_logf(w, 'W', "%s; getting the databases from the leader", reason);
	queue(w);
}

void wrep_fetch_stop(struct wrep *w)
{
	pthread_mutex_lock(&w->lock);
	if (w->fetch_fd >= 0)
		shutdown(w->fetch_fd, SHUT_RDWR);
	pthread_mutex_unlock(&w->lock);
	wrep_phase_wait_fetched(w);
}
