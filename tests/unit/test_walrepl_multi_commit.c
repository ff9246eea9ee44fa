/* Transactions over several databases: super-journals, the GROUP entry, and what a restart makes of one
 * that is in the files of some.
 *
 * A whole replica runs here (rig/replica_rig.h); this test delivers what was submitted, or what another
 * node might have. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "../rig/replica_rig.h"
#include "state/state.h"
#include "txn/multi_commit.h"
#include "db/db.h"
#include "db/pin.h"
#include "db/table.h"
#include "apply/opening.h"
#include "file/file.h"
#include "file/open.h"
#include "repair/fetch.h"
#include "snapshot/snapshotter.h"
#include "txn/commit.h"
#include "txn/streaming.h"
#include "txn/unjournaled.h"
#include "txn/super_journal.h"

/* ---- databases --------------------------------------------------------------------------------- */

/* A file of this node, with that content. */
static void make_file(const char *name, const void *bytes, size_t len)
{
	struct op o = {.op.done = op_done, .result = 1};

	assert_int_equal(wrep_create(w, name, &(struct wrep_new_file){.mode = 0644, .flags = O_CREAT | O_EXCL}, false, &o.op), 0);
	assert_int_equal(wrep_file_write(o.op.file, bytes, len, 0, &o.op), 0);
	wrep_file_release(o.op.file, false);
	wrep_file_unref(o.op.file);
}

static bool is_there(const char *name)
{
	struct wrep_file *f;
	bool there = wrep_lookup(w, name, &f) == 0;

	assert_int_equal(faccessat(dir_fd, name, F_OK, 0) == 0, there);
	if (there)
		wrep_file_unref(f);
	return there;
}

/* A hot journal that names `super`, as SQLite writes it. */
static size_t fill_journal(uint8_t *out, const char *super)
{
	static const uint8_t magic[8] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};
	uint32_t len = (uint32_t)strlen(super), sum = 0;
	uint8_t *p = out + 516;

	memset(out, 0, 516);
	memcpy(out, magic, sizeof(magic));
	memcpy(p, super, len);
	for (uint32_t i = 0; i < len; i++)
		sum += (uint32_t)super[i];
	p += len;
	for (int i = 0; i < 4; i++) {
		p[i] = (uint8_t)(len >> (24 - 8 * i));
		p[4 + i] = (uint8_t)(sum >> (24 - 8 * i));
	}
	memcpy(p + 8, magic, sizeof(magic));
	return (size_t)(p + 16 - out);
}

/* An application writes `pages` pages up to the end of the first phase. */
static void write_pages(struct wrep_file *f, const char *super, uint32_t pages, uint8_t content)
{
	uint8_t page[PAGE], journal[1024];
	char name[64];
	struct op o = {.op.done = op_done, .result = 1};

	snprintf(name, sizeof(name), "%s-journal", wrep_file_name(f));
	make_file(name, journal, fill_journal(journal, super));
	for (uint32_t pgno = 1; pgno <= pages; pgno++) {
		fill_page(page, pgno, content);
		assert_int_equal(wrep_file_write(f, page, PAGE, (uint64_t)(pgno - 1) * PAGE, &o.op),
				 0);
	}
}

#define SUPER "a.db-mj1234AB9CD"

static void make_super(void)
{
	static const char content[] = "/x/y/a.db-journal\0/x/y/b.db-journal\0/z/c.db-journal";

	make_file(SUPER, content, sizeof(content));
}

static int unlink_super(struct op *o)
{
	*o = (struct op){.op.done = op_done, .result = 1};
	return wrep_unlink(w, SUPER, &o->op);
}

/* What SQLite does to the journals in the second phase: nothing is to be agreed on. */
static void second_phase(const char *name)
{
	struct op o = {.op.done = op_done, .result = 1};
	char journal[64];

	snprintf(journal, sizeof(journal), "%s-journal", name);
	assert_int_equal(wrep_unlink(w, journal, &o.op), 0);
	assert_int_equal(waiting(), 0);
}

static uint64_t number(const char *name, int what)
{
	struct wrep_db *db;
	uint64_t n;

	while (!(db = wrep_db_by_name(w, name))) /* the applier shows it */
		usleep(500);
	pthread_mutex_lock(&db->lock);
	n = what == 0 ? db->state.version : what == 1 ? db->local_version : db->id;
	pthread_mutex_unlock(&db->lock);
	wrep_db_unref(db);
	return n;
}

static uint64_t version(const char *name)
{
	return number(name, 0);
}

static void wait_local_version(const char *name, uint64_t wanted)
{
	while (number(name, 1) != wanted)
		usleep(500);
}

/* ---- transactions of another node ---------------------------------------------------------------- */

struct foreign {
	uint64_t db_id, base_version;
	uint32_t pages;
	uint8_t content;
	uint64_t wrong; /* by how much its checksum is */
};

static struct wrep_entry foreign_commit(const struct foreign *t)
{
	struct wrep_entry e = {
		.type = WREP_ENTRY_COMMIT,
		.db_id = t->db_id,
		.origin = 77,
		.sequence = t->base_version,
		.page_size = PAGE,
		.image_count = t->pages,
		.commit_mode = WREP_COMMIT_ROLLBACK,
		.base_version = t->base_version,
		.page_count = t->pages,
		.total_pages = t->pages,
		.checksum = t->wrong,
	};
	uint8_t page[PAGE];

	for (uint32_t pgno = 1; pgno <= t->pages; pgno++) {
		fill_page(page, pgno, t->content);
		e.checksum += wrep_page_hash(pgno, page, PAGE);
	}
	return e;
}

static void fill_commit(struct wrep_entry *e, const struct foreign *t)
{
	for (uint32_t i = 0; i < e->image_count; i++) {
		fill_page((uint8_t *)e->images + (size_t)i * PAGE, i + 1, t->content);
		wrep_entry_set_pgno(e, i, i + 1);
	}
}

static struct rlog_buf *foreign_group(const struct foreign *t, uint32_t count)
{
	struct wrep_entry members[4];
	struct rlog_buf *buf;

	for (uint32_t i = 0; i < count; i++)
		members[i] = foreign_commit(&t[i]);
	if (count == 1)
		buf = wrep_entry_alloc(&members[0]);
	else
		buf = wrep_entry_alloc_group(members, count);
	for (uint32_t i = 0; i < count; i++)
		fill_commit(&members[i], &t[i]);
	return buf;
}

static void deliver_foreign(const struct foreign *t, uint32_t count)
{
	struct rlog_buf *buf = foreign_group(t, count);

	deliver_buf(buf, NULL);
	rlog_buf_unref(buf);
}

static void foreign_unlink(uint64_t id)
{
	struct wrep_entry e = {.type = WREP_ENTRY_UNLINK, .db_id = id};
	struct rlog_buf *buf = wrep_entry_encode(&e);

	deliver_buf(buf, NULL);
	rlog_buf_unref(buf);
}

/* ---- an application's ------------------------------------------------------------------------------ */

static struct wrep_file *a, *b;

static void two_databases(void)
{
	lead();
	a = make_database("a.db");
	b = make_database("b.db");
}

static void close_both(void)
{
	close_database(a);
	close_database(b);
}

static void removal_commits_all_that_name_it(void **state)
{
	struct op o;

	(void)state;
	two_databases();
	make_super();
	assert_true(is_there(SUPER));
	write_pages(a, "/somewhere/" SUPER, 3, 7);
	write_pages(b, "/somewhere/" SUPER, 2, 8);
	assert_int_equal(unlink_super(&o), WREP_PENDING);
	assert_int_equal(waiting(), 1);
	assert_true(is_there(SUPER));
	assert_int_equal(wrep_unlink(w, SUPER, &o.op), -EBUSY);
	assert_int_equal(deliver(true), WREP_ENTRY_GROUP);
	assert_int_equal(wait_op(&o), 0);
	assert_false(is_there(SUPER));
	assert_int_equal(version("a.db"), 1);
	assert_int_equal(version("b.db"), 1);
	expect_content("a.db", 3, 7);
	expect_content("b.db", 2, 8);
	second_phase("a.db");
	second_phase("b.db");
	close_both();
}

static void removal_with_one_or_none_to_commit_is_no_group(void **state)
{
	struct op o;

	(void)state;
	two_databases();
	make_super();
	assert_int_equal(unlink_super(&o), 0);
	assert_false(is_there(SUPER));
	/* another super-journal, or the journal is not in the list */
	make_super();
	write_pages(a, "/somewhere/a.db-mj1234AB9CE", 3, 7);
	assert_int_equal(unlink_super(&o), 0);
	assert_int_equal(wrep_unlink(w, "a.db-journal", &o.op), WREP_PENDING);
	assert_int_equal(deliver(true), WREP_ENTRY_COMMIT);
	assert_int_equal(wait_op(&o), 0);
	/* one */
	make_super();
	write_pages(b, SUPER, 2, 8);
	assert_int_equal(unlink_super(&o), WREP_PENDING);
	assert_true(is_there(SUPER));
	assert_int_equal(deliver(true), WREP_ENTRY_COMMIT);
	assert_int_equal(wait_op(&o), 0);
	assert_false(is_there(SUPER));
	assert_true(is_there("b.db-journal"));
	expect_content("b.db", 2, 8);
	second_phase("b.db");
	close_both();
}

static void refused_group_leaves_everything_as_it_is(void **state)
{
	struct foreign t = {.base_version = 0, .pages = 4, .content = 1};
	struct flock reserved = {.l_type = F_WRLCK, .l_start = 0x40000001, .l_len = 1};
	uint8_t page[PAGE], wanted[PAGE];
	struct op o;
	int fd;

	(void)state;
	two_databases();
	make_super();
	write_pages(a, SUPER, 3, 7);
	write_pages(b, SUPER, 2, 8);
	/* The writer's lock, which SQLite keeps until it has rolled back: until then the daemon leaves the journal
	 * of b.db alone, so that it is the last one. */
	fd = openat(dir_fd, "b.db", O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &reserved), 0);
	assert_int_equal(unlink_super(&o), WREP_PENDING);
	/* meanwhile b.db moved */
	t.db_id = number("b.db", 2);
	deliver_foreign(&t, 1);
	assert_int_equal(deliver(true), WREP_ENTRY_GROUP);
	assert_int_equal(wait_op(&o), -EIO);
	assert_true(is_there(SUPER));
	assert_true(is_there("a.db-journal"));
	assert_int_equal(version("a.db"), 0);
	assert_int_equal(version("b.db"), 1);
	expect_content("a.db", 0, 0);
	/* what SQLite rolls back is still there */
	fill_page(wanted, 2, 7);
	assert_int_equal(wrep_file_read(a, page, PAGE, PAGE), PAGE);
	assert_memory_equal(page, wanted, PAGE);
	assert_int_equal(wrep_file_truncate(a, 0, true, &o.op), 0);
	assert_int_equal(wrep_unlink(w, "a.db-journal", &o.op), 0);
	assert_true(is_there("b.db-journal"));
	close_both();
	close(fd);
	wait_local_version("b.db", 1);
	expect_content("b.db", 4, 1);
	/* nobody has it open: its journal went, and with the last one the super-journal */
	while (is_there(SUPER))
		usleep(500);
}

/* `a` holds 3 pages of `content`; another node's transaction is committed on top of them, and waits for the lock that
 * a writer here keeps, whose commit is refused. Returns the lock. */
static int refuse_beside_a_newer_one(uint8_t content)
{
	struct foreign t = {.base_version = 1, .pages = 4, .content = 1};
	struct flock reserved = {.l_type = F_WRLCK, .l_start = 0x40000001, .l_len = 1};
	int fd = openat(dir_fd, "a.db", O_RDWR | O_CLOEXEC);
	struct op o = {.op.done = op_done, .result = 1};

	two_databases();
	write_pages(a, "/somewhere/a.db-mj1234AB9CE", 3, content);
	assert_int_equal(wrep_unlink(w, "a.db-journal", &o.op), WREP_PENDING);
	assert_int_equal(deliver(true), WREP_ENTRY_COMMIT);
	assert_int_equal(wait_op(&o), 0);

	fd = openat(dir_fd, "a.db", O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &reserved), 0);
	o.result = 1;
	write_pages(a, "/somewhere/a.db-mj1234AB9CE", 5, content + 1);
	assert_int_equal(wrep_unlink(w, "a.db-journal", &o.op), WREP_PENDING);
	t.db_id = number("a.db", 2);
	deliver_foreign(&t, 1);
	assert_int_equal(deliver(true), WREP_ENTRY_COMMIT);
	assert_int_equal(wait_op(&o), -EIO);
	assert_true(is_there("a.db-journal"));
	assert_int_equal(version("a.db"), 2);
	expect_content("a.db", 3, content);
	return fd;
}

static void rollback_while_newer_ones_wait_is_no_commit(void **state)
{
	struct op o = {.op.done = op_done, .result = 1};
	int fd = refuse_beside_a_newer_one(7);
	uint8_t page[PAGE];

	(void)state;
	for (uint32_t pgno = 1; pgno <= 3; pgno++) {
		fill_page(page, pgno, 7);
		assert_int_equal(wrep_file_write(a, page, PAGE, (uint64_t)(pgno - 1) * PAGE, &o.op),
				 0);
	}
	assert_int_equal(wrep_file_truncate(a, 3 * PAGE, true, &o.op), 0);
	assert_int_equal(wrep_unlink(w, "a.db-journal", &o.op), 0);
	assert_false(is_there("a.db-journal"));
	expect_content("a.db", 3, 7);
	close(fd);
	wait_local_version("a.db", 2);
	expect_content("a.db", 4, 1);
	close_both();
}

static void half_a_rollback_while_newer_ones_wait_is_refused(void **state)
{
	struct op o = {.op.done = op_done, .result = 1};
	int fd = refuse_beside_a_newer_one(7);
	uint8_t page[PAGE];

	(void)state;
	fill_page(page, 2, 7);
	assert_int_equal(wrep_file_write(a, page, PAGE, PAGE, &o.op), 0);
	assert_int_equal(wrep_file_truncate(a, 3 * PAGE, true, &o.op), 0);
	assert_int_equal(wrep_unlink(w, "a.db-journal", &o.op), -EIO);
	assert_true(is_there("a.db-journal"));
	close(fd);
	close_both();
	wait_local_version("a.db", 2);
	expect_content("a.db", 4, 1);
}

static void no_majority_is_no_commit(void **state)
{
	struct op o;

	(void)state;
	two_databases();
	make_super();
	write_pages(a, SUPER, 3, 7);
	write_pages(b, SUPER, 2, 8);
	assert_int_equal(unlink_super(&o), WREP_PENDING);
	end(take(), RLOG_REFUSED);
	assert_int_equal(wait_op(&o), -EIO);
	assert_true(is_there(SUPER));
	/* again; it comes after all when the application has been told */
	assert_int_equal(unlink_super(&o), WREP_PENDING);
	assert_int_equal(deliver(false), WREP_ENTRY_GROUP);
	assert_int_equal(wait_op(&o), -EIO);
	assert_int_equal(version("a.db"), 1);
	assert_int_equal(version("b.db"), 1);
	close_both();
	wait_local_version("a.db", 1);
	wait_local_version("b.db", 1);
	expect_content("a.db", 3, 7);
	expect_content("b.db", 2, 8);
	assert_false(is_there("a.db-journal"));
	assert_false(is_there("b.db-journal"));
	assert_false(is_there(SUPER));
}

static void what_one_entry_cannot_hold_goes_ahead(void **state)
{
	enum wrep_entry_type type;
	unsigned pages = 0;
	struct op o;

	(void)state;
	two_databases();
	make_super();
	write_pages(a, SUPER, 600, 7);
	write_pages(b, SUPER, 3000, 8);
	assert_int_equal(unlink_super(&o), WREP_PENDING);
	while ((type = deliver(true)) == WREP_ENTRY_PAGES) {
		assert_int_equal(version("a.db"), 0);
		pages++;
		assert_in_range(waiting(), 0, 8);
	}
	assert_int_equal(type, WREP_ENTRY_GROUP);
	assert_in_range(pages, 3 + 12, 3 + 13);
	assert_int_equal(wait_op(&o), 0);
	expect_content("a.db", 600, 7);
	expect_content("b.db", 3000, 8);
	assert_int_equal(version("a.db"), 1);
	assert_int_equal(version("b.db"), 1);
	close_both();
}

static void failed_part_ends_the_group(void **state)
{
	unsigned discards = 0;
	struct op o;

	(void)state;
	two_databases();
	make_super();
	write_pages(a, SUPER, 300, 7);
	write_pages(b, SUPER, 3000, 8);
	assert_int_equal(unlink_super(&o), WREP_PENDING);
	/* those of a.db, and some of b.db */
	for (int i = 0; i < 5; i++)
		assert_int_equal(deliver(true), WREP_ENTRY_PAGES);
	while (waiting()) {
		struct rlog_request *req = take();
		struct wrep_entry e;

		assert_int_equal(wrep_entry_decode(req->buf, &e), 0);
		discards += e.type == WREP_ENTRY_DISCARD;
		end(req, RLOG_REFUSED);
	}
	assert_int_equal(wait_op(&o), -EIO);
	assert_int_equal(discards, 2);
	assert_int_equal(version("a.db"), 0);
	assert_int_equal(version("b.db"), 0);
	assert_true(is_there(SUPER));
	close_both();
}

static int sync_database(struct wrep_file *f, struct op *o)
{
	*o = (struct op){.op = {.done = op_done, .tid = 7}, .result = 1};
	return wrep_file_sync(f, &o->op);
}

static void sync_commits_where_the_super_journal_is_elsewhere(void **state)
{
	uint8_t page[PAGE], old[PAGE];
	struct op o;

	(void)state;
	two_databases();
	/* one of this mount waits for its removal */
	make_super();
	write_pages(a, "/x/" SUPER, 3, 7);
	assert_int_equal(sync_database(a, &o), 0);
	assert_int_equal(waiting(), 0);
	/* and this one is none */
	write_pages(b, "/elsewhere/m.db-mj1234AB9CD", 2, 8);
	assert_int_equal(sync_database(b, &o), 0); /* somebody else's */
	locker = 7;
	assert_int_equal(sync_database(b, &o), WREP_PENDING);
	assert_int_equal(deliver(true), WREP_ENTRY_COMMIT);
	assert_int_equal(wait_op(&o), 0);
	assert_true(is_there("b.db-journal"));
	assert_int_equal(version("b.db"), 1);
	expect_content("b.db", 2, 8);
	assert_int_equal(sync_database(b, &o), 0);
	/* another database failed: it is undone */
	fill_page(old, 2, 1);
	assert_int_equal(wrep_file_write(b, old, PAGE, PAGE, &o.op), 0);
	assert_int_equal(sync_database(b, &o), WREP_PENDING);
	assert_int_equal(deliver(true), WREP_ENTRY_COMMIT);
	assert_int_equal(wait_op(&o), 0);
	assert_int_equal(wrep_file_read(b, page, PAGE, PAGE), PAGE);
	assert_memory_equal(page, old, PAGE);
	assert_int_equal(version("b.db"), 2);
	second_phase("b.db");
	locker = 0;
	close_both();
}

/* ---- of another node -------------------------------------------------------------------------------- */

static void group_of_another_node_takes_effect_on_all_or_none(void **state)
{
	struct foreign t[2] = {{.pages = 3, .content = 3}, {.pages = 4, .content = 4}};

	(void)state;
	t[0].db_id = foreign_database("a.db");
	t[1].db_id = foreign_database("b.db");
	deliver_foreign(t, 2);
	wait_local_version("a.db", 1);
	wait_local_version("b.db", 1);
	expect_content("a.db", 3, 3);
	expect_content("b.db", 4, 4);
	t[0].base_version = 1;
	deliver_foreign(t, 2); /* not b.db's version */
	assert_int_equal(version("a.db"), 1);
	t[1].base_version = 1;
	foreign_unlink(t[1].db_id);
	deliver_foreign(t, 2);
	assert_int_equal(version("a.db"), 1);
	deliver_foreign(t, 1);
	wait_local_version("a.db", 2);
}

static void copy_that_differs_stops_the_group_before_it_begins(void **state)
{
	struct foreign t[2] = {{.pages = 3, .content = 3}, {.pages = 4, .content = 4, .wrong = 1}};
	struct rlog_buf *buf;

	(void)state;
	t[0].db_id = foreign_database("a.db");
	t[1].db_id = foreign_database("b.db");
	buf = foreign_group(t, 2);
	assert_int_equal(deliver_once(buf, NULL), -EAGAIN);
	rlog_buf_unref(buf);
	/* the applier is about to take both away, and get them from the leader */
	assert_non_null(strstr(last_error, "b.db"));
	assert_true(wrep_fetching(w));
}

/* ---- order ------------------------------------------------------------------------------------------- */

/* A reader of the file, whose SHARED lock keeps the applier out. */
static int lock_out(const char *name)
{
	struct flock shared = {.l_type = F_RDLCK, .l_start = 0x40000002, .l_len = 510};
	int fd = openat(dir_fd, name, O_RDWR | O_CLOEXEC);

	assert_int_equal(fcntl(fd, F_OFD_SETLK, &shared), 0);
	return fd;
}

static struct wrep_file *open_database(const char *name)
{
	struct op o = {.op.done = op_done, .result = 1};
	struct wrep_file *f;

	wait_local_version(name, 0);
	while (wrep_lookup(w, name, &f)) /* until the applier has made it */
		usleep(500);
	if (wrep_file_open(f, O_RDWR, false, &o.op) == WREP_PENDING)
		assert_int_equal(wait_op(&o), 0);
	return f;
}

/* Something in the queue that is done also when a fetch is due: from here on nothing is locked. */
struct unlocking {
	struct wrep_work work; /* first */
	int fd;
};

static void unlock(struct wrep *replica, struct wrep_work *work)
{
	close(((struct unlocking *)work)->fd);
}

static const struct wrep_work_ops unlock_ops = {
	.name = "unlock", .run = unlock, .release = wrep_work_free};

static void queue_unlock(const struct wrep_work_ops *ops, int fd)
{
	struct unlocking *u = wrep_work_make(sizeof(*u), ops);

	u->fd = fd;
	wrep_work_is_about_all(&u->work);
	wrep_queue_push(w->queue, &u->work);
}

/* The applier finds that it has to fetch, and goes on to do it: nobody sees the databases any more. */
static void fetch(const char *name)
{
	struct wrep_db *db = wrep_db_by_name(w, name);

	assert_non_null(db);
	wrep_fetch_wanted(w, "this is a test", NULL);
	for (;;) {
		bool retired;

		pthread_mutex_lock(&db->lock);
		retired = db->retired;
		pthread_mutex_unlock(&db->lock);
		if (retired)
			break;
		usleep(500);
	}
	wrep_db_unref(db);
}

static void nothing_is_applied_behind_what_a_fetch_passes_over(void **state)
{
	struct foreign t = {.pages = 3, .content = 3};
	int fd;

	(void)state;
	t.db_id = foreign_database("a.db");
	a = open_database("a.db");
	deliver_foreign(&t, 1);
	wait_local_version("a.db", 1);
	fd = lock_out("a.db");
	t.base_version = 1;
	t.content = 4;
	deliver_foreign(&t, 1); /* busy, so passed over by the fetch */
	queue_unlock(&unlock_ops, fd);
	t.base_version = 2;
	t.content = 5;
	deliver_foreign(&t, 1); /* not busy */
	fetch("a.db");
	expect_content("a.db", 3, 3);
	close_database(a);
}

static void nothing_is_applied_behind_a_group_that_a_fetch_passes_over(void **state)
{
	struct foreign t[2] = {{.pages = 3, .content = 3}, {.pages = 4, .content = 4}};
	int fd;

	(void)state;
	t[0].db_id = foreign_database("a.db");
	t[1].db_id = foreign_database("b.db");
	a = open_database("a.db");
	deliver_foreign(t, 2);
	wait_local_version("a.db", 1);
	wait_local_version("b.db", 1);
	fd = lock_out("a.db");
	t[0].base_version = t[1].base_version = 1;
	t[0].content = t[1].content = 5;
	deliver_foreign(t, 2);
	queue_unlock(&unlock_ops, fd);
	t[0].base_version = t[1].base_version = 2;
	t[0].content = t[1].content = 6;
	deliver_foreign(t + 1, 1);
	t[1].base_version = 3;
	deliver_foreign(t, 2);
	fetch("a.db");
	expect_content("a.db", 3, 3);
	expect_content("b.db", 4, 4);
	close_database(a);
}

static void names_do_not_move_behind_what_a_fetch_passes_over(void **state)
{
	struct foreign t = {.pages = 3, .content = 3};
	struct wrep_entry e = {.type = WREP_ENTRY_RENAME, .name = "c.db"};
	struct rlog_buf *buf;
	int fd;

	(void)state;
	t.db_id = e.db_id = foreign_database("a.db");
	a = open_database("a.db");
	deliver_foreign(&t, 1);
	wait_local_version("a.db", 1);
	fd = lock_out("a.db");
	t.base_version = 1;
	t.content = 4;
	deliver_foreign(&t, 1);
	queue_unlock(&unlock_ops, fd);
	buf = wrep_entry_encode(&e);
	deliver_buf(buf, NULL);
	rlog_buf_unref(buf);
	foreign_database("a.db"); /* another one, which would make its file */
	fetch("a.db");
	expect_content("a.db", 3, 3);
	assert_int_equal(faccessat(dir_fd, "c.db", F_OK, 0), -1);
	close_database(a);
}

static _Atomic int point_result;

static void *ask_for_point(void *arg)
{
	point_result = wrep_snapshotter_take(w, 30000);
	return NULL;
}

/* Nothing more is done before the durable point has been taken, or not. */
static void unlock_after_point(struct wrep *replica, struct wrep_work *work)
{
	while (point_result == 1)
		usleep(500);
	unlock(replica, work);
}

static const struct wrep_work_ops unlock_after_point_ops = {
	.name = "unlock after point", .run = unlock_after_point, .release = wrep_work_free};

static void no_durable_point_counts_on_what_a_fetch_passes_over(void **state)
{
	struct foreign t = {.pages = 3, .content = 3};
	pthread_t thread;
	int fd;

	(void)state;
	t.db_id = foreign_database("a.db");
	a = open_database("a.db");
	fd = lock_out("a.db");
	deliver_foreign(&t, 1);
	rlog_buf_unref(snapshot);
	snapshot = NULL;
	point_result = 1;
	assert_int_equal(pthread_create(&thread, NULL, ask_for_point, NULL), 0);
	while (!wrep_queue_holds(w->queue, "point"))
		usleep(500);
	/* It is not its turn before the transaction is passed over. */
	queue_unlock(&unlock_after_point_ops, fd);
	fetch("a.db");
	pthread_join(thread, NULL);
	assert_int_equal(point_result, -EAGAIN);
	assert_null(snapshot);
	close_database(a);
}

static void opens_behind_what_a_fetch_passes_over_wait_for_it(void **state)
{
	struct foreign t = {.pages = 3, .content = 3};
	struct op o = {.op.done = op_done, .result = 1};
	struct wrep_file *f;
	struct wrep_work *work;
	int fd;

	(void)state;
	t.db_id = foreign_database("a.db");
	a = open_database("a.db");
	assert_int_equal(wrep_lookup(w, "a.db", &f), 0);
	fd = lock_out("a.db");
	deliver_foreign(&t, 1);
	queue_unlock(&unlock_ops, fd);
	o.op.state = WREP_OP_OPEN;
	work = wrep_open_new(f->db, NULL, O_RDWR, wrep_postpone_open, &o.op);
	/* Else it is served while the transaction is tried again. */
	assert_true(wrep_phase_unfit(w));
	wrep_open_push(work);
	while (o.result == 1) { /* only what waits for the end of the fetch is timed out */
		wrep_op_time_out(w, &o.op);
		usleep(500);
	}
	assert_int_equal(wait_op(&o), -ETIMEDOUT);
	wrep_file_unref(f);
	close_database(a);
}

static void group_goes_on_without_a_file_that_is_gone_for_good(void **state)
{
	struct foreign t[2] = {{.pages = 3, .content = 3}, {.pages = 4, .content = 4}};

	(void)state;
	only_voter = true;
	t[0].db_id = foreign_database("a.db");
	t[1].db_id = foreign_database("b.db");
	deliver_foreign(t, 2);
	wait_local_version("a.db", 1);
	wait_local_version("b.db", 1);
	assert_int_equal(wrep_snapshotter_take(w, 30000), 0); /* closes what nobody uses */
	assert_int_equal(renameat(dir_fd, "a.db", dir_fd, "away"), 0);
	t[0].base_version = t[1].base_version = 1;
	t[0].content = t[1].content = 5;
	deliver_foreign(t, 2);
	wait_local_version("b.db", 2);
	expect_content("b.db", 4, 5);
	assert_non_null(strstr(last_error, "cannot be opened any more"));
	/* it comes back, but what came meanwhile is not in it */
	assert_int_equal(renameat(dir_fd, "away", dir_fd, "a.db"), 0);
	t[0].base_version = t[1].base_version = 2;
	t[0].content = t[1].content = 6;
	deliver_foreign(t, 2);
	wait_local_version("b.db", 3);
	expect_content("a.db", 3, 3);
	expect_content("b.db", 4, 6);
	only_voter = false;
}

/* ---- after a restart --------------------------------------------------------------------------------- */

/* Start again, with a log from behind both CREATEs on, and a manifest that says this of a.db and b.db (index 0: it is not there). */
static void restart(const uint64_t ids[2], uint64_t a_version, uint64_t a_index, uint64_t b_version,
		    uint64_t b_index, uint64_t judged_until, const uint64_t *groups,
		    size_t group_count)
{
	struct wrep_manifest m = {0};
	const uint64_t versions[] = {a_version, b_version}, indices[] = {a_index, b_index};
	uint64_t last = index_now;

	wrep_close(w);
	for (int i = 0; i < 2; i++) {
		struct wrep_manifest_db *d;

		if (!indices[i])
			continue;
		d = wrep_manifest_add(&m);
		strcpy(d->name, i == 0 ? "a.db" : "b.db");
		d->id = ids[i];
		d->version = versions[i];
		d->index = indices[i];
	}
	assert_int_equal(wrep_manifest_set_groups(&m, judged_until, groups, group_count), 0);
	restored = wrep_manifest_encode(&m);
	restored_index = index_now = ids[1];
	restored_last = last;
	wrep_manifest_clear(&m);
	start();
	rlog_buf_unref(restored);
	restored = NULL;
}

/* The log: CREATE a.db, CREATE b.db, what `first` says of b.db alone, the group, b.db alone again. */
static void run_log(const uint64_t ids[2], bool refused)
{
	struct foreign t[2] = {{.db_id = ids[0], .pages = 3, .content = 3},
			       {.db_id = ids[1], .pages = 4, .content = 4}};
	struct foreign alone = {.db_id = ids[1], .pages = 5, .content = 5};

	if (refused)
		deliver_foreign(&alone, 1); /* the group is built on what was before it */
	deliver_foreign(t, 2);
	alone.base_version = 1;
	alone.content = 6;
	deliver_foreign(&alone, 1);
}

static void group_is_applied_again_where_it_is_missing(void **state)
{
	uint64_t ids[2], group;

	(void)state;
	ids[0] = foreign_database("a.db");
	ids[1] = foreign_database("b.db");
	run_log(ids, false);
	group = ids[1] + 1;
	assert_int_equal(version("a.db"), 1);
	assert_int_equal(version("b.db"), 2);
	wait_local_version("b.db", 2);
	/* a.db was noted before it, b.db with it or behind it */
	for (uint64_t i = 0; i < 2; i++) {
		restart(ids, 0, ids[0], 1 + i, group + i, group + i, &group, 1);
		run_log(ids, false);
		wait_local_version("a.db", 1);
		wait_local_version("b.db", 2);
		expect_content("a.db", 3, 3);
		expect_content("b.db", 5, 6);
	}
	/* the other way round */
	restart(ids, 1, group, 0, ids[1], group, &group, 1);
	run_log(ids, false);
	wait_local_version("b.db", 2);
	expect_content("b.db", 5, 6);
	assert_int_equal(version("a.db"), 1);
	/* none has it, and the manifest does not know of it */
	restart(ids, 0, ids[0], 0, ids[1], ids[1], NULL, 0);
	run_log(ids, false);
	wait_local_version("a.db", 1);
	wait_local_version("b.db", 2);
	assert_int_equal(w->state->multi.count, 1);
	assert_int_equal(w->state->multi.indices[0], group);
	/* b.db had it, and was removed before it was noted */
	restart(ids, 0, ids[0], 0, 0, group + 2, &group, 1);
	run_log(ids, false);
	wait_local_version("a.db", 1);
	expect_content("a.db", 3, 3);
}

static void refused_group_stays_refused(void **state)
{
	uint64_t ids[2], group;

	(void)state;
	ids[0] = foreign_database("a.db");
	ids[1] = foreign_database("b.db");
	run_log(ids, true);
	group = ids[1] + 2;
	assert_int_equal(version("a.db"), 0);
	assert_int_equal(version("b.db"), 2);
	wait_local_version("b.db", 2);
	restart(ids, 0, ids[0], 2, group + 1, group + 1, NULL, 0);
	run_log(ids, true);
	assert_int_equal(version("a.db"), 0);
	assert_int_equal(version("b.db"), 2);
	restart(ids, 0, ids[0], 0, 0, group + 1, NULL, 0); /* removed since */
	run_log(ids, true);
	assert_int_equal(version("a.db"), 0);
	restart(ids, 0, ids[0], 0, ids[1], ids[1], NULL, 0);
	run_log(ids, true);
	assert_int_equal(version("a.db"), 0);
	assert_int_equal(version("b.db"), 2);
	wait_local_version("b.db", 2);
}

static void manifest_names_the_groups_behind_its_snapshot(void **state)
{
	struct foreign t[2] = {{.pages = 3, .content = 3}, {.pages = 4, .content = 4}};
	struct wrep_manifest m;

	(void)state;
	t[0].db_id = foreign_database("a.db");
	t[1].db_id = foreign_database("b.db");
	deliver_foreign(t, 2);
	assert_int_equal(w->state->multi.count, 1);
	while (!wrep_is_ready(w))
		usleep(500);
	assert_int_equal(wrep_snapshotter_take(w, 5000), 0);
	/* everything delivered is in front of it */
	assert_int_equal(w->state->multi.count, 0);
	assert_int_equal(wrep_manifest_decode(snapshot, &m), 0);
	assert_int_equal(m.judged_until, index_now);
	wrep_manifest_clear(&m);
	for (int i = 0; i < 3; i++) {
		t[0].base_version++;
		t[1].base_version++;
		deliver_foreign(t, 2);
	}
	pthread_mutex_lock(&w->delivery);
	assert_int_equal(w->state->multi.count, 3);
	pthread_mutex_unlock(&w->delivery);
	memset(&m, 0, sizeof(m));
	wrep_multi_commits_forget(w, index_now - 2);
	assert_int_equal(wrep_multi_commits_note(w, &m), 0);
	assert_int_equal(m.group_count, 2);
	assert_int_equal(m.groups[0], index_now - 1);
	assert_int_equal(m.judged_until, index_now);
	wrep_manifest_clear(&m);
	wait_local_version("b.db", 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(removal_commits_all_that_name_it),
		TEST(removal_with_one_or_none_to_commit_is_no_group),
		TEST(refused_group_leaves_everything_as_it_is),
		TEST(rollback_while_newer_ones_wait_is_no_commit),
		TEST(half_a_rollback_while_newer_ones_wait_is_refused),
		TEST(no_majority_is_no_commit),
		TEST(what_one_entry_cannot_hold_goes_ahead),
		TEST(failed_part_ends_the_group),
		TEST(sync_commits_where_the_super_journal_is_elsewhere),
		TEST(group_of_another_node_takes_effect_on_all_or_none),
		TEST(copy_that_differs_stops_the_group_before_it_begins),
		TEST(nothing_is_applied_behind_what_a_fetch_passes_over),
		TEST(nothing_is_applied_behind_a_group_that_a_fetch_passes_over),
		TEST(names_do_not_move_behind_what_a_fetch_passes_over),
		TEST(no_durable_point_counts_on_what_a_fetch_passes_over),
		TEST(opens_behind_what_a_fetch_passes_over_wait_for_it),
		TEST(group_goes_on_without_a_file_that_is_gone_for_good),
		TEST(group_is_applied_again_where_it_is_missing),
		TEST(refused_group_stays_refused),
		TEST(manifest_names_the_groups_behind_its_snapshot),
	};

	return replica_run("walrepl_multi_commit", tests, sizeof(tests) / sizeof(tests[0]));
}
