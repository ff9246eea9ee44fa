/* The client of scripts/bench: stock SQLite, one measurement a run, WAL mode. It takes any path,
 * so that the same program measures a mount and the disk beneath it.
 *
 *   sqlite_bench insert DB COUNT normal|full   autocommit one-row inserts
 *   sqlite_bench bulk DB ROWS                  one transaction
 *   sqlite_bench select DB COUNT               autocommit point selects in the rows that bulk made
 *   sqlite_bench poll DB                       tries to insert until it may (see failover)
 *
 * Every row carries 100 random bytes. Prints one line of NAME VALUE pairs: latencies in
 * microseconds, and for poll the monotonic time of the first acknowledged insert.
 */
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t seed;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void fail(sqlite3 *db, const char *what)
{
	fprintf(stderr, "%s: %s\n", what, db ? sqlite3_errmsg(db) : "no memory");
	exit(1);
}

static void run(sqlite3 *db, const char *sql)
{
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail(db, sql);
}

static sqlite3 *open_db(const char *path, int busy_ms)
{
	sqlite3 *db = NULL;

	if (sqlite3_open(path, &db) != SQLITE_OK)
		fail(db, path);
	sqlite3_busy_timeout(db, busy_ms);
	return db;
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *stmt;

	if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
		fail(db, sql);
	return stmt;
}

/* 0 or SQLite's error; the statement can be used again. */
static int insert(sqlite3_stmt *stmt)
{
	unsigned char body[100];

	for (size_t i = 0; i < sizeof body; i++)
		body[i] = (unsigned char)(next_random() >> 24);
	sqlite3_bind_blob(stmt, 1, body, sizeof body, SQLITE_TRANSIENT);
	sqlite3_step(stmt);
	return sqlite3_reset(stmt);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void report(uint64_t *ns, int count)
{
	double sum = 0;

	for (int i = 0; i < count; i++)
		sum += (double)ns[i];
	qsort(ns, (size_t)count, sizeof *ns, compare);
	printf("mean %.3f p50 %.3f p99 %.3f max %.3f\n", sum / count / 1e3,
	       (double)ns[count / 2] / 1e3, (double)ns[(int)((count - 1) * 0.99)] / 1e3,
	       (double)ns[count - 1] / 1e3);
}

static uint64_t *samples(int count)
{
	uint64_t *ns = calloc((size_t)count, sizeof *ns);

	if (!ns)
		fail(NULL, "samples");
	return ns;
}

static void bench_insert(const char *path, int count, const char *synchronous)
{
	sqlite3 *db = open_db(path, 20000);
	uint64_t *ns = samples(count);
	char pragma[64];
	sqlite3_stmt *stmt;

	run(db, "PRAGMA journal_mode=WAL");
	snprintf(pragma, sizeof pragma, "PRAGMA synchronous=%s", synchronous);
	run(db, pragma);
	run(db, "CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b BLOB)");
	stmt = prepare(db, "INSERT INTO t(b) VALUES(?)");
	for (int i = -count / 20; i < count; i++) { /* the first ones warm up */
		uint64_t begin = now_ns();

		if (insert(stmt))
			fail(db, "insert");
		if (i >= 0)
			ns[i] = now_ns() - begin;
	}
	report(ns, count);
	sqlite3_finalize(stmt);
	sqlite3_close(db);
	free(ns);
}

static void bench_bulk(const char *path, int rows)
{
	sqlite3 *db = open_db(path, 20000);
	uint64_t begin;
	sqlite3_stmt *stmt;

	run(db, "PRAGMA journal_mode=WAL");
	run(db, "PRAGMA synchronous=FULL");
	run(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)");
	stmt = prepare(db, "INSERT INTO t(b) VALUES(?)");
	begin = now_ns();
	run(db, "BEGIN");
	for (int i = 0; i < rows; i++)
		if (insert(stmt))
			fail(db, "insert");
	run(db, "COMMIT");
	printf("mean %.3f\n", (double)(now_ns() - begin) / 1e3);
	sqlite3_finalize(stmt);
	sqlite3_close(db);
}

static void bench_select(const char *path, int count)
{
	sqlite3 *db = open_db(path, 20000);
	sqlite3_stmt *stmt = prepare(db, "SELECT max(a) FROM t");
	uint64_t rows, *ns = samples(count);

	if (sqlite3_step(stmt) != SQLITE_ROW)
		fail(db, "select");
	rows = (uint64_t)sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	/* warm: all of it has been read once, through this connection */
	run(db, "SELECT sum(length(b)) FROM t");
	stmt = prepare(db, "SELECT b FROM t WHERE a=?");
	for (int i = -count / 4; i < count; i++) {
		uint64_t begin = now_ns();

		sqlite3_bind_int64(stmt, 1, (sqlite3_int64)(1 + next_random() % rows));
		if (sqlite3_step(stmt) != SQLITE_ROW || sqlite3_column_bytes(stmt, 0) != 100)
			fail(db, "select");
		sqlite3_reset(stmt);
		if (i >= 0)
			ns[i] = now_ns() - begin;
	}
	report(ns, count);
	sqlite3_finalize(stmt);
	sqlite3_close(db);
	free(ns);
}

static void bench_poll(const char *path)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	sqlite3 *db = open_db(path, 20000);
	sqlite3_stmt *stmt = prepare(db, "INSERT INTO t(b) VALUES(?)");

	sqlite3_busy_timeout(db, 0);
	printf("polling 1\n");
	fflush(stdout);
	while (insert(stmt))
		nanosleep(&pause, NULL);
	printf("acknowledged_ns %llu\n", (unsigned long long)now_ns());
	fflush(stdout);
	sqlite3_finalize(stmt);
	sqlite3_close(db);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	seed = 88172645463325252u ^ now_ns();
	if (!strcmp(what, "insert") && argc == 5)
		bench_insert(argv[2], atoi(argv[3]), argv[4]);
	else if (!strcmp(what, "bulk") && argc == 4)
		bench_bulk(argv[2], atoi(argv[3]));
	else if (!strcmp(what, "select") && argc == 4)
		bench_select(argv[2], atoi(argv[3]));
	else if (!strcmp(what, "poll") && argc == 3)
		bench_poll(argv[2]);
	else {
		fprintf(stderr, "usage: sqlite_bench insert|bulk|select|poll DB ...\n");
		return 2;
	}
	return 0;
}
