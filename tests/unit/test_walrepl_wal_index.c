/* Repairing the wal-index, against SQLite's own wal-index of a database on plain files. That a
 * connection takes part is not needed: SQLite's connections in one process share the mapping, and
 * what wrep_wal_index_repair() writes to the file is in it. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "sqlite/wal_index.h"

struct fixture {
	char dir[64], path[80], shm_path[84], wal_path[84];
	sqlite3 *db, *other;
	int shm;
	uint32_t frames, salt[2];
	uint8_t saved[96];
};

static void exec(sqlite3 *db, const char *sql)
{
	char *error = NULL;

	if (sqlite3_exec(db, sql, NULL, NULL, &error))
		fail_msg("%s: %s", sql, error);
}

static int ask(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *s;
	int value;

	if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) || sqlite3_step(s) != SQLITE_ROW)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	value = sqlite3_column_int(s, 0);
	sqlite3_finalize(s);
	return value;
}

static void start(struct fixture *f)
{
	alarm(60);
	memset(f, 0, sizeof(*f));
	strcpy(f->dir, "/tmp/test_walrepl_wal_index.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/t.db", f->dir);
	snprintf(f->shm_path, sizeof(f->shm_path), "%s-shm", f->path);
	snprintf(f->wal_path, sizeof(f->wal_path), "%s-wal", f->path);
	assert_int_equal(sqlite3_open(f->path, &f->db), 0);
	assert_int_equal(sqlite3_open(f->path, &f->other), 0);
	exec(f->db, "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, x);"
		    "INSERT INTO t(x) VALUES (1)");
	ask(f->other, "SELECT count(*) FROM t");
	f->shm = open(f->shm_path, O_RDWR | O_CLOEXEC);
	assert_true(f->shm >= 0);
}

static void stop(struct fixture *f)
{
	close(f->shm);
	sqlite3_close(f->db);
	sqlite3_close(f->other);
	unlink(f->path);
	assert_int_equal(rmdir(f->dir), 0);
	alarm(0);
}

/* What is committed in the -wal: as much as the wal-index says. */
static void look(struct fixture *f)
{
	assert_int_equal(pread(f->shm, f->saved, sizeof(f->saved), 0), sizeof(f->saved));
	memcpy(&f->frames, f->saved + 16, 4);
	memcpy(f->salt, f->saved + 32, 8);
}

static void restore(struct fixture *f)
{
	assert_int_equal(pwrite(f->shm, f->saved, sizeof(f->saved), 0), sizeof(f->saved));
}

static void index_up_to_date_is_left_alone(void **state)
{
	struct fixture f;
	uint8_t now[96];
	(void)state;

	start(&f);
	look(&f);
	assert_int_equal(wrep_wal_index_repair(f.shm, f.frames, f.salt), 0);
	assert_int_equal(wrep_wal_index_repair(f.shm, f.frames - 1, f.salt), 0);
	assert_int_equal(pread(f.shm, now, sizeof(now), 0), sizeof(now));
	assert_memory_equal(now, f.saved, sizeof(now));
	stop(&f);
}

static void index_behind_is_recovered(void **state)
{
	struct fixture f;
	(void)state;

	start(&f);
	look(&f);
	exec(f.db, "INSERT INTO t(x) VALUES (2)");
	restore(&f);
	assert_int_equal(ask(f.other, "SELECT count(*) FROM t"), 1);
	assert_int_equal(wrep_wal_index_repair(f.shm, f.frames + 1, f.salt), 1);
	assert_int_equal(ask(f.other, "SELECT count(*) FROM t"), 2);
	exec(f.other, "INSERT INTO t(x) VALUES (3)");
	assert_int_equal(ask(f.db, "SELECT count(*) FROM t"), 3);
	look(&f);
	assert_int_equal(wrep_wal_index_repair(f.shm, f.frames, f.salt), 0);
	stop(&f);
}

static void index_of_another_generation_is_recovered(void **state)
{
	struct fixture f;
	uint32_t salt[2];
	(void)state;

	start(&f);
	look(&f);
	memcpy(salt, f.salt, sizeof(salt));
	salt[1] ^= 1;
	assert_int_equal(wrep_wal_index_repair(f.shm, f.frames, salt), 1);
	assert_int_equal(ask(f.other, "SELECT count(*) FROM t"), 1);
	/* the -wal is empty, the index speaks of frames */
	assert_int_equal(wrep_wal_index_repair(f.shm, 0, salt), 1);
	assert_int_equal(ask(f.other, "SELECT count(*) FROM t"), 1);
	stop(&f);
}

static void index_restarted_or_truncated_is_left_alone(void **state)
{
	struct fixture f;
	(void)state;

	start(&f);
	look(&f);
	/* restarts the header and then truncates the -wal; `f` knows the time between */
	exec(f.db, "PRAGMA wal_checkpoint(TRUNCATE)");
	assert_int_equal(wrep_wal_index_repair(f.shm, f.frames, f.salt), 0);
	/* but not when the new generation has a commit already that it does not show */
	look(&f);
	assert_int_equal(f.frames, 0);
	exec(f.db, "INSERT INTO t(x) VALUES (2)");
	restore(&f);
	assert_int_equal(wrep_wal_index_repair(f.shm, 1, f.salt), 1);
	assert_int_equal(ask(f.other, "SELECT count(*) FROM t"), 2);

	exec(f.db, "PRAGMA wal_checkpoint(TRUNCATE)");
	assert_int_equal(wrep_wal_index_repair(f.shm, 0, f.salt), 0);
	assert_int_equal(ask(f.other, "SELECT count(*) FROM t"), 2);
	stop(&f);
}

static void index_missing_or_being_written_is_left_alone(void **state)
{
	struct fixture f;
	uint8_t half[96];
	uint32_t salt[2] = {1, 2};
	int fd;
	(void)state;

	start(&f);
	fd = open(f.dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(wrep_wal_index_repair(fd, 5, salt), 0);
	assert_int_equal(ftruncate(fd, 3), 0);
	assert_int_equal(wrep_wal_index_repair(fd, 5, salt), 0);
	assert_int_equal(ftruncate(fd, 32768), 0);
	assert_int_equal(wrep_wal_index_repair(fd, 5, salt), 0);
	look(&f);
	memcpy(half, f.saved, sizeof(half));
	half[48 + 16]++; /* the second copy is one frame ahead */
	assert_int_equal(pwrite(fd, half, sizeof(half), 0), sizeof(half));
	assert_int_equal(wrep_wal_index_repair(fd, f.frames + 5, f.salt), 0);
	assert_int_equal(pread(fd, f.saved, sizeof(f.saved), 0), sizeof(f.saved));
	assert_memory_equal(half, f.saved, sizeof(half));
	close(fd);
	assert_true(wrep_wal_index_repair(-1, 5, salt) < 0);
	stop(&f);
}

/* A live writer whose transaction has spilled into the -wal when the header becomes invalid. */
static void live_writer(bool commit)
{
	struct fixture f;
	const int rows = 300;
	struct stat before, now;

	start(&f);
	exec(f.db, "PRAGMA cache_size=2; PRAGMA wal_autocheckpoint=0;"
		   "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i < 299)"
		   " INSERT INTO t(x) SELECT randomblob(900) FROM c");
	assert_int_equal(stat(f.wal_path, &before), 0);
	exec(f.db, "BEGIN; UPDATE t SET x = randomblob(901)");
	assert_int_equal(stat(f.wal_path, &now), 0);
	assert_true(now.st_size > before.st_size + 100000);

	look(&f);
	assert_int_equal(wrep_wal_index_repair(f.shm, f.frames + 1, f.salt), 1);
	exec(f.db, "UPDATE t SET x = randomblob(902) WHERE id % 2"); /* overwrites its own frames */
	exec(f.db, commit ? "COMMIT" : "ROLLBACK");
	assert_int_equal(ask(f.other, "SELECT count(*) FROM t"), rows);
	assert_int_equal(ask(f.other, "SELECT count(*) FROM t WHERE length(x) > 900"),
			 commit ? rows : 0);
	assert_int_equal(ask(f.other, "SELECT count(*) FROM pragma_integrity_check"
				      " WHERE integrity_check = 'ok'"),
			 1);
	look(&f);
	assert_int_equal(wrep_wal_index_repair(f.shm, f.frames, f.salt), 0);

	/* and what the index says is what the -wal says */
	exec(f.db, "INSERT INTO t(x) VALUES (1)");
	look(&f);
	assert_int_equal(wrep_wal_index_repair(f.shm, f.frames + 1, f.salt), 1);
	assert_int_equal(ask(f.other, "SELECT count(*) FROM t"), rows + 1);
	stop(&f);
}

static void invalid_under_writer_who_commits_harmless(void **state)
{
	(void)state;
	live_writer(true);
}

static void invalid_under_writer_who_rolls_back_harmless(void **state)
{
	(void)state;
	live_writer(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(index_up_to_date_is_left_alone),
		cmocka_unit_test(index_behind_is_recovered),
		cmocka_unit_test(index_of_another_generation_is_recovered),
		cmocka_unit_test(index_restarted_or_truncated_is_left_alone),
		cmocka_unit_test(index_missing_or_being_written_is_left_alone),
		cmocka_unit_test(invalid_under_writer_who_commits_harmless),
		cmocka_unit_test(invalid_under_writer_who_rolls_back_harmless),
	};

	return cmocka_run_group_tests_name("walrepl_wal_index", tests, NULL, NULL);
}
