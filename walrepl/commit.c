/* An application's transaction on its way through Raft.
 *
 * WAL mode: capture.c says which write completed the transaction; its pages are read back from the
 * backing -wal (and from that write), become one COMMIT entry, preceded by PAGES entries when they
 * do not fit one, and the write waits. Rollback mode: the pages are in the overlay, and what waits is
 * the removal, truncation or zeroing of the journal.
 *
 * One transaction of a database is undecided at a time: SQLite's writers' lock sees to that, and a
 * second one is refused. When the outcome is refused or unknown the application gets EIO, and its
 * files show the state before: the held write never reaches the -wal, so no recovery can bring it
 * back; the overlay stays under its hot journal, which SQLite rolls back. Should an unknown one turn
 * out committed later, it arrives at replica.c without its request, like any other node's, and the
 * applier brings it in; until then `local_version` lags `version`, and commits built on it are
 * refused here before they are sent.
 */
#include "internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void wrep_commit_free(struct wrep_commit *c)
{
	if (!c)
		return;
	wrep_db_unref(c->db);
	free(c->changes);
	free(c->journal_bytes);
	free(c);
}

/* raftlog: refused, or unknown. */
static void commit_done(struct rlog_request *req, enum rlog_outcome outcome)
{
	struct wrep_commit *c = (struct wrep_commit *)req;
	struct wrep_db *db = c->db;
	struct wrep_op *op = c->op;

	pthread_mutex_lock(&db->lock);
	assert(db->pending == c);
	db->pending = NULL;
	if (c->mode == WREP_COMMIT_WAL)
		wrep_capture_refused(db->capture);
	wrep_db_settled(db);
	pthread_mutex_unlock(&db->lock);
	if (outcome == RLOG_UNKNOWN)
		wrep_logf(db->w, 'W',
			  "commit outcome unknown: no majority answered in time; the "
			  "application got EIO database=%s base_version=%llu",
			  db->name, (unsigned long long)c->base_version);
	op->done(op, -EIO);
	wrep_commit_free(c);
}

static void part_done(struct rlog_request *req, enum rlog_outcome outcome)
{
	(void)outcome; /* the COMMIT behind it tells */
	free(req);
}

/* Where the images of a transaction come from. */
struct image_source {
	struct wrep_db *db;
	uint32_t count, page_size;
	const struct wrep_wal_txn *txn;		/* WAL */
	const struct wrep_page_change *changes; /* rollback: which pages of the overlay */
};

static int read_image(const struct image_source *s, uint32_t i, uint32_t *pgno, uint8_t *page)
{
	ssize_t n;

	if (s->txn) {
		*pgno = s->txn->images[i].pgno;
		return wrep_capture_image(s->db->capture, &s->txn->images[i], page);
	}
	*pgno = s->changes[i].pgno;
	n = wrep_overlay_read(s->db->overlay, s->db->files[WREP_DB]->fd, page, s->page_size,
			      (uint64_t)(*pgno - 1) * s->page_size);
	if (n < 0)
		return (int)n;
	memset(page + n, 0, s->page_size - (size_t)n);
	return 0;
}

/* Encode images [from, from + e->image_count) into one entry. */
static int encode_piece(const struct image_source *s, struct wrep_entry *e, uint32_t from,
			struct wrep_commit *c, struct rlog_buf **out)
{
	struct rlog_buf *buf = wrep_entry_alloc(e);

	if (!buf)
		return -ENOMEM;
	for (uint32_t i = 0; i < e->image_count; i++) {
		uint8_t *page = (uint8_t *)e->images + (size_t)i * s->page_size;
		uint32_t pgno;
		int rc = read_image(s, from + i, &pgno, page);

		if (rc < 0) {
			rlog_buf_unref(buf);
			return rc;
		}
		wrep_entry_set_pgno(e, i, pgno);
		if (pgno == 1) {
			c->sets_wal_mode = true;
			c->wal_mode = wrep_page1_is_wal(page);
		}
	}
	*out = buf;
	return 0;
}

/* Encode everything; the requests are chained in the order of submission, the COMMIT's last. */
static int encode_transaction(const struct image_source *s, struct wrep_commit *c,
			      struct rlog_request ***chain, uint32_t *chain_count)
{
	uint32_t per_entry = s->page_size ? wrep_entry_images_max(s->page_size) : 1;
	uint32_t parts, i;
	struct rlog_request **list;
	struct wrep_entry e = {
		.db_id = c->db->id,
		.origin = c->db->w->origin,
		.sequence = atomic_fetch_add(&c->db->w->sequence, 1),
		.page_size = s->page_size,
	};
	int rc = 0;

	parts = s->count ? (s->count - 1) / per_entry : 0;
	list = calloc(parts + 1, sizeof *list);
	if (!list)
		return -ENOMEM;
	for (i = 0; i < parts && !rc; i++) {
		list[i] = calloc(1, sizeof **list);
		if (!list[i]) {
			rc = -ENOMEM;
			break;
		}
		list[i]->done = part_done;
		e.type = WREP_ENTRY_PAGES;
		e.part = i;
		e.image_count = per_entry;
		rc = encode_piece(s, &e, i * per_entry, c, &list[i]->buf);
	}
	if (!rc) {
		e.type = WREP_ENTRY_COMMIT;
		e.part = parts;
		e.image_count = s->count - parts * per_entry;
		e.commit_mode = c->mode;
		e.base_version = c->base_version;
		e.checksum = c->checksum;
		e.page_count = c->page_count;
		e.total_pages = s->count;
		rc = encode_piece(s, &e, parts * per_entry, c, &c->request.buf);
	}
	if (rc) {
		for (i = 0; i < parts && list[i]; i++) {
			rlog_buf_unref(list[i]->buf);
			free(list[i]);
		}
		free(list);
		return rc;
	}
	c->request.done = commit_done;
	list[parts] = &c->request;
	*chain = list;
	*chain_count = parts + 1;
	return 0;
}

/* Fill in what depends on the replicated state, encode, and make it the undecided transaction. The
 * requests are returned for submission outside the lock. db->lock held. */
static int prepare(struct wrep_db *db, struct wrep_commit *c, const struct image_source *s,
		   struct rlog_request ***chain, uint32_t *chain_count)
{
	int rc;

	if (db->removed || db->local_version != db->version)
		return -EIO; /* built on a state that is no longer the database's */
	c->base_version = db->version;
	c->checksum = wrep_pagesum_preview(&db->sum, c->page_size, c->page_count, c->changes,
					   c->change_count);
	rc = encode_transaction(s, c, chain, chain_count);
	if (rc == 0)
		db->pending = c;
	return rc;
}

static void submit(struct wrep *w, struct rlog_request **chain, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		rlog_submit(w->log, chain[i]);
	free(chain);
}

int wrep_commit_wal(struct wrep_db *db, const struct wrep_wal_txn *txn, struct wrep_op *op)
{
	struct wrep *w = db->w;
	struct wrep_commit *c = calloc(1, sizeof *c);
	struct image_source source = {.db = db,
				      .count = txn->image_count,
				      .page_size = txn->page_size,
				      .txn = txn};
	struct rlog_request **chain;
	uint32_t chain_count;
	int rc = -ENOMEM;

	if (!c)
		goto fail;
	c->db = wrep_db_ref(db);
	c->op = op;
	c->mode = WREP_COMMIT_WAL;
	c->page_size = txn->page_size;
	c->page_count = txn->page_count;
	c->change_count = txn->image_count;
	c->changes = malloc(((size_t)txn->image_count + 1) * sizeof *c->changes);
	if (!c->changes)
		goto fail;
	for (uint32_t i = 0; i < txn->image_count; i++)
		c->changes[i] = (struct wrep_page_change){txn->images[i].pgno, txn->images[i].hash};
	rc = prepare(db, c, &source, &chain, &chain_count);
	if (rc < 0)
		goto fail;
	pthread_mutex_unlock(&db->lock);
	submit(w, chain, chain_count);
	return WREP_PENDING;
fail:
	wrep_capture_refused(db->capture);
	pthread_mutex_unlock(&db->lock);
	wrep_commit_free(c);
	return rc;
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The shape that the transaction leaves behind, from the header of page 1 (SQLite's file format, 1.3):
 * the page size, and the size in pages. A file that shrinks is cut only after the commit, so the
 * header's size counts where it is valid, else that of the file. false: no database. */
static bool overlay_shape(struct wrep_db *db, uint32_t *page_size, uint32_t *page_count)
{
	uint64_t file_size = wrep_overlay_size(db->overlay);
	uint8_t head[100];
	uint32_t size, pages;

	*page_size = *page_count = 0;
	if (!file_size)
		return true;
	if (wrep_overlay_read(db->overlay, db->files[WREP_DB]->fd, head, sizeof head, 0) !=
	    sizeof head)
		return false;
	size = (uint32_t)head[16] << 8 | head[17];
	if (size == 1)
		size = 65536;
	if (size < 512 || size > 65536 || (size & (size - 1)) || file_size / size > UINT32_MAX)
		return false;
	*page_size = size;
	*page_count = (uint32_t)(file_size / size);
	pages = be32(head + 28);
	if (pages && pages < *page_count && be32(head + 24) == be32(head + 92))
		*page_count = pages;
	return true;
}

/* The pages of the overlay that differ from the committed ones. */
static int overlay_changes(struct wrep_db *db, uint32_t page_size, uint32_t page_count,
			   struct wrep_page_change **out, uint32_t *count)
{
	struct wrep_page_change *changes = NULL;
	uint32_t n = 0, capacity = 0, pgno = 1;
	uint8_t *page = malloc(page_size);
	int rc = page ? 0 : -ENOMEM;

	while (!rc && (pgno = wrep_overlay_next(db->overlay, page_size, pgno)) != 0 &&
	       pgno <= page_count) {
		ssize_t got = wrep_overlay_read(db->overlay, db->files[WREP_DB]->fd, page,
						page_size, (uint64_t)(pgno - 1) * page_size);
		uint64_t hash;

		if (got < 0) {
			rc = (int)got;
			break;
		}
		memset(page + got, 0, page_size - (size_t)got);
		hash = wrep_page_hash(pgno, page, page_size);
		if (pgno != wrep_lock_page(page_size) &&
		    (db->sum.page_size != page_size || pgno > db->sum.page_count ||
		     db->sum.hash[pgno - 1] != hash)) {
			if (n == capacity) {
				struct wrep_page_change *more;

				capacity = capacity ? capacity * 2 : 64;
				more = realloc(changes, capacity * sizeof *changes);
				if (!more) {
					rc = -ENOMEM;
					break;
				}
				changes = more;
			}
			changes[n++] = (struct wrep_page_change){pgno, hash};
		}
		if (pgno == UINT32_MAX)
			break;
		pgno++;
	}
	free(page);
	if (rc) {
		free(changes);
		return rc;
	}
	*out = changes;
	*count = n;
	return 0;
}

int wrep_commit_rollback(struct wrep_db *db, struct wrep_commit *c)
{
	struct wrep *w = db->w;
	struct image_source source = {.db = db};
	struct rlog_request **chain;
	uint32_t chain_count;
	int rc;

	c->db = wrep_db_ref(db);
	c->mode = WREP_COMMIT_ROLLBACK;
	if (db->pending || !db->files[WREP_DB]) {
		rc = -EIO;
		goto fail;
	}
	if (!overlay_shape(db, &c->page_size, &c->page_count)) {
		wrep_logf(w, 'W',
			  "commit refused: what was written is no SQLite database "
			  "database=%s",
			  db->name);
		rc = -EIO;
		goto fail;
	}
	if (c->page_count) {
		rc = overlay_changes(db, c->page_size, c->page_count, &c->changes,
				     &c->change_count);
		if (rc < 0)
			goto fail;
	}
	if (db->local_version == db->version && !c->change_count &&
	    c->page_count == db->sum.page_count &&
	    (c->page_size == db->sum.page_size || !c->page_count)) {
		/* A rollback, or no change at all: the database file holds it already. */
		wrep_overlay_close(db->overlay);
		db->overlay = NULL;
		wrep_commit_free(c);
		return 0;
	}
	source.count = c->change_count;
	source.page_size = c->page_size;
	source.changes = c->changes;
	rc = prepare(db, c, &source, &chain, &chain_count);
	if (rc < 0)
		goto fail;
	pthread_mutex_unlock(&db->lock);
	submit(w, chain, chain_count);
	return WREP_PENDING;
fail:
	pthread_mutex_unlock(&db->lock);
	wrep_commit_free(c);
	return rc;
}

int wrep_commit_pull_trigger(struct wrep_db *db, const struct wrep_commit *c)
{
	struct wrep_file *journal = db->files[WREP_JOURNAL];
	char name[WREP_NAME_MAX + 16];

	if (!journal)
		return 0;
	switch (c->trigger) {
	case WREP_TRIGGER_UNLINK:
		wrep_db_backing_name(db, WREP_JOURNAL, name);
		if (unlinkat(wrep_dir_fd(db->w, WREP_JOURNAL), name, 0) < 0 && errno != ENOENT)
			return -errno;
		wrep_db_forget_file(db, WREP_JOURNAL);
		return 0;
	case WREP_TRIGGER_TRUNCATE:
		return ftruncate(journal->fd, (off_t)c->journal_size) < 0 ? -errno : 0;
	case WREP_TRIGGER_WRITE:
		if (pwrite(journal->fd, c->journal_bytes, c->journal_len, (off_t)c->journal_off) !=
		    (ssize_t)c->journal_len)
			return errno ? -errno : -EIO;
		return 0;
	case WREP_TRIGGER_NONE:
		break;
	}
	return 0;
}

/* ---- CREATE, UNLINK, SETATTR --------------------------------------------------------------------- */

static void meta_done(struct rlog_request *req, enum rlog_outcome outcome)
{
	struct wrep_meta_request *m = (struct wrep_meta_request *)req;

	if (outcome == RLOG_UNKNOWN)
		wrep_logf(m->w, 'W',
			  "outcome unknown: no majority answered in time; the "
			  "application got EIO");
	m->op->done(m->op, outcome == RLOG_REFUSED ? -EROFS : -EIO);
	free(m);
}

int wrep_submit_meta(struct wrep *w, struct wrep_db *db, const struct wrep_entry *e, int open_flags,
		     struct wrep_op *op)
{
	struct wrep_meta_request *m = calloc(1, sizeof *m);

	(void)db;
	if (!m)
		return -ENOMEM;
	m->request.buf = wrep_entry_encode(e);
	if (!m->request.buf) {
		free(m);
		return -ENOMEM;
	}
	m->request.done = meta_done;
	m->w = w;
	m->open_flags = open_flags;
	m->op = op;
	rlog_submit(w->log, &m->request);
	return WREP_PENDING;
}
