/* The SQLite patch by itself: sqlite3_wal_append() with the stock unix VFS on plain files.
 *
 * The database under test is B. What is appended is what SQLite itself wrote into A, in rollback
 * mode, so that A's file is its content (but for "WAL" in page 1).
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#define PAGES_MAX 1000

struct fixture {
	char dir[64], a_path[80], b_path[80], wal_path[84];
	sqlite3 *a, *b;
	uint8_t *image; /* A, with page 1 saying WAL */
	int page_size;
	unsigned page_count, pgnos[PAGES_MAX];
	const void *pages[PAGES_MAX];
	int changed;
};

static void exec(sqlite3 *db, const char *sql)
{
	char *error = NULL;

	if (sqlite3_exec(db, sql, NULL, NULL, &error))
		fail_msg("%s: %s", sql, error);
}

static char *ask(sqlite3 *db, const char *sql)
{
	static char text[100];
	sqlite3_stmt *s;

	if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) || sqlite3_step(s) != SQLITE_ROW)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	snprintf(text, sizeof(text), "%s", (const char *)sqlite3_column_text(s, 0));
	sqlite3_finalize(s);
	return text;
}

static off_t size_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

/* What A has that it had not the last time. */
static void collect(struct fixture *f)
{
	off_t size = size_of(f->a_path);
	uint8_t *now = malloc((size_t)size);
	int fd = open(f->a_path, O_RDONLY | O_CLOEXEC);
	unsigned had = f->page_count;

	assert_int_equal(read(fd, now, (size_t)size), size);
	close(fd);
	now[18] = now[19] = 2;
	f->page_count = (unsigned)(size / f->page_size);
	assert_true(f->page_count < PAGES_MAX);
	f->changed = 0;
	for (unsigned i = 0; i < f->page_count; i++) {
		size_t at = (size_t)i * (size_t)f->page_size;

		if (i < had && memcmp(now + at, f->image + at, (size_t)f->page_size) == 0)
			continue;
		f->pgnos[f->changed] = i + 1;
		f->pages[f->changed++] = now + at;
	}
	free(f->image);
	f->image = now;
}

/* A transaction as arrays, handed over in lots: each in memory of its own that the next one ends. */
struct arrays {
	const unsigned *pgnos;
	const void *const *pages;
	int page_size, fail_at; /* fail_at: which page cannot be had, 0 for none */
	int calls;
	uint8_t *lot;
};

static int fetch(void *ctx, int first, int count, unsigned *pgnos, const void **pages)
{
	struct arrays *a = ctx;
	size_t size = (size_t)a->page_size;

	assert_true(count > 0 && count <= SQLITE_WAL_APPEND_MAX);
	a->calls++;
	free(a->lot);
	a->lot = malloc((size_t)count * size);
	if (a->fail_at && first <= a->fail_at && a->fail_at < first + count)
		return SQLITE_IOERR_READ;
	for (int i = 0; i < count; i++) {
		pgnos[i] = a->pgnos[first + i];
		pages[i] = memcpy(a->lot + (size_t)i * size, a->pages[first + i], size);
	}
	return SQLITE_OK;
}

static int append_arrays(sqlite3 *db, const char *name, int page_size, unsigned page_count,
			 int count, const unsigned *pgnos, const void *const *pages)
{
	struct arrays a = {.pgnos = pgnos, .pages = pages, .page_size = page_size};
	int rc = sqlite3_wal_append(db, name, page_size, page_count, count, fetch, &a);

	free(a.lot);
	return rc;
}

static int append(struct fixture *f, sqlite3 *db)
{
	return append_arrays(db, "main", f->page_size, f->page_count, (int)f->changed, f->pgnos,
			     f->pages);
}

static void start(struct fixture *f, int page_size)
{
	char sql[200];
	int fd;

	alarm(60);
	memset(f, 0, sizeof(*f));
	f->page_size = page_size;
	strcpy(f->dir, "/tmp/test_sqlite_patch.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->a_path, sizeof(f->a_path), "%s/a.db", f->dir);
	snprintf(f->b_path, sizeof(f->b_path), "%s/b.db", f->dir);
	snprintf(f->wal_path, sizeof(f->wal_path), "%s-wal", f->b_path);
	assert_int_equal(sqlite3_open(f->a_path, &f->a), 0);
	snprintf(sql, sizeof(sql), "PRAGMA page_size=%d; PRAGMA synchronous=0; CREATE TABLE t(x)",
		 page_size);
	exec(f->a, sql);
	collect(f);
	fd = open(f->b_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, f->image, f->page_count * (size_t)page_size),
			 f->page_count * (size_t)page_size);
	close(fd);
	assert_int_equal(sqlite3_open(f->b_path, &f->b), 0);
}

static void stop(struct fixture *f)
{
	sqlite3_close(f->a);
	sqlite3_close(f->b);
	unlink(f->a_path);
	unlink(f->b_path);
	unlink(f->wal_path);
	assert_int_equal(rmdir(f->dir), 0);
	free(f->image);
	alarm(0);
}

static void expect_b_is_a(struct fixture *f)
{
	size_t size = f->page_count * (size_t)f->page_size;
	uint8_t *b = malloc(size + 1);
	int fd;

	exec(f->b, "PRAGMA wal_checkpoint(TRUNCATE)");
	fd = open(f->b_path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, b, size + 1), size);
	assert_memory_equal(b, f->image, size);
	close(fd);
	free(b);
}

static void append_is_seen_by_all_and_unaltered(void **state)
{
	static const int sizes[] = {512, 4096, 65536};
	struct fixture f;
	sqlite3 *other;
	(void)state;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		start(&f, sizes[i]);
		assert_int_equal(sqlite3_open(f.b_path, &other), 0);
		assert_string_equal(ask(other, "SELECT count(*) FROM t"), "0");
		assert_string_equal(ask(f.b, "SELECT count(*) FROM t"), "0");
		exec(f.a, "INSERT INTO t VALUES (randomblob(9000)), (2), (3)");
		collect(&f);
		assert_int_equal(append(&f, f.b), SQLITE_OK);
		assert_int_equal(sqlite3_errcode(f.b), SQLITE_OK);
		/* the connection itself, whose cache was older, and another one */
		assert_string_equal(ask(f.b, "SELECT count(*) FROM t"), "3");
		assert_string_equal(ask(other, "SELECT count(*) FROM t"), "3");
		/* a change of the schema, too */
		exec(f.a, "CREATE TABLE u(y); INSERT INTO u VALUES (5)");
		collect(&f);
		assert_int_equal(append(&f, f.b), SQLITE_OK);
		assert_string_equal(ask(f.b, "SELECT y FROM u"), "5");
		assert_string_equal(ask(other, "PRAGMA integrity_check"), "ok");
		sqlite3_close(other);
		expect_b_is_a(&f);
		stop(&f);
	}
}

static void append_beside_reader_leaves_its_snapshot(void **state)
{
	struct fixture f;
	sqlite3 *reader;
	(void)state;

	start(&f, 4096);
	assert_int_equal(sqlite3_open(f.b_path, &reader), 0);
	exec(f.a, "INSERT INTO t VALUES (1)");
	collect(&f);
	assert_int_equal(append(&f, f.b), SQLITE_OK);
	exec(reader, "BEGIN");
	assert_string_equal(ask(reader, "SELECT count(*) FROM t"), "1");
	for (int i = 0; i < 20; i++) {
		exec(f.a, "INSERT INTO t VALUES (randomblob(3000))");
		collect(&f);
		assert_int_equal(append(&f, f.b), SQLITE_OK);
		exec(f.b, "PRAGMA wal_checkpoint");
	}
	assert_string_equal(ask(reader, "SELECT count(*) FROM t"), "1");
	assert_string_equal(ask(reader, "PRAGMA integrity_check"), "ok");
	exec(reader, "COMMIT");
	assert_string_equal(ask(reader, "SELECT count(*) FROM t"), "21");
	sqlite3_close(reader);
	expect_b_is_a(&f);
	stop(&f);
}

static void append_after_checkpoint_starts_the_log_over(void **state)
{
	struct fixture f;
	off_t size = 0;
	(void)state;

	start(&f, 4096);
	for (int i = 0; i < 50; i++) {
		exec(f.a, "INSERT INTO t VALUES (1)");
		collect(&f);
		assert_int_equal(append(&f, f.b), SQLITE_OK);
		exec(f.b, "PRAGMA wal_checkpoint");
		if (i == 0)
			size = size_of(f.wal_path);
	}
	assert_int_equal(size_of(f.wal_path), size);
	assert_string_equal(ask(f.b, "SELECT count(*) FROM t"), "50");
	stop(&f);
}

/* A checkpoint that is under way may have read the header already. */
static void append_beside_a_checkpoint_leaves_the_log_as_it_is(void **state)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 121, .l_len = 1};
	struct fixture f;
	char shm_path[96];
	off_t one;
	int fd;

	(void)state;
	start(&f, 4096);
	assert_int_equal(append(&f, f.b), SQLITE_OK);
	exec(f.b, "PRAGMA wal_checkpoint");
	one = size_of(f.wal_path);
	snprintf(shm_path, sizeof(shm_path), "%s-shm", f.b_path);
	fd = open(shm_path, O_RDWR | O_CLOEXEC);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	exec(f.a, "INSERT INTO t VALUES(2)");
	collect(&f);
	assert_int_equal(append(&f, f.b), SQLITE_OK);
	assert_int_equal(size_of(f.wal_path), one + f.changed * (off_t)(f.page_size + 24));
	assert_string_equal(ask(f.b, "SELECT count(*) FROM t"), "1");
	close(fd); /* the lock goes */
	exec(f.b, "PRAGMA wal_checkpoint");
	one = size_of(f.wal_path);
	exec(f.a, "INSERT INTO t VALUES(3)");
	collect(&f);
	assert_int_equal(append(&f, f.b), SQLITE_OK);
	assert_int_equal(size_of(f.wal_path), one);
	expect_b_is_a(&f);
	stop(&f);
}

static void append_smaller_database_is_smaller(void **state)
{
	struct fixture f;
	char count[20];
	(void)state;

	start(&f, 1024);
	exec(f.a, "INSERT INTO t VALUES (zeroblob(200000))");
	collect(&f);
	assert_int_equal(append(&f, f.b), SQLITE_OK);
	exec(f.a, "DELETE FROM t; VACUUM");
	collect(&f);
	assert_int_equal(append(&f, f.b), SQLITE_OK);
	snprintf(count, sizeof(count), "%u", f.page_count);
	assert_string_equal(ask(f.b, "PRAGMA page_count"), count);
	assert_string_equal(ask(f.b, "PRAGMA integrity_check"), "ok");
	expect_b_is_a(&f);
	stop(&f);
}

static void append_survives_recovery(void **state)
{
	struct fixture f;
	char shm_path[90];
	(void)state;

	start(&f, 4096);
	for (int i = 0; i < 5; i++) {
		exec(f.a, "INSERT INTO t VALUES (randomblob(5000))");
		collect(&f);
		assert_int_equal(append(&f, f.b), SQLITE_OK);
	}
	sqlite3_db_config(f.b, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_close(f.b);
	snprintf(shm_path, sizeof(shm_path), "%s-shm", f.b_path);
	assert_int_equal(unlink(shm_path), 0);
	assert_int_equal(sqlite3_open(f.b_path, &f.b), 0);
	assert_string_equal(ask(f.b, "SELECT count(*) FROM t"), "5");
	expect_b_is_a(&f);
	stop(&f);
}

static void append_beside_writer_is_busy(void **state)
{
	struct fixture f;
	sqlite3 *writer;
	(void)state;

	start(&f, 4096);
	assert_int_equal(sqlite3_open(f.b_path, &writer), 0);
	exec(writer, "BEGIN IMMEDIATE");
	exec(f.a, "INSERT INTO t VALUES (1)");
	collect(&f);
	assert_int_equal(append(&f, f.b), SQLITE_BUSY);
	exec(writer, "ROLLBACK");
	assert_int_equal(append(&f, f.b), SQLITE_OK);
	assert_string_equal(ask(writer, "SELECT count(*) FROM t"), "1");
	/* and the lock is free again */
	exec(writer, "INSERT INTO t VALUES (2)");
	sqlite3_close(writer);
	stop(&f);
}

static void append_what_cannot_be_is_refused(void **state)
{
	struct fixture f;
	unsigned pgnos[3] = {1, 2, 2};
	const void *pages[3];
	sqlite3 *plain;
	(void)state;

	start(&f, 4096);
	for (int i = 0; i < 3; i++)
		pages[i] = f.image;
	assert_int_equal(append_arrays(f.b, "main", 4096, 3, 3, pgnos, pages), SQLITE_MISUSE);
	assert_int_equal(append_arrays(f.b, "main", 4096, 1, 2, pgnos, pages), SQLITE_MISUSE);
	assert_int_equal(append_arrays(f.b, "main", 4096, 3, 0, pgnos, pages), SQLITE_MISUSE);
	assert_int_equal(append_arrays(f.b, "main", 4096, 0, 1, pgnos, pages), SQLITE_MISUSE);
	pgnos[0] = 0;
	assert_int_equal(append_arrays(f.b, "main", 4096, 3, 2, pgnos, pages), SQLITE_MISUSE);
	pgnos[0] = 1;
	assert_int_equal(append_arrays(f.b, "none", 4096, 3, 2, pgnos, pages), SQLITE_ERROR);
	assert_int_equal(append_arrays(f.b, "main", 8192, 3, 2, pgnos, pages), SQLITE_MISMATCH);
	exec(f.b, "BEGIN; SELECT * FROM t");
	assert_int_equal(append_arrays(f.b, "main", 4096, 3, 2, pgnos, pages), SQLITE_MISUSE);
	exec(f.b, "COMMIT");
	/* a database that is not in WAL mode, and stays as it is */
	assert_int_equal(sqlite3_open(f.a_path, &plain), 0);
	exec(f.a, "INSERT INTO t VALUES (1)");
	assert_int_equal(append_arrays(plain, "main", 4096, 3, 2, pgnos, pages), SQLITE_ERROR);
	assert_string_equal(ask(plain, "PRAGMA journal_mode"), "delete");
	exec(f.a, "INSERT INTO t VALUES (2)");
	sqlite3_close(plain);

	collect(&f);
	assert_int_equal(append(&f, f.b), SQLITE_OK);
	assert_string_equal(ask(f.b, "SELECT count(*) FROM t"), "2");
	stop(&f);
}

static void append_on_full_disk_changes_nothing(void **state)
{
	struct fixture f;
	struct rlimit old, low;
	(void)state;

	start(&f, 4096);
	exec(f.a, "INSERT INTO t VALUES (1)");
	collect(&f);
	assert_int_equal(append(&f, f.b), SQLITE_OK);
	exec(f.a, "INSERT INTO t VALUES (zeroblob(400000))");
	collect(&f);

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	low = old;
	low.rlim_cur = 100000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
	for (int i = 0; i < 3; i++) {
		int rc = append(&f, f.b);

		assert_true(rc == SQLITE_IOERR || rc == SQLITE_FULL);
		assert_string_equal(ask(f.b, "SELECT count(*) FROM t"), "1");
	}
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);

	assert_int_equal(append(&f, f.b), SQLITE_OK);
	assert_string_equal(ask(f.b, "SELECT count(*) FROM t"), "2");
	assert_string_equal(ask(f.b, "PRAGMA integrity_check"), "ok");
	expect_b_is_a(&f);
	stop(&f);
}

/* Frames of the -wal: the page number of each, and the one that is a commit. */
static void expect_one_commit_at_the_end(struct fixture *f, unsigned frames)
{
	uint8_t header[24];
	int fd = open(f->wal_path, O_RDONLY | O_CLOEXEC);
	unsigned commits = 0;

	for (unsigned i = 0; i < frames; i++) {
		off_t at = 32 + (off_t)i * (24 + f->page_size);

		assert_int_equal(pread(fd, header, 24, at), 24);
		if (memcmp(header + 4, "\0\0\0", 4) != 0) {
			commits++;
			assert_int_equal(i, frames - 1);
			/* page 1 is last, where a cache spill would have left it */
			assert_memory_equal(header, "\0\0\0\1", 4);
		}
	}
	assert_int_equal(commits, 1);
	close(fd);
}

static void append_in_lots_is_one_commit(void **state)
{
	struct fixture f;
	(void)state;

	start(&f, 4096);
	/* Every number of pages around the bounds of the lots. */
	for (int size = 55; size < 75; size++) {
		char sql[200];

		snprintf(sql, sizeof(sql), "DELETE FROM t; INSERT INTO t VALUES (randomblob(%d))",
			 size * 4096);
		exec(f.a, sql);
		collect(&f);
		exec(f.b, "PRAGMA wal_checkpoint(TRUNCATE)");
		assert_int_equal(append(&f, f.b), SQLITE_OK);
		if (f.changed > SQLITE_WAL_APPEND_MAX)
			expect_one_commit_at_the_end(&f, f.changed);
		assert_string_equal(ask(f.b, "PRAGMA integrity_check"), "ok");
	}
	assert_true(f.changed > SQLITE_WAL_APPEND_MAX + 5);
	exec(f.b, "PRAGMA wal_checkpoint(TRUNCATE)");
	expect_b_is_a(&f);
	stop(&f);
}

/* A lot that cannot be had, after others went into the log: nothing of them is ever seen. */
static void append_failing_between_lots_changes_nothing(void **state)
{
	struct fixture f;
	struct arrays a;
	sqlite3 *reader;
	(void)state;

	start(&f, 4096);
	exec(f.a, "INSERT INTO t VALUES (1)");
	collect(&f);
	assert_int_equal(append(&f, f.b), SQLITE_OK);
	assert_int_equal(sqlite3_open(f.b_path, &reader), 0);
	exec(f.a, "INSERT INTO t VALUES (randomblob(900000))");
	collect(&f);
	assert_true(f.changed > 3 * SQLITE_WAL_APPEND_MAX);
	for (int fail_at = 1; fail_at < (int)f.changed; fail_at += 50) {
		a = (struct arrays){.pgnos = f.pgnos,
				    .pages = f.pages,
				    .page_size = f.page_size,
				    .fail_at = fail_at};
		assert_int_equal(sqlite3_wal_append(f.b, "main", f.page_size, f.page_count,
						    (int)f.changed, fetch, &a) &
					 0xff,
				 SQLITE_IOERR);
		free(a.lot);
		assert_string_equal(ask(reader, "SELECT count(*) FROM t"), "1");
		assert_string_equal(ask(f.b, "SELECT count(*) FROM t"), "1");
	}
	/* the lock is free, and the next one writes over what was left */
	exec(reader, "BEGIN IMMEDIATE; ROLLBACK");
	assert_int_equal(append(&f, f.b), SQLITE_OK);
	assert_string_equal(ask(reader, "SELECT count(*) FROM t"), "2");
	assert_string_equal(ask(reader, "PRAGMA integrity_check"), "ok");
	sqlite3_close(reader);
	expect_b_is_a(&f);
	stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(append_is_seen_by_all_and_unaltered),
		cmocka_unit_test(append_beside_reader_leaves_its_snapshot),
		cmocka_unit_test(append_after_checkpoint_starts_the_log_over),
		cmocka_unit_test(append_beside_a_checkpoint_leaves_the_log_as_it_is),
		cmocka_unit_test(append_smaller_database_is_smaller),
		cmocka_unit_test(append_survives_recovery),
		cmocka_unit_test(append_beside_writer_is_busy),
		cmocka_unit_test(append_what_cannot_be_is_refused),
		cmocka_unit_test(append_on_full_disk_changes_nothing),
		cmocka_unit_test(append_in_lots_is_one_commit),
		cmocka_unit_test(append_failing_between_lots_changes_nothing),
	};

	return cmocka_run_group_tests_name("sqlite_patch", tests, NULL, NULL);
}
