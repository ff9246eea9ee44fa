/* Large transactions: the window of parts on their way, the rule of one term, what is kept of parts
 * and when it goes, a full disk.
 *
 * A whole replica runs here (rig/replica_rig.h); this test holds what was submitted and delivers it, or
 * does not, as it likes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "../rig/random.h"
#include "../rig/replica_rig.h"
#include "db/db.h"
#include "db/pin.h"
#include "db/table.h"
#include "file/file.h"
#include "db/spool.h"
#include "deliver.h"
#include "txn/commit.h"
#include "txn/sender.h"
#include "txn/streaming.h"
#include "txn/unjournaled.h"

/* ---- databases --------------------------------------------------------------------------------- */

/* It writes `pages` pages in rollback mode, up to the removal of its journal. */
static int write_transaction(struct wrep_file *f, uint32_t pages, uint8_t content, struct op *o)
{
	static const uint8_t magic[8] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};
	struct op create = {.op.done = op_done, .result = 1};
	uint8_t page[PAGE];

	*o = (struct op){.op.done = op_done, .result = 1};
	assert_int_equal(wrep_create(w, "a.db-journal", &(struct wrep_new_file){.mode = 0644, .flags = O_CREAT}, false, &create.op), 0);
	assert_int_equal(wrep_file_write(create.op.file, magic, sizeof(magic), 0, &create.op), 0);
	wrep_file_release(create.op.file, false);
	wrep_file_unref(create.op.file);
	for (uint32_t pgno = 1; pgno <= pages; pgno++) {
		fill_page(page, pgno, content);
		assert_int_equal(wrep_file_write(f, page, PAGE, (uint64_t)(pgno - 1) * PAGE,
						 &create.op),
				 0);
	}
	return wrep_unlink(w, "a.db-journal", &o->op);
}

/* And takes back what it wrote, as SQLite would. */
static void roll_back(struct wrep_file *f)
{
	struct op o = {.op.done = op_done, .result = 1};
	uint8_t page[PAGE];
	struct stat st;

	assert_int_equal(fstatat(dir_fd, "a.db", &st, 0), 0);
	for (off_t off = 0; off < st.st_size; off += PAGE) {
		int fd = openat(dir_fd, "a.db", O_RDONLY | O_CLOEXEC);

		assert_int_equal(pread(fd, page, PAGE, off), PAGE);
		close(fd);
		assert_int_equal(wrep_file_write(f, page, PAGE, (uint64_t)off, &o.op), 0);
	}
	assert_int_equal(wrep_file_truncate(f, (uint64_t)st.st_size, true, &o.op), 0);
	assert_int_equal(wrep_unlink(w, "a.db-journal", &o.op), 0);
}

static struct wrep_db_status status(void)
{
	struct wrep_db_status *all, one;
	size_t count;

	assert_int_equal(wrep_databases(w, &all, &count), 0);
	assert_int_equal(count, 1);
	one = *all;
	free(all);
	return one;
}

/* Once the applier has made it. */
static struct wrep_db *the_database(void)
{
	struct wrep_db *db;

	while (!(db = wrep_db_by_name(w, "a.db")))
		usleep(500);
	return db;
}

static uint64_t local_version(void)
{
	struct wrep_db *db = the_database();
	uint64_t version;

	pthread_mutex_lock(&db->lock);
	version = db->local_version;
	pthread_mutex_unlock(&db->lock);
	wrep_db_unref(db);
	return version;
}

static uint64_t first_index(void)
{
	struct wrep_db *db = the_database();
	uint64_t index;

	pthread_mutex_lock(&db->lock);
	index = wrep_parts_first_index(db);
	pthread_mutex_unlock(&db->lock);
	wrep_db_unref(db);
	return index;
}

/* Files without a name that this process has open. */
static unsigned unnamed_files(void)
{
	DIR *fds = opendir("/proc/self/fd");
	struct dirent *entry;
	unsigned count = 0;

	while ((entry = readdir(fds))) {
		char target[256];
		ssize_t n = readlinkat(dirfd(fds), entry->d_name, target, sizeof(target) - 1);

		if (n < 0)
			continue;
		target[n] = 0;
		count += strstr(target, "(deleted)") && strstr(target, "wrep-replica");
	}
	closedir(fds);
	return count;
}

static void wait_unnamed_files(unsigned count)
{
	while (unnamed_files() != count)
		usleep(500);
}

/* ---- a transaction of another node --------------------------------------------------------------- */

/* Page 1 .. pages, all with `content`, as `parts` entries and a COMMIT. */
struct foreign {
	uint64_t db_id, sequence, base_version;
	uint32_t pages, parts;
	uint8_t content;
};

static void foreign_entry(const struct foreign *t, bool commit, uint32_t part)
{
	uint32_t per = t->pages / (t->parts + 1), from = part * per;
	struct wrep_entry e = {
		.type = commit ? WREP_ENTRY_COMMIT : WREP_ENTRY_PAGES,
		.db_id = t->db_id,
		.origin = 77,
		.sequence = t->sequence,
		.part = part,
		.page_size = PAGE,
		.image_count = commit ? t->pages - from : per,
		.commit_mode = WREP_COMMIT_ROLLBACK,
		.base_version = t->base_version,
		.page_count = t->pages,
		.total_pages = t->pages,
	};
	struct rlog_buf *buf;
	uint8_t page[PAGE];

	for (uint32_t pgno = 1; pgno <= t->pages; pgno++) {
		fill_page(page, pgno, t->content);
		e.checksum += wrep_page_hash(pgno, page, PAGE);
	}
	buf = wrep_entry_alloc(&e);
	for (uint32_t i = 0; i < e.image_count; i++) {
		fill_page((uint8_t *)e.images + (size_t)i * PAGE, from + i + 1, t->content);
		wrep_entry_set_pgno(&e, i, from + i + 1);
	}
	deliver_buf(buf, NULL);
	rlog_buf_unref(buf);
}

static void foreign_parts(const struct foreign *t, uint32_t from, uint32_t to)
{
	for (uint32_t part = from; part < to; part++)
		foreign_entry(t, false, part);
}

static void foreign_discard(const struct foreign *t)
{
	struct wrep_entry e = {.type = WREP_ENTRY_DISCARD,
			       .db_id = t->db_id,
			       .origin = 77,
			       .sequence = t->sequence};
	struct rlog_buf *buf = wrep_entry_encode(&e);

	deliver_buf(buf, NULL);
	rlog_buf_unref(buf);
}

static void wait_local_version(uint64_t version)
{
	while (local_version() != version)
		usleep(500);
}

/* ---- applying ------------------------------------------------------------------------------------ */

static void parts_of_another_node_are_applied(void **state)
{
	struct foreign t = {.sequence = 1, .pages = 1000, .parts = 7, .content = 3};

	(void)state;
	t.db_id = foreign_database("a.db");
	foreign_parts(&t, 0, t.parts);
	assert_int_equal(first_index(), t.db_id + 1);
	wait_unnamed_files(1);
	assert_int_equal(status().version, 0);
	foreign_entry(&t, true, t.parts);
	wait_local_version(1);
	assert_int_equal(first_index(), 0);
	expect_content("a.db", 1000, 3);
	wait_unnamed_files(0);
}

static void commit_of_another_term_than_its_parts_is_refused(void **state)
{
	struct foreign t = {.sequence = 1, .pages = 100, .parts = 3, .content = 3};

	(void)state;
	t.db_id = foreign_database("a.db");
	foreign_parts(&t, 0, t.parts);
	term_now = 2;
	foreign_entry(&t, true, t.parts);
	assert_int_equal(status().version, 0);
	/* parts of two terms */
	t.sequence = 2;
	foreign_parts(&t, 0, 2);
	term_now = 3;
	foreign_parts(&t, 2, 3);
	foreign_entry(&t, true, t.parts);
	assert_int_equal(status().version, 0);
	assert_int_equal(first_index(), 0);
	wait_unnamed_files(0);
	/* and in one term it is taken */
	t.sequence = 3;
	foreign_parts(&t, 0, t.parts);
	foreign_entry(&t, true, t.parts);
	wait_local_version(1);
	expect_content("a.db", 100, 3);
}

static void parts_go_when_they_are_dead(void **state)
{
	struct foreign t = {.sequence = 1, .pages = 100, .parts = 3, .content = 3};
	struct foreign other = {.sequence = 9, .pages = 100, .parts = 3, .content = 9};
	struct foreign small = {.sequence = 10, .pages = 5, .parts = 0, .content = 5};

	(void)state;
	other.db_id = small.db_id = t.db_id = foreign_database("a.db");

	/* discarded; a DISCARD of something else changes nothing */
	foreign_parts(&t, 0, 2);
	wait_unnamed_files(1);
	foreign_discard(&other);
	assert_int_not_equal(first_index(), 0);
	foreign_discard(&t);
	assert_int_equal(first_index(), 0);
	wait_unnamed_files(0);
	foreign_entry(&t, true, t.parts);
	assert_int_equal(status().version, 0);

	/* by the next transaction, large or small */
	t.sequence = 2;
	foreign_parts(&t, 0, 2);
	foreign_parts(&other, 0, 1);
	assert_int_equal(first_index(), index_now);
	wait_unnamed_files(1);
	foreign_entry(&small, true, 0);
	assert_int_equal(first_index(), 0);
	wait_unnamed_files(0);
	wait_local_version(1);
	expect_content("a.db", 5, 5);

	/* by a newer term, whatever entry shows it */
	t.sequence = 3;
	t.base_version = 1;
	foreign_parts(&t, 0, 2);
	wait_unnamed_files(1);
	wrep_parts_drop_dead(w, term_now);
	assert_int_not_equal(first_index(), 0);
	wrep_parts_drop_dead(w, term_now + 1);
	assert_int_equal(first_index(), 0);
	wait_unnamed_files(0);
	t.sequence = 4;
	foreign_parts(&t, 0, 2);
	term_now = 2;
	foreign_database("a.db"); /* is there, but it is an entry */
	assert_int_equal(first_index(), 0);
	wait_unnamed_files(0);
	assert_int_equal(status().version, 1);
}

/* ---- parts that were sent as a guess ------------------------------------------------------------- */

#define GUESS_PAGES 300u

/* The database as the transactions so far should leave it: what every page is filled with, 0: it was
 * never written. */
static struct {
	uint64_t db_id, version, sequence;
	uint32_t page_count;
	uint8_t content[GUESS_PAGES + 1];
	uint8_t next[GUESS_PAGES + 1]; /* what the parts so far would make of it */
	bool sent[GUESS_PAGES + 1];
	uint32_t part;
} guess;

/* Some pages below `end`, with some content each. */
static void guessed_images(struct wrep_entry *e, uint32_t end, struct rlog_buf **buf)
{
	uint32_t pgnos[GUESS_PAGES], count = 0;

	for (uint32_t pgno = 1; pgno < end && count < wrep_entry_images_max(PAGE); pgno++)
		if (random_below(3) == 0)
			pgnos[count++] = pgno;
	if (count == 0)
		pgnos[count++] = 1;
	e->image_count = count;
	*buf = wrep_entry_alloc(e);
	for (uint32_t i = 0; i < count; i++) {
		uint8_t content = (uint8_t)(random_below(255) + 1);

		wrep_entry_set_pgno(e, i, pgnos[i]);
		fill_page((uint8_t *)e->images + (size_t)i * PAGE, pgnos[i], content);
		guess.next[pgnos[i]] = content;
		guess.sent[pgnos[i]] = true;
	}
}

static struct wrep_entry guessed_entry(enum wrep_entry_type type)
{
	return (struct wrep_entry){
		.type = type,
		.db_id = guess.db_id,
		.origin = 77,
		.sequence = guess.sequence,
		.part = guess.part,
		.page_size = PAGE,
		.commit_mode = WREP_COMMIT_ROLLBACK,
		.base_version = guess.version,
	};
}

static void guessed_part(void)
{
	struct wrep_entry e = guessed_entry(WREP_ENTRY_PAGES);
	struct rlog_buf *buf;

	guessed_images(&e, GUESS_PAGES + 1, &buf);
	deliver_buf(buf, NULL);
	rlog_buf_unref(buf);
	guess.part++;
}

/* Drop `percent` of what was sent, and commit the rest. */
static void guessed_commit(uint32_t page_count, unsigned percent)
{
	struct wrep_entry e = guessed_entry(WREP_ENTRY_COMMIT), alloced;
	uint32_t drop[GUESS_PAGES];
	struct rlog_buf *buf;
	uint8_t page[PAGE];

	e.page_count = page_count;
	for (uint32_t pgno = 1; pgno <= GUESS_PAGES; pgno++) {
		if (guess.sent[pgno] && pgno <= page_count && random_below(100) < percent) {
			drop[e.dropped_count++] = pgno;
			guess.sent[pgno] = false;
		}
	}
	if (e.dropped_count == 0) {
		guessed_images(&e, page_count + 1, &buf);
	} else {
		buf = wrep_entry_alloc(&e);
		for (uint32_t i = 0; i < e.dropped_count; i++)
			wrep_entry_set_dropped(&e, i, drop[i]);
	}
	for (uint32_t pgno = 1; pgno <= GUESS_PAGES; pgno++) {
		if (pgno > page_count)
			guess.content[pgno] = 0;
		else if (guess.sent[pgno])
			guess.content[pgno] = guess.next[pgno];
		e.total_pages += pgno <= page_count && guess.sent[pgno];
		guess.sent[pgno] = false;
		if (guess.content[pgno]) {
			fill_page(page, pgno, guess.content[pgno]);
			e.checksum += wrep_page_hash(pgno, page, PAGE);
		}
	}
	/* what is known only now is written over what stands there */
	alloced = e;
	struct rlog_buf *whole = wrep_entry_alloc(&alloced);
	memcpy((uint8_t *)alloced.images, e.images, (size_t)e.image_count * PAGE);
	memcpy((uint8_t *)alloced.pgnos, e.pgnos, (size_t)e.image_count * 4);
	memcpy((uint8_t *)alloced.dropped, e.dropped, (size_t)e.dropped_count * 4);
	rlog_buf_unref(buf);
	deliver_buf(whole, NULL);
	rlog_buf_unref(whole);
	guess.version++;
	guess.sequence++;
	guess.part = 0;
	guess.page_count = page_count;
}

static void expect_guessed(void)
{
	int fd = openat(dir_fd, "a.db", O_RDONLY | O_CLOEXEC);
	uint8_t page[PAGE], wanted[PAGE];
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, (off_t)guess.page_count * PAGE);
	for (uint32_t pgno = 1; pgno <= guess.page_count; pgno++) {
		memset(wanted, 0, PAGE);
		if (guess.content[pgno])
			fill_page(wanted, pgno, guess.content[pgno]);
		assert_int_equal(pread(fd, page, PAGE, (off_t)(pgno - 1) * PAGE), PAGE);
		assert_memory_equal(page, wanted, PAGE);
	}
	close(fd);
}

static void last_image_of_a_page_counts_and_dropped_ones_do_not(void **state)
{
	(void)state;
	random_begin();
	print_message("repeat with WREP_TEST_SEED=%llu\n", (unsigned long long)seed);
	memset(&guess, 0, sizeof(guess));
	guess.db_id = foreign_database("a.db");
	for (unsigned round = 0; round < 60; round++) {
		for (unsigned parts = random_below(6) + 1; parts > 0; parts--)
			guessed_part();
		guessed_commit(random_below(2) ? GUESS_PAGES : random_below(GUESS_PAGES) + 1,
			       random_below(3) * 30);
		assert_int_equal(status().version, guess.version);
		wait_local_version(guess.version);
		expect_guessed();
		assert_int_equal(first_index(), 0);
	}
	wait_unnamed_files(0);
}

static void commit_that_does_not_fit_its_parts_stops_the_node(void **state)
{
	struct wrep_entry e;
	struct rlog_buf *buf;

	(void)state;
	memset(&guess, 0, sizeof(guess));
	guess.db_id = foreign_database("a.db");
	guessed_part();
	e = guessed_entry(WREP_ENTRY_COMMIT);
	e.page_count = GUESS_PAGES;
	e.total_pages = GUESS_PAGES; /* more than were sent */
	buf = wrep_entry_alloc(&e);
	deliver_buf(buf, NULL);
	rlog_buf_unref(buf);
	assert_non_null(strstr(failure, "cannot be understood"));
	failure[0] = 0;
}

static void commit_with_a_gap_in_its_parts_is_refused(void **state)
{
	struct foreign t = {.sequence = 1, .pages = 100, .parts = 4, .content = 3};

	(void)state;
	t.db_id = foreign_database("a.db");
	foreign_parts(&t, 0, 2);
	foreign_parts(&t, 3, 4);
	foreign_entry(&t, true, t.parts);
	assert_int_equal(status().version, 0);
	t.sequence = 2;
	foreign_parts(&t, 1, 4);
	foreign_entry(&t, true, t.parts);
	assert_int_equal(status().version, 0);
	wait_unnamed_files(0);
}

/* The node that leads next says so to all. */
static void new_leader_discards_what_the_last_one_left(void **state)
{
	struct foreign t = {.sequence = 1, .pages = 100, .parts = 3, .content = 3};
	struct rlog_view view = {.role = RLOG_LEADER, .ready = false, .term = 2, .leader_id = 1};

	(void)state;
	t.db_id = foreign_database("a.db");
	foreign_parts(&t, 0, 2);
	cb.view(cb_ctx, &view);
	assert_int_equal(waiting(), 0); /* the COMMIT may still be before the barrier */
	term_now = 2;
	lead();
	assert_int_equal(waiting(), 1);
	assert_int_equal(deliver(true), WREP_ENTRY_DISCARD);
	assert_int_equal(first_index(), 0);
	wait_unnamed_files(0);
}

/* ---- the window ---------------------------------------------------------------------------------- */

#define LARGE 4000u /* pages: 15 parts and the COMMIT */
#define PARTS 15u

static void large_transaction_is_sent_a_window_at_a_time(void **state)
{
	struct wrep_file *f;
	struct op o;

	(void)state;
	lead();
	f = make_database("a.db");
	assert_int_equal(write_transaction(f, LARGE, 3, &o), WREP_PENDING);
	for (unsigned done = 0; done < PARTS; done++) {
		assert_int_equal(waiting(), PARTS - done < 8 ? PARTS - done : 8);
		assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
		assert_int_equal(o.result, 1);
	}
	assert_int_equal(waiting(), 1);
	assert_int_equal(deliver(true), WREP_ENTRY_COMMIT);
	assert_int_equal(wait_op(&o), 0);
	expect_content("a.db", LARGE, 3);
	assert_int_equal(first_index(), 0);
	wait_unnamed_files(0);
	close_database(f);
}

/* Parts `delivered` .. of the window end with `outcome`: no COMMIT, and the next one is taken. */
static void part_that_ends_ends_the_transaction(unsigned delivered, enum rlog_outcome outcome)
{
	struct wrep_file *f;
	struct op o;

	lead();
	f = make_database("a.db");
	assert_int_equal(write_transaction(f, LARGE, 3, &o), WREP_PENDING);
	for (unsigned i = 0; i < delivered; i++)
		assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	while (waiting() > 1) {
		unsigned before = waiting();

		end(take(), outcome);
		assert_int_equal(waiting(), before - 1);
		assert_int_equal(o.result, 1); /* others are on their way */
	}
	end(take(), outcome);
	assert_int_equal(wait_op(&o), -EIO);
	assert_int_equal(waiting(), 1);
	assert_int_equal(deliver(true), WREP_ENTRY_DISCARD);
	assert_int_equal(first_index(), 0);
	roll_back(f);
	wait_unnamed_files(0);
	assert_int_equal(status().version, 0);
	assert_int_equal(write_transaction(f, 10, 4, &o), WREP_PENDING);
	assert_int_equal(deliver(true), WREP_ENTRY_COMMIT);
	assert_int_equal(wait_op(&o), 0);
	expect_content("a.db", 10, 4);
	close_database(f);
}

static void refused_part_ends_the_transaction(void **state)
{
	(void)state;
	part_that_ends_ends_the_transaction(3, RLOG_REFUSED);
}

static void unknown_part_ends_the_transaction(void **state)
{
	(void)state;
	part_that_ends_ends_the_transaction(0, RLOG_UNKNOWN);
}

/* The unknown ones come after all, then the DISCARD: nothing remains. */
static void unknown_parts_that_come_later_are_discarded(void **state)
{
	struct wrep_file *f;
	struct op o;

	(void)state;
	lead();
	f = make_database("a.db");
	assert_int_equal(write_transaction(f, LARGE, 3, &o), WREP_PENDING);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(deliver(false), WREP_ENTRY_PAGES);
	assert_int_equal(wait_op(&o), -EIO);
	assert_int_not_equal(first_index(), 0);
	assert_int_equal(deliver(true), WREP_ENTRY_DISCARD);
	assert_int_equal(first_index(), 0);
	assert_int_equal(waiting(), 0);
	roll_back(f);
	wait_unnamed_files(0);
	close_database(f);
}

static void part_of_another_term_ends_the_transaction(void **state)
{
	struct wrep_file *f;
	struct op o;

	(void)state;
	lead();
	f = make_database("a.db");
	assert_int_equal(write_transaction(f, LARGE, 3, &o), WREP_PENDING);
	assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	term_now = 2;
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(o.result, 1);
		assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	}
	assert_int_equal(wait_op(&o), -EIO);
	assert_int_equal(deliver(true), WREP_ENTRY_DISCARD);
	assert_int_equal(waiting(), 0);
	roll_back(f);
	close_database(f);
}

static void database_removed_meanwhile_ends_the_transaction(void **state)
{
	struct wrep_file *f;
	struct op o, unlink = {.op.done = op_done, .result = 1};
	struct rlog_request *removal;
	struct rlog_buf *buf;

	(void)state;
	lead();
	f = make_database("a.db");
	assert_int_equal(write_transaction(f, LARGE, 3, &o), WREP_PENDING);
	assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	assert_int_equal(wrep_unlink(w, "a.db", &unlink.op), WREP_PENDING);
	removal = submitted[--submitted_count];
	assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	buf = removal->buf;
	deliver_buf(buf, removal);
	rlog_buf_unref(buf);
	assert_int_equal(wait_op(&unlink), 0);
	/* what is on its way still comes, and nothing follows it */
	assert_int_equal(waiting(), 8);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(o.result, 1);
		assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	}
	assert_int_equal(wait_op(&o), -EIO);
	assert_int_equal(deliver(true), WREP_ENTRY_DISCARD);
	assert_int_equal(waiting(), 0);
	close_database(f);
	wait_unnamed_files(0);
}

/* Its outcome was unknown, so the application was told EIO; then it commits. Its pages come from the
 * parts: what the application wrote is gone by then. */
static void unknown_commit_that_comes_later_is_applied_from_its_parts(void **state)
{
	struct wrep_file *f;
	struct op o;

	(void)state;
	lead();
	f = make_database("a.db");
	assert_int_equal(write_transaction(f, LARGE, 3, &o), WREP_PENDING);
	for (unsigned done = 0; done < PARTS; done++)
		assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	{
		struct rlog_request *req = take();
		struct rlog_buf *buf = req->buf;

		req->buf = NULL;
		req->done(req, RLOG_UNKNOWN);
		assert_int_equal(wait_op(&o), -EIO);
		roll_back(f);
		close_database(f);
		assert_int_equal(status().version, 0);
		deliver_buf(buf, NULL);
		rlog_buf_unref(buf);
	}
	wait_local_version(1);
	expect_content("a.db", LARGE, 3);
	assert_int_equal(deliver(true), WREP_ENTRY_DISCARD); /* too late, and no matter */
	assert_int_equal(status().version, 1);
	wait_unnamed_files(0);
}

static void shutdown_in_the_middle_ends_everything(void **state)
{
	struct wrep_file *f;
	struct op o;

	(void)state;
	lead();
	f = make_database("a.db");
	assert_int_equal(write_transaction(f, LARGE, 3, &o), WREP_PENDING);
	assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	wrep_close(w);
	assert_int_equal(o.result, -EIO);
	wrep_file_unref(f); /* not released: there is nothing left to release it to */
	assert_int_equal(unnamed_files(), 0);
	setup(state);
}

/* ---- what leaves before the commit ----------------------------------------------------------------- */

#define HUGE 6000u /* pages: 23 parts and the COMMIT; 16 MiB and more are sent ahead */
#define HUGE_PARTS 23u

/* The application begins a transaction in rollback mode. */
static void begin_journal(void)
{
	static const uint8_t magic[8] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};
	struct op create = {.op.done = op_done, .result = 1};

	assert_int_equal(wrep_create(w, "a.db-journal", &(struct wrep_new_file){.mode = 0644, .flags = O_CREAT}, false, &create.op), 0);
	assert_int_equal(wrep_file_write(create.op.file, magic, sizeof(magic), 0, &create.op), 0);
	wrep_file_release(create.op.file, false);
	wrep_file_unref(create.op.file);
}

static void write_pages(struct wrep_file *f, uint32_t from, uint32_t to, uint8_t content)
{
	struct op o = {.op.done = op_done, .result = 1};
	uint8_t page[PAGE];

	for (uint32_t pgno = from; pgno <= to; pgno++) {
		fill_page(page, pgno, content);
		assert_int_equal(wrep_file_write(f, page, PAGE, (uint64_t)(pgno - 1) * PAGE, &o.op),
				 0);
	}
}

/* Pages 1 .. HUGE are written; what goes out meanwhile is delivered as it comes. How many parts. */
static unsigned write_huge(struct wrep_file *f, uint8_t content)
{
	unsigned parts = 0;

	begin_journal();
	for (uint32_t pgno = 1; pgno <= HUGE; pgno += 100) {
		write_pages(f, pgno, pgno + 99, content);
		assert_true(waiting() <= 2);
		if (pgno * PAGE < 15u << 20)
			assert_int_equal(waiting(), 0);
		for (; waiting(); parts++)
			assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	}
	assert_true(parts >= HUGE_PARTS - 1);
	assert_int_equal(status().version, 0);
	return parts;
}

static int end_journal(struct op *o)
{
	*o = (struct op){.op.done = op_done, .result = 1};
	return wrep_unlink(w, "a.db-journal", &o->op);
}

static void expect_pages(uint32_t from, uint32_t to, uint8_t content)
{
	int fd = openat(dir_fd, "a.db", O_RDONLY | O_CLOEXEC);
	uint8_t page[PAGE], wanted[PAGE];

	for (uint32_t pgno = from; pgno <= to; pgno++) {
		fill_page(wanted, pgno, content);
		assert_int_equal(pread(fd, page, PAGE, (off_t)(pgno - 1) * PAGE), PAGE);
		assert_memory_equal(page, wanted, PAGE);
	}
	close(fd);
}

static void most_parts_leave_before_the_commit(void **state)
{
	struct wrep_file *f;
	struct op o;

	(void)state;
	lead();
	f = make_database("a.db");
	write_huge(f, 3);
	assert_int_equal(end_journal(&o), WREP_PENDING);
	assert_int_equal(waiting(), 1); /* the rest fits the COMMIT */
	assert_int_equal(deliver(true), WREP_ENTRY_COMMIT);
	assert_int_equal(wait_op(&o), 0);
	expect_content("a.db", HUGE, 3);
	assert_int_equal(first_index(), 0);
	close_database(f);
	wait_unnamed_files(0);
}

/* The application was told that the outcome is unknown, and everything comes as from another node: the
 * pages that it wrote again, those that it cut off, and the rest. */
static void what_was_sent_ahead_and_is_otherwise_is_sent_again(void **state)
{
	struct op o, cut = {.op.done = op_done, .result = 1};
	struct rlog_request *req;
	struct wrep_file *f;
	struct rlog_buf *buf;
	unsigned parts;

	(void)state;
	lead();
	f = make_database("a.db");
	parts = write_huge(f, 3);
	write_pages(f, 1000, 1999, 4);
	assert_int_equal(wrep_file_truncate(f, 5000ull * PAGE, true, &cut.op), 0);
	assert_int_equal(end_journal(&o), WREP_PENDING);
	for (unsigned k = 0; k < 3; k++, parts++)
		assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	assert_int_equal(waiting(), 1);
	req = take();
	buf = req->buf;
	req->buf = NULL;
	req->done(req, RLOG_UNKNOWN);
	assert_int_equal(wait_op(&o), -EIO);
	roll_back(f);
	close_database(f);
	deliver_buf(buf, NULL);
	rlog_buf_unref(buf);
	wait_local_version(1);
	expect_pages(1, 999, 3);
	expect_pages(1000, 1999, 4);
	expect_pages(2000, 5000, 3);
	assert_int_equal(status().page_count, 5000);
	while (waiting())
		assert_int_equal(deliver(true), WREP_ENTRY_DISCARD);
	wait_unnamed_files(0);
}

static void what_was_sent_ahead_and_is_not_of_the_transaction_is_dropped(void **state)
{
	struct rlog_request *req;
	struct wrep_file *f;
	struct wrep_entry e;
	struct op o;

	(void)state;
	lead();
	f = make_database("a.db");
	write_huge(f, 3);
	assert_int_equal(end_journal(&o), WREP_PENDING);
	assert_int_equal(deliver(true), WREP_ENTRY_COMMIT);
	assert_int_equal(wait_op(&o), 0);
	/* once more, and most of it is at last what it was */
	begin_journal();
	write_pages(f, 1, HUGE, 4);
	for (unsigned k = 0; k < 2; k++)
		assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	write_pages(f, 101, HUGE, 3);
	while (waiting() > 0)
		assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	assert_int_equal(end_journal(&o), WREP_PENDING);
	while (waiting() > 1)
		assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	/* what was not dropped, for want of room in the COMMIT */
	assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	assert_int_equal(waiting(), 1);
	req = submitted[taken];
	assert_int_equal(wrep_entry_decode(req->buf, &e), 0);
	assert_int_equal(e.type, WREP_ENTRY_COMMIT);
	assert_int_equal(e.total_pages, 100);
	assert_true(e.dropped_count > 200);
	assert_int_equal(deliver(true), WREP_ENTRY_COMMIT);
	assert_int_equal(wait_op(&o), 0);
	expect_pages(1, 100, 4);
	expect_pages(101, HUGE, 3);
	close_database(f);
	wait_unnamed_files(0);
}

static void rolled_back_transaction_is_discarded(void **state)
{
	struct wrep_file *f;

	(void)state;
	lead();
	f = make_database("a.db");
	write_huge(f, 3);
	assert_int_not_equal(first_index(), 0);
	roll_back(f);
	assert_int_equal(waiting(), 1);
	assert_int_equal(deliver(true), WREP_ENTRY_DISCARD);
	assert_int_equal(first_index(), 0);
	wait_unnamed_files(0);
	close_database(f);
}

/* The application closes the database, or does nothing for a while. */
static void transaction_that_nobody_goes_on_with_is_discarded(void **state)
{
	struct wrep_file *f;
	struct op o;

	(void)state;
	lead();
	f = make_database("a.db");
	write_huge(f, 3);
	while (!waiting())
		usleep(10000);
	assert_int_equal(deliver(true), WREP_ENTRY_DISCARD);
	assert_int_equal(first_index(), 0);
	/* all of it is sent at the commit, or once there is as much again */
	write_pages(f, 2, HUGE, 4);
	write_pages(f, HUGE + 1, 2 * HUGE - 1, 4);
	assert_int_equal(waiting(), 0);
	write_pages(f, 2 * HUGE, 2 * HUGE, 4);
	assert_int_equal(waiting(), 2);
	for (unsigned k = 0; waiting(); k++)
		assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	assert_int_equal(end_journal(&o), WREP_PENDING);
	assert_int_equal(deliver(true), WREP_ENTRY_COMMIT);
	assert_int_equal(wait_op(&o), 0);
	expect_pages(2, 2 * HUGE, 4);

	begin_journal();
	write_pages(f, 2, HUGE, 5);
	assert_int_equal(waiting(), 2);
	close_database(f);
	for (unsigned k = 0; k < 2; k++) {
		assert_int_equal(waiting(), 2 - k);
		assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	}
	assert_int_equal(deliver(true), WREP_ENTRY_DISCARD);
	assert_int_equal(waiting(), 0);
	assert_int_equal(first_index(), 0);
}

/* Whatever becomes of the parts: the application does not notice. */
static void trouble_with_what_was_sent_ahead_is_not_the_applications(void **state)
{
	struct wrep_file *f;
	struct op o;

	(void)state;
	lead();
	f = make_database("a.db");
	for (int trouble = 0; trouble < 4; trouble++) {
		begin_journal();
		write_pages(f, 1, HUGE, (uint8_t)(3 + trouble));
		assert_int_equal(waiting(), 2);
		if (trouble < 2) {
			end(take(), trouble ? RLOG_REFUSED : RLOG_UNKNOWN);
			assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
			assert_int_equal(deliver(true), WREP_ENTRY_DISCARD);
		} else if (trouble == 2) {
			/* of another term than the COMMIT would be */
			assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
			term_now++;
			lead();
			assert_int_equal(waiting(), 3);
			for (unsigned k = 0; k < 2; k++)
				assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
			/* this node's own, and the new leader's */
			while (waiting())
				assert_int_equal(deliver(true), WREP_ENTRY_DISCARD);
		}
		/* in the last round they are stuck, and better sent anew */
		if (trouble == 3)
			usleep(1200000);
		assert_int_equal(end_journal(&o), WREP_PENDING);
		if (trouble == 3) {
			for (unsigned k = 0; k < 2; k++)
				assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
		}
		for (unsigned parts = 0, type = 0; type != WREP_ENTRY_COMMIT; parts++) {
			type = deliver(true);
			if (type == WREP_ENTRY_DISCARD)
				parts--;
			else
				assert_int_equal(type, parts < HUGE_PARTS ? WREP_ENTRY_PAGES
									  : WREP_ENTRY_COMMIT);
		}
		assert_int_equal(wait_op(&o), 0);
		expect_content("a.db", HUGE, (uint8_t)(3 + trouble));
		while (waiting())
			assert_int_equal(deliver(true), WREP_ENTRY_DISCARD);
		assert_int_equal(first_index(), 0);
	}
	close_database(f);
	wait_unnamed_files(0);
}

/* ---- a full disk --------------------------------------------------------------------------------- */

/* A file system of 8 MiB in the place of the data directory, for the test alone. */
static int old_dir_fd;

static int setup_small_disk(void **state)
{
	if (geteuid() != 0 || unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", replica_dir, "tmpfs", 0, "size=8m")) {
		print_message("skipped: needs root, to mount a small file system\n");
		old_dir_fd = -1;
		return 0;
	}
	old_dir_fd = dir_fd;
	dir_fd = open(replica_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return setup(state);
}

static int teardown_small_disk(void **state)
{
	int rc = 0;

	if (old_dir_fd < 0)
		return 0;
	rc = teardown(state);
	close(dir_fd);
	dir_fd = old_dir_fd;
	umount2(replica_dir, MNT_DETACH);
	return rc;
}

static void take_space(size_t bytes)
{
	int fd = openat(dir_fd, "filler", O_CREAT | O_RDWR | O_CLOEXEC, 0600);

	assert_int_equal(posix_fallocate(fd, 0, (off_t)bytes), 0);
	close(fd);
}

static void parts_wait_for_space(void **state)
{
	struct foreign t = {.sequence = 1, .pages = 800, .parts = 3, .content = 3};

	(void)state;
	if (old_dir_fd < 0)
		skip();
	t.db_id = foreign_database("a.db");
	take_space(6u << 20);
	foreign_parts(&t, 0, t.parts);
	while (!strstr(last_error, "disk full"))
		usleep(500);
	/* the log goes on meanwhile, and says what the database is */
	foreign_entry(&t, true, t.parts);
	assert_int_equal(status().version, 1);
	assert_int_equal(local_version(), 0);
	/* and must keep the parts: the files do not have them yet, nor would they after a restart */
	assert_int_equal(first_index(), t.db_id + 1);
	assert_int_equal(unlinkat(dir_fd, "filler", 0), 0);
	wait_local_version(1);
	assert_int_equal(first_index(), 0);
	expect_content("a.db", 800, 3);
	assert_string_equal(failure, "");
}

static void nobody_opens_what_a_full_disk_leaves_half_applied(void **state)
{
	struct foreign t = {.sequence = 1, .pages = 5, .content = 3};
	struct op o = {.op.done = op_done, .result = 1};
	uint8_t page[PAGE], wanted[PAGE];
	struct wrep_file *f;

	(void)state;
	if (old_dir_fd < 0)
		skip();
	t.db_id = foreign_database("a.db");
	foreign_entry(&t, true, 0);
	wait_local_version(1);
	take_space(7800u << 10);
	t = (struct foreign){.db_id = t.db_id,
			     .sequence = 2,
			     .base_version = 1,
			     .pages = 240,
			     .content = 4};
	foreign_entry(&t, true, 0);
	while (!strstr(last_error, "disk full"))
		usleep(500);
	assert_int_equal(wrep_lookup(w, "a.db", &f), 0);
	fill_page(wanted, 2, 4);
	assert_int_equal(pread(wrep_file_fd(f), page, PAGE, PAGE), PAGE);
	assert_memory_equal(page, wanted, PAGE); /* half is there */
	assert_int_equal(wrep_file_open(f, O_RDWR, false, &o.op), WREP_PENDING);
	/* It tries again, and serves the opens that can be served before that. */
	for (int i = 0; i < 500; i++, usleep(2000))
		assert_int_equal(o.result, 1);
	assert_int_equal(wrep_file_read(f, page, PAGE, PAGE), -ESTALE);
	assert_int_equal(unlinkat(dir_fd, "filler", 0), 0);
	assert_int_equal(wait_op(&o), 0);
	assert_int_equal(local_version(), 2);
	assert_int_equal(wrep_file_read(f, page, PAGE, PAGE), PAGE);
	assert_memory_equal(page, wanted, PAGE);
	close_database(f);
}

/* What a full disk holds up is dead meanwhile: it is waited for no more. */
static void dead_parts_do_not_wait_for_space(void **state)
{
	struct foreign t = {.sequence = 1, .pages = 800, .parts = 3, .content = 3};
	struct foreign small = {.sequence = 2, .pages = 5, .parts = 0, .content = 5};

	(void)state;
	if (old_dir_fd < 0)
		skip();
	small.db_id = t.db_id = foreign_database("a.db");
	take_space(6u << 20);
	foreign_parts(&t, 0, t.parts);
	while (!strstr(last_error, "disk full"))
		usleep(500);
	foreign_discard(&t);
	foreign_entry(&small, true, 0);
	wait_local_version(1);
	expect_content("a.db", 5, 5);
}

static void own_transaction_without_space_for_its_parts_is_refused(void **state)
{
	struct wrep_file *f;
	struct op o;

	(void)state;
	if (old_dir_fd < 0)
		skip();
	lead();
	f = make_database("a.db");
	take_space(2u << 20);
	/* 3 MiB in the overlay, and as much reserved behind the database, leave nothing for the parts */
	assert_int_equal(write_transaction(f, 700, 3, &o), WREP_PENDING);
	assert_int_equal(waiting(), 2);
	assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	while (1) {
		struct wrep_db *db = the_database();
		bool given_up;

		pthread_mutex_lock(&db->lock);
		given_up = db->pending && db->pending->out->failed;
		pthread_mutex_unlock(&db->lock);
		wrep_db_unref(db);
		if (given_up)
			break;
		usleep(500);
	}
	while (o.result == 1)
		assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	assert_int_equal(o.result, -ENOSPC);
	assert_int_equal(deliver(true), WREP_ENTRY_DISCARD);
	assert_int_equal(waiting(), 0);
	roll_back(f);
	assert_int_equal(write_transaction(f, 5, 4, &o), WREP_PENDING);
	assert_int_equal(deliver(true), WREP_ENTRY_COMMIT);
	assert_int_equal(wait_op(&o), 0);
	expect_content("a.db", 5, 4);
	close_database(f);
}

/* It is told before anybody else has heard of the transaction. */
static void own_transaction_without_space_in_the_database_is_refused(void **state)
{
	struct wrep_file *f;
	struct op o;

	(void)state;
	if (old_dir_fd < 0)
		skip();
	lead();
	f = make_database("a.db");
	take_space(3u << 20);
	assert_int_equal(write_transaction(f, 800, 3, &o), -ENOSPC);
	assert_int_equal(waiting(), 0);
	roll_back(f);
	assert_int_equal(write_transaction(f, 5, 4, &o), WREP_PENDING);
	assert_int_equal(deliver(true), WREP_ENTRY_COMMIT);
	assert_int_equal(wait_op(&o), 0);
	expect_content("a.db", 5, 4);
	close_database(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_SMALL(name) \
	cmocka_unit_test_setup_teardown(name, setup_small_disk, teardown_small_disk)
		TEST(parts_of_another_node_are_applied),
		TEST(commit_of_another_term_than_its_parts_is_refused),
		TEST(parts_go_when_they_are_dead),
		TEST(last_image_of_a_page_counts_and_dropped_ones_do_not),
		TEST(commit_that_does_not_fit_its_parts_stops_the_node),
		TEST(commit_with_a_gap_in_its_parts_is_refused),
		TEST(new_leader_discards_what_the_last_one_left),
		TEST(large_transaction_is_sent_a_window_at_a_time),
		TEST(refused_part_ends_the_transaction),
		TEST(unknown_part_ends_the_transaction),
		TEST(unknown_parts_that_come_later_are_discarded),
		TEST(part_of_another_term_ends_the_transaction),
		TEST(database_removed_meanwhile_ends_the_transaction),
		TEST(unknown_commit_that_comes_later_is_applied_from_its_parts),
		TEST(shutdown_in_the_middle_ends_everything),
		TEST(most_parts_leave_before_the_commit),
		TEST(what_was_sent_ahead_and_is_otherwise_is_sent_again),
		TEST(what_was_sent_ahead_and_is_not_of_the_transaction_is_dropped),
		TEST(rolled_back_transaction_is_discarded),
		TEST(transaction_that_nobody_goes_on_with_is_discarded),
		TEST(trouble_with_what_was_sent_ahead_is_not_the_applications),
		TEST_SMALL(parts_wait_for_space),
		TEST_SMALL(nobody_opens_what_a_full_disk_leaves_half_applied),
		TEST_SMALL(dead_parts_do_not_wait_for_space),
		TEST_SMALL(own_transaction_without_space_for_its_parts_is_refused),
		TEST_SMALL(own_transaction_without_space_in_the_database_is_refused),
	};

	return replica_run("walrepl_parts", tests, sizeof(tests) / sizeof(tests[0]));
}
