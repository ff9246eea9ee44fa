/* The daemon's connection beside applications, on plain files: what would be the mount is the same
 * directory, where OFD locks and an application's POSIX locks meet just as well.
 *
 * Transactions come from a database A that SQLite writes in rollback mode, so that its file is its
 * content; what changed since the last look is the next transaction for B. Applications are child
 * processes with the system's SQLite, whatever its age, told through a pipe what to do.
 */
#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "sqlite/conn.h"
#include "sqlite/wal_index.h"

#define TEST_SECONDS 60

#define SUM_QUERY \
	"SELECT v, n = (SELECT count(*) FROM t) AND s = (SELECT total(length(x)) FROM t) FROM meta"

/* ---- an application ------------------------------------------------------------------------- */

/* The system's SQLite, not the one linked into this program. */
static struct {
	int (*open)(const char *, sqlite3 **);
	int (*close)(sqlite3 *);
	int (*exec)(sqlite3 *, const char *, int (*)(void *, int, char **, char **), void *,
		    char **);
} stock;

static bool load_stock(void)
{
	void *lib = dlopen("libsqlite3.so.0", RTLD_NOW | RTLD_LOCAL);

	if (!lib)
		return false;
	*(void **)&stock.open = dlsym(lib, "sqlite3_open");
	*(void **)&stock.close = dlsym(lib, "sqlite3_close");
	*(void **)&stock.exec = dlsym(lib, "sqlite3_exec");
	return stock.open && stock.close && stock.exec;
}

struct app {
	pid_t pid;
	FILE *to, *from;
};

struct answer {
	int rc;
	char text[400]; /* the columns of the last row, joined by '|' */
};

static int keep_row(void *arg, int count, char **values, char **names)
{
	struct answer *a = arg;
	size_t at = 0;

	(void)names;
	a->text[0] = 0;
	for (int i = 0; i < count && at < sizeof(a->text); i++)
		at += (size_t)snprintf(a->text + at, sizeof(a->text) - at, "%s%s", i ? "|" : "",
				       values[i] ? values[i] : "NULL");
	return 0;
}

/* A fresh process, as far as locks go: descriptors that it kept would keep the daemon's OFD locks
 * and the ends of other applications' pipes alive. */
static void become_application(int keep, int keep_too)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int fd = 3; fd < 1024; fd++)
		if (fd != keep && fd != keep_too)
			close(fd);
}

/* Reads lines "o PATH", "c" or "x SQL"; answers each with "RC TEXT". */
static void app_main(FILE *in, FILE *out)
{
	sqlite3 *db = NULL;
	char line[1024];

	if (!load_stock())
		_exit(3);
	while (fgets(line, sizeof(line), in)) {
		struct answer a = {0};

		line[strcspn(line, "\n")] = 0;
		if (line[0] == 'o') {
			a.rc = stock.open(line + 2, &db);
		} else if (line[0] == 'c') {
			a.rc = stock.close(db);
			db = NULL;
		} else {
			a.rc = stock.exec(db, line + 2, keep_row, &a, NULL);
		}
		fprintf(out, "%d %s\n", a.rc, a.text);
		fflush(out);
	}
	_exit(0);
}

static void app_start(struct app *app)
{
	int to[2], from[2];

	assert_int_equal(pipe2(to, O_CLOEXEC), 0);
	assert_int_equal(pipe2(from, O_CLOEXEC), 0);
	app->pid = fork();
	assert_true(app->pid >= 0);
	if (app->pid == 0) {
		become_application(to[0], from[1]);
		app_main(fdopen(to[0], "r"), fdopen(from[1], "w"));
	}
	close(to[0]);
	close(from[1]);
	app->to = fdopen(to[1], "w");
	app->from = fdopen(from[0], "r");
}

static struct answer app_say(struct app *app, char verb, const char *arg)
{
	struct answer a = {.rc = -1};
	char line[512];

	fprintf(app->to, "%c %s\n", verb, arg);
	fflush(app->to);
	if (!fgets(line, sizeof(line), app->from))
		fail_msg("the application died at: %c %s", verb, arg);
	line[strcspn(line, "\n")] = 0;
	a.rc = atoi(line);
	snprintf(a.text, sizeof(a.text), "%.399s", strchr(line, ' ') + 1);
	return a;
}

static int app_exec(struct app *app, const char *sql)
{
	return app_say(app, 'x', sql).rc;
}

static void app_expect(struct app *app, const char *sql, const char *text)
{
	struct answer a = app_say(app, 'x', sql);

	assert_int_equal(a.rc, SQLITE_OK);
	assert_string_equal(a.text, text);
}

static void app_expect_version(struct app *app, unsigned version)
{
	char text[32];

	snprintf(text, sizeof(text), "%u|1", version);
	app_expect(app, SUM_QUERY, text);
	app_expect(app, "PRAGMA integrity_check", "ok");
}

static void app_stop(struct app *app, int sig)
{
	if (sig)
		kill(app->pid, sig);
	fclose(app->to);
	fclose(app->from);
	waitpid(app->pid, NULL, 0);
}

/* ---- two databases -------------------------------------------------------------------------- */

struct fixture {
	char dir[64], a_path[80], b_path[80];
	int dir_fd;

	sqlite3 *a;
	unsigned version; /* transactions that A has had */
	uint8_t *image;	  /* A as of the last call of next_txn() */
	uint32_t page_size, page_count;
	uint32_t *pgnos;
	const void **images;
	struct wrep_conn_txn txn;

	struct wrep_conn *b;
	unsigned invalidations, removals, settlements;
	off_t settled; /* the size of the -wal that the kernel goes on to know, whatever it was told before */
	bool published_early, written_early;
	int settle_error;
	int wal_error; /* of the mounted -wal's open */
	bool wal_unknown; /* the kernel takes the -wal for an empty file, opened now */
};

static int mounted_open(void *ctx, const char *name, int flags)
{
	struct fixture *f = ctx;
	bool wal = !strcmp(name, "b.db-wal");
	int fd;

	if (wal && f->wal_error)
		return f->wal_error;
	fd = wal && f->wal_unknown ? openat(f->dir_fd, "unknown", O_RDONLY | O_CREAT | O_CLOEXEC, 0644)
				   : openat(f->dir_fd, name, flags | O_CLOEXEC, 0644);
	return fd < 0 ? -errno : fd;
}

static off_t wal_size(const struct fixture *f)
{
	struct stat st;

	assert_int_equal(fstatat(f->dir_fd, "b.db-wal", &st, 0), 0);
	return st.st_size;
}

/* No frame is invalidated after the wal-index says that it is there, nor written where a reader might not get
 * it. */
static void invalidate(void *ctx, enum wrep_kind kind, uint64_t off, uint64_t len)
{
	struct fixture *f = ctx;
	uint32_t max_frame = 0;
	int fd;

	assert_true(len > 0);
	f->invalidations++;
	if (kind != WREP_WAL)
		return;
	if (off + len <= (uint64_t)wal_size(f) && off + len > (uint64_t)f->settled)
		f->written_early = true;
	if (off < 32)
		return;
	fd = openat(f->dir_fd, "b.db-shm", O_RDONLY | O_CLOEXEC);
	if (pread(fd, &max_frame, 4, 16) == 4 && (off - 32) / (f->page_size + 24) < max_frame)
		f->published_early = true;
	close(fd);
}

static int settle(void *ctx, enum wrep_kind kind, int fd)
{
	struct fixture *f = ctx;
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	if (kind == WREP_WAL) {
		f->settlements++;
		f->settled = wal_size(f);
		assert_true(f->wal_unknown || st.st_size == f->settled);
	}
	return f->settle_error;
}

static void removed(void *ctx, enum wrep_kind kind)
{
	struct fixture *f = ctx;

	assert_true(kind == WREP_WAL || kind == WREP_SHM);
	f->removals++;
}

static void a_exec(struct fixture *f, const char *format, ...)
{
	char *error = NULL, *sql;
	va_list ap;

	va_start(ap, format);
	sql = sqlite3_vmprintf(format, ap);
	va_end(ap);
	if (sqlite3_exec(f->a, sql, NULL, NULL, &error))
		fail_msg("%s: %s", sql, error);
	sqlite3_free(sql);
}

/* One transaction of A's: the statement, and the bookkeeping that a reader checks. */
static void a_commit(struct fixture *f, const char *sql)
{
	f->version++;
	a_exec(f,
	       "BEGIN; %s; UPDATE meta SET v = %u, n = (SELECT count(*) FROM t),"
	       " s = (SELECT total(length(x)) FROM t); COMMIT",
	       sql, f->version);
}

static void a_random(struct fixture *f)
{
	char sql[256];
	int r = rand() % 10, size = rand() % 3 ? 50 : (int)f->page_size * 2;

	if (r < 6)
		snprintf(sql, sizeof(sql), "INSERT INTO t(x) VALUES (randomblob(%d))",
			 1 + rand() % size);
	else if (r < 8)
		snprintf(sql, sizeof(sql), "UPDATE t SET x = randomblob(%d) WHERE id %% 17 = %d",
			 1 + rand() % size, rand() % 17);
	else if (r < 9)
		snprintf(sql, sizeof(sql), "DELETE FROM t WHERE id %% 7 = %d", rand() % 7);
	else
		snprintf(sql, sizeof(sql), "PRAGMA incremental_vacuum(%d)", 1 + rand() % 20);
	a_commit(f, sql);
}

/* What changed in A is the next transaction. `wal`: what its page 1 says. */
static const struct wrep_conn_txn *next_txn(struct fixture *f, bool wal)
{
	struct stat st;
	uint8_t *now;
	uint32_t count = 0, pages;
	int fd = open(f->a_path, O_RDONLY | O_CLOEXEC);

	assert_int_equal(fstat(fd, &st), 0);
	now = malloc((size_t)st.st_size);
	assert_int_equal(read(fd, now, (size_t)st.st_size), st.st_size);
	close(fd);
	now[18] = now[19] = wal ? 2 : 1;

	if (f->page_size != (uint32_t)(now[16] << 8 | now[17] << 16))
		f->page_count = 0; /* every page is another */
	f->page_size = (uint32_t)(now[16] << 8 | now[17] << 16);
	pages = (uint32_t)(st.st_size / f->page_size);
	f->pgnos = realloc(f->pgnos, pages * sizeof(*f->pgnos));
	f->images = realloc(f->images, pages * sizeof(*f->images));
	for (uint32_t i = 0; i < pages; i++) {
		const uint8_t *page = now + (size_t)i * f->page_size;

		if (i < f->page_count &&
		    memcmp(page, f->image + (size_t)i * f->page_size, f->page_size) == 0)
			continue;
		f->pgnos[count] = i + 1;
		f->images[count++] = page;
	}
	free(f->image);
	f->image = now;
	f->page_count = pages;
	f->txn = (struct wrep_conn_txn){
		.page_size = f->page_size,
		.page_count = pages,
		.image_count = count,
		.pgnos = f->pgnos,
		.images = f->images,
	};
	return &f->txn;
}

static void apply_random(struct fixture *f, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		a_random(f);
		assert_int_equal(wrep_conn_apply_wal(f->b, next_txn(f, true)), 0);
	}
}

/* B's file is A's, byte by byte. */
static void expect_equal(struct fixture *f)
{
	size_t size = (size_t)f->page_size * f->page_count;
	uint8_t *b = malloc(size + 1);
	int fd = open(f->b_path, O_RDONLY | O_CLOEXEC);

	assert_int_equal(read(fd, b, size + 1), size);
	assert_memory_equal(b, f->image, size);
	close(fd);
	free(b);
}

static void b_open(struct fixture *f)
{
	struct wrep_conn_host host = {
		.data_fd = f->dir_fd,
		.shm_fd = f->dir_fd,
		.mounted_open = mounted_open,
		.invalidate = invalidate,
		.settle = settle,
		.removed = removed,
		.ctx = f,
	};

	assert_int_equal(wrep_conn_open(&f->b, "b.db", &host), 0);
}

static void start(struct fixture *f, unsigned page_size)
{
	memset(f, 0, sizeof(*f));
	alarm(TEST_SECONDS);
	srand(1);
	strcpy(f->dir, "/tmp/test_walrepl_conn.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->a_path, sizeof(f->a_path), "%s/a.db", f->dir);
	snprintf(f->b_path, sizeof(f->b_path), "%s/b.db", f->dir);
	f->dir_fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(sqlite3_open(f->a_path, &f->a), 0);
	a_exec(f,
	       "PRAGMA page_size=%u; PRAGMA auto_vacuum=2; PRAGMA synchronous=0;"
	       "CREATE TABLE t(id INTEGER PRIMARY KEY, x); CREATE TABLE meta(v, n, s);"
	       "INSERT INTO meta VALUES (0, 0, 0.0)",
	       page_size);
	close(open(f->b_path, O_RDWR | O_CREAT | O_CLOEXEC, 0640));
	b_open(f);
}

/* As a follower gets it: an empty file, a first transaction in rollback mode, then WAL. */
static void start_wal(struct fixture *f, unsigned page_size)
{
	start(f, page_size);
	assert_int_equal(wrep_conn_fence_close(f->b, false), 0);
	assert_int_equal(wrep_conn_apply_direct(f->b, next_txn(f, true)), 0);
	assert_int_equal(wrep_conn_fence_close(f->b, true), 0);
	assert_true(wrep_conn_fence_closed(f->b));
}

static void stop(struct fixture *f)
{
	static const char *const names[] = {"a.db", "b.db", "b.db-wal", "b.db-shm"};

	assert_false(f->published_early);
	assert_false(f->written_early);
	wrep_conn_close(f->b);
	sqlite3_close(f->a);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unlinkat(f->dir_fd, names[i], 0);
	close(f->dir_fd);
	assert_int_equal(rmdir(f->dir), 0);
	free(f->image);
	free(f->pgnos);
	free(f->images);
	alarm(0);
}

static bool exists(struct fixture *f, const char *name)
{
	return faccessat(f->dir_fd, name, F_OK, 0) == 0;
}

static void app_open(struct app *app, struct fixture *f)
{
	app_start(app);
	assert_int_equal(app_say(app, 'o', f->b_path).rc, SQLITE_OK);
}

/* ---- applying beside readers ---------------------------------------------------------------- */

struct storm {
	_Atomic unsigned applied; /* what a reader that starts now must see at least */
	_Atomic bool stop;
	_Atomic unsigned reads;
	_Atomic bool failed;
	char why[200];
};

static void storm_fail(struct storm *s, const char *what, int rc, const char *text)
{
	snprintf(s->why, sizeof(s->why), "%s: rc=%d %.100s", what, rc, text);
	s->failed = true;
	_exit(1);
}

/* A reader that never rests: each snapshot whole, valid, not older than what was applied when it
 * began, and the same until its end. Once it is in, it is never told to wait. (Coming in may meet
 * another application that is leaving, and tries whether it is the last: then SQLite says BUSY.) */
static void storm_reader(struct storm *s, const char *path, bool reopens)
{
	sqlite3 *db = NULL;
	unsigned last = 0;

	if (!load_stock())
		storm_fail(s, "load", 0, "libsqlite3.so.0");
	while (!s->stop) {
		unsigned least;
		struct answer a = {0}, again = {0}, check = {0};

		if (!db && (stock.open(path, &db) ||
			    stock.exec(db,
				       "PRAGMA busy_timeout=5000; SELECT * FROM meta;"
				       "PRAGMA busy_timeout=0",
				       NULL, NULL, NULL)))
			storm_fail(s, "open", 0, path);
		least = s->applied > last ? s->applied : last;

		a.rc = stock.exec(db, "BEGIN; " SUM_QUERY, keep_row, &a, NULL);
		if (a.rc || !strstr(a.text, "|1"))
			storm_fail(s, "torn snapshot", a.rc, a.text);
		last = (unsigned)atoi(a.text);
		if (last < least)
			storm_fail(s, "an old snapshot", (int)least, a.text);
		check.rc = stock.exec(db, "PRAGMA integrity_check", keep_row, &check, NULL);
		if (check.rc || strcmp(check.text, "ok") != 0)
			storm_fail(s, "integrity_check", check.rc, check.text);
		again.rc = stock.exec(db, SUM_QUERY, keep_row, &again, NULL);
		if (again.rc || strcmp(a.text, again.text) != 0)
			storm_fail(s, "the snapshot moved", again.rc, again.text);
		a.rc = stock.exec(db, "COMMIT", NULL, NULL, NULL);
		if (a.rc)
			storm_fail(s, "COMMIT", a.rc, "");
		s->reads++;
		if (reopens && s->reads % 20 == 0) {
			stock.close(db);
			db = NULL;
		}
	}
	stock.close(db);
	_exit(0);
}

static void apply_beside_readers_keeps_every_snapshot(void **state)
{
	struct fixture f;
	struct app slow;
	struct storm *s;
	pid_t readers[2];
	char held[32] = "";
	(void)state;

	start_wal(&f, 4096);
	s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < 2; i++) {
		readers[i] = fork();
		if (readers[i] == 0) {
			become_application(-1, -1);
			storm_reader(s, f.b_path, i == 1);
		}
	}
	app_open(&slow, &f);

	for (unsigned i = 1; i <= 2000 && !s->failed; i++) {
		a_random(&f);
		assert_int_equal(wrep_conn_apply_wal(f.b, next_txn(&f, true)), 0);
		s->applied = f.version;
		if (i % 40 == 0) {
			int r = wrep_conn_checkpoint(f.b, i % 200 == 0, NULL, NULL);

			assert_true(r == 0 || r == -EBUSY);
		}
		if (i % 300 == 100) { /* for 200 transactions and some checkpoints */
			assert_int_equal(app_exec(&slow, "BEGIN"), SQLITE_OK);
			snprintf(held, sizeof(held), "%u|1", f.version);
			app_expect(&slow, SUM_QUERY, held);
		} else if (i % 300 == 0) {
			app_expect(&slow, SUM_QUERY, held);
			app_expect(&slow, "PRAGMA integrity_check", "ok");
			assert_int_equal(app_exec(&slow, "COMMIT"), SQLITE_OK);
			app_expect_version(&slow, f.version);
		}
	}
	s->stop = true;
	for (int i = 0; i < 2; i++)
		waitpid(readers[i], NULL, 0);
	if (s->failed)
		fail_msg("%s", s->why);
	assert_true(s->reads > 50);
	app_stop(&slow, 0);
	assert_int_equal(wrep_conn_checkpoint(f.b, true, NULL, NULL), 0);
	expect_equal(&f);
	assert_true(f.invalidations > 4000);
	munmap(s, sizeof(*s));
	stop(&f);
}

static void apply_every_page_size_equals_the_source(void **state)
{
	static const unsigned sizes[] = {512, 1024, 4096, 16384, 65536};
	struct fixture f;
	struct app app;
	(void)state;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint32_t frames, copied;

		start_wal(&f, sizes[i]);
		app_open(&app, &f);
		apply_random(&f, 60);
		app_expect_version(&app, f.version);
		assert_int_equal(wrep_conn_checkpoint(f.b, false, &frames, &copied), 0);
		assert_int_equal(frames, copied);
		assert_true(frames > 0);
		expect_equal(&f);
		apply_random(&f, 5);
		app_expect_version(&app, f.version);
		app_stop(&app, 0);
		stop(&f);
	}
}

static void apply_smaller_database_truncates_at_checkpoint(void **state)
{
	struct fixture f;
	struct app app;
	uint32_t big;
	(void)state;

	start_wal(&f, 4096);
	app_open(&app, &f);
	for (int i = 0; i < 30; i++)
		a_commit(&f, "INSERT INTO t(x) VALUES (randomblob(20000))");
	assert_int_equal(wrep_conn_apply_wal(f.b, next_txn(&f, true)), 0);
	assert_int_equal(wrep_conn_checkpoint(f.b, true, NULL, NULL), 0);
	big = f.page_count;
	a_commit(&f, "DELETE FROM t WHERE id > 2");
	a_exec(&f, "VACUUM");
	assert_int_equal(wrep_conn_apply_wal(f.b, next_txn(&f, true)), 0);
	assert_true(f.page_count < big / 2);
	app_expect_version(&app, f.version);
	assert_int_equal(wrep_conn_checkpoint(f.b, true, NULL, NULL), 0);
	expect_equal(&f);
	a_commit(&f, "INSERT INTO t(x) VALUES (randomblob(300000))"); /* and grow again */
	assert_int_equal(wrep_conn_apply_wal(f.b, next_txn(&f, true)), 0);
	app_expect_version(&app, f.version);
	app_stop(&app, 0);
	stop(&f);
}

static void wal_with_checkpoints_starts_over(void **state)
{
	struct fixture f;
	struct app app;
	struct stat st;
	uint32_t frames, copied, most = 0;
	(void)state;

	start_wal(&f, 4096);
	app_open(&app, &f);
	for (int i = 0; i < 500; i++) {
		a_commit(&f, "INSERT INTO t(x) VALUES (randomblob(100))");
		assert_int_equal(wrep_conn_apply_wal(f.b, next_txn(&f, true)), 0);
		if (i % 20 == 0) {
			assert_int_equal(wrep_conn_checkpoint(f.b, false, &frames, &copied), 0);
			most = frames > most ? frames : most;
			app_expect_version(&app, f.version);
		}
	}
	assert_true(most < 200);
	assert_int_equal(fstatat(f.dir_fd, "b.db-wal", &st, 0), 0);
	assert_int_equal(st.st_size, 1 << 20); /* one step of growth holds them all */

	/* A reader of an old snapshot keeps what it needs and nothing is refused. */
	assert_int_equal(app_exec(&app, "BEGIN; SELECT * FROM meta"), SQLITE_OK);
	a_commit(&f, "INSERT INTO t(x) VALUES (1)");
	assert_int_equal(wrep_conn_apply_wal(f.b, next_txn(&f, true)), 0);
	assert_int_equal(wrep_conn_checkpoint(f.b, true, &frames, &copied), -EBUSY);
	assert_true(copied < frames);
	assert_int_equal(app_exec(&app, "COMMIT"), SQLITE_OK);
	assert_int_equal(wrep_conn_checkpoint(f.b, true, &frames, &copied), 0);
	assert_int_equal(frames, 0);
	assert_int_equal(fstatat(f.dir_fd, "b.db-wal", &st, 0), 0);
	assert_int_equal(st.st_size, 0);
	app_stop(&app, 0);
	stop(&f);
}

static void wal_grows_once_no_former_size_can_come_back(void **state)
{
	struct fixture f;
	struct app app;
	unsigned before;
	(void)state;

	start_wal(&f, 4096);
	app_open(&app, &f);
	app_expect_version(&app, 0);
	/* in large steps */
	before = f.settlements;
	apply_random(&f, 20);
	assert_true(f.settlements <= before + 1);
	a_commit(&f, "INSERT INTO t(x) VALUES (randomblob(2000000))");
	f.settle_error = -EAGAIN;
	assert_int_equal(wrep_conn_apply_wal(f.b, next_txn(&f, true)), -EBUSY);
	app_expect_version(&app, f.version - 1);
	f.settle_error = 0;
	assert_int_equal(wrep_conn_apply_wal(f.b, &f.txn), 0);
	assert_true(f.settlements >= before + 2);
	app_expect_version(&app, f.version);
	app_stop(&app, 0);
	stop(&f);
}

static void wal_of_unknown_size_is_tried_again(void **state)
{
	struct fixture f;
	struct app app;
	char failure[WREP_CONN_FAILURE_MAX];
	int fd;
	(void)state;

	start(&f, 4096);
	f.wal_unknown = true;
	assert_int_equal(wrep_conn_fence_close(f.b, false), 0);
	assert_int_equal(wrep_conn_apply_direct(f.b, next_txn(&f, true)), 0);
	assert_int_equal(wrep_conn_fence_close(f.b, true), 0);
	app_open(&app, &f);
	a_commit(&f, "INSERT INTO t(x) VALUES (randomblob(2000))");
	assert_int_equal(wrep_conn_apply_wal(f.b, next_txn(&f, true)), -EBUSY);
	assert_true(wrep_conn_waits_for_size(f.b));
	wrep_conn_failure(f.b, -EBUSY, failure);
	assert_string_equal(failure,
			    " sqlite=5 call=\"statx of the mounted file\" call_error=too short");
	app_expect_version(&app, f.version - 1);
	/* it takes the size in */
	fd = openat(f.dir_fd, "unknown", O_RDWR | O_CLOEXEC);
	assert_int_equal(ftruncate(fd, wal_size(&f)), 0);
	close(fd);
	assert_int_equal(wrep_conn_apply_wal(f.b, &f.txn), 0);
	assert_false(wrep_conn_waits_for_size(f.b));
	app_expect_version(&app, f.version);
	app_stop(&app, 0);
	assert_int_equal(unlinkat(f.dir_fd, "unknown", 0), 0);
	stop(&f);
}

static void wal_that_goes_while_it_is_opened_is_tried_again(void **state)
{
	static const int errors[] = {-ENOENT, -ESTALE};
	struct fixture f;
	char failure[WREP_CONN_FAILURE_MAX];
	struct app app;
	(void)state;

	start(&f, 4096);
	assert_int_equal(wrep_conn_fence_close(f.b, false), 0);
	f.wal_error = errors[0];
	assert_int_equal(wrep_conn_apply_direct(f.b, next_txn(&f, true)), 0);
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		f.wal_error = errors[i];
		assert_int_equal(wrep_conn_fence_close(f.b, true), -EBUSY);
	}
	wrep_conn_failure(f.b, -EIO, failure);
	assert_non_null(strstr(failure, "call=\"open of the mounted -wal\" call_error=Stale"));
	f.wal_error = 0;
	assert_int_equal(wrep_conn_fence_close(f.b, true), 0);
	app_open(&app, &f);
	app_expect_version(&app, 0);
	apply_random(&f, 3);
	app_expect_version(&app, f.version);
	app_stop(&app, 0);
	stop(&f);
}

static void failure_tells_the_code_and_the_call(void **state)
{
	struct fixture f;
	char failure[WREP_CONN_FAILURE_MAX];
	(void)state;

	start(&f, 4096);
	f.wal_error = -EIO;
	assert_int_equal(wrep_conn_fence_close(f.b, false), 0);
	assert_int_equal(wrep_conn_apply_direct(f.b, next_txn(&f, true)), -EIO);
	wrep_conn_failure(f.b, -EIO, failure);
	assert_string_equal(failure, " sqlite=14 call=\"open of the mounted -wal\" "
				     "call_error=Input/output error");
	wrep_conn_failure(f.b, -ENOSPC, failure);
	assert_string_equal(failure, "");
	f.wal_error = 0;
	assert_int_equal(wrep_conn_fence_close(f.b, true), 0);
	wrep_conn_failure(f.b, -EIO, failure);
	assert_string_equal(failure, "");
	stop(&f);
}

static void apply_invalid_transaction_refused(void **state)
{
	struct fixture f;
	struct wrep_conn_txn txn;
	uint32_t pgnos[2] = {2, 1};
	(void)state;

	start_wal(&f, 4096);
	a_random(&f);
	txn = *next_txn(&f, true);
	assert_int_equal(wrep_conn_apply_direct(f.b, &txn), -EINVAL);
	txn.page_size = 8192;
	assert_int_equal(wrep_conn_apply_wal(f.b, &txn), -EINVAL);
	txn = f.txn;
	txn.image_count = 0;
	assert_int_equal(wrep_conn_apply_wal(f.b, &txn), -EINVAL);
	txn.image_count = 2;
	txn.pgnos = pgnos;
	assert_int_equal(wrep_conn_apply_wal(f.b, &txn), -EINVAL);
	assert_int_equal(wrep_conn_apply_wal(f.b, &f.txn), 0);
	wrep_conn_fence_open(f.b);
	assert_int_equal(wrep_conn_apply_wal(f.b, &f.txn), -EINVAL);
	stop(&f);
}

/* ---- the fence ------------------------------------------------------------------------------- */

static void fence_closed_keeps_writers_out(void **state, bool wal)
{
	struct fixture f;
	struct app app;
	(void)state;

	start_wal(&f, 4096);
	if (!wal) {
		assert_int_equal(wrep_conn_fence_close(f.b, false), 0);
		assert_int_equal(wrep_conn_apply_direct(f.b, next_txn(&f, false)), 0);
	}
	app_open(&app, &f);
	app_expect_version(&app, 0);
	assert_int_equal(app_exec(&app, "INSERT INTO t(x) VALUES (1)"), SQLITE_BUSY);
	assert_int_equal(app_exec(&app, "BEGIN IMMEDIATE"), SQLITE_BUSY);
	assert_int_equal(wrep_conn_fence_close(f.b, wal), 0);
	assert_int_equal(app_exec(&app, "BEGIN IMMEDIATE"), SQLITE_BUSY);
	app_expect_version(&app, 0);

	wrep_conn_fence_open(f.b);
	assert_false(wrep_conn_fence_closed(f.b));
	assert_int_equal(app_exec(&app, "BEGIN; UPDATE meta SET v = 7"), SQLITE_OK);
	assert_int_equal(wrep_conn_fence_close(f.b, wal), -EBUSY);
	assert_false(wrep_conn_fence_closed(f.b));
	assert_int_equal(app_exec(&app, "COMMIT"), SQLITE_OK);
	assert_int_equal(wrep_conn_fence_close(f.b, wal), 0);
	assert_int_equal(app_exec(&app, "UPDATE meta SET v = 8"), SQLITE_BUSY);
	app_expect_version(&app, 7);

	/* A connection that is gone without a word leaves no lock. */
	wrep_conn_close(f.b);
	b_open(&f);
	assert_int_equal(app_exec(&app, "UPDATE meta SET v = 8"), SQLITE_OK);
	app_stop(&app, 0);
	stop(&f);
}

static void fence_in_wal_mode_keeps_writers_out(void **state)
{
	fence_closed_keeps_writers_out(state, true);
}

static void fence_in_rollback_mode_keeps_writers_out(void **state)
{
	fence_closed_keeps_writers_out(state, false);
}

static void attached_application_deletes_nothing(void **state)
{
	struct fixture f;
	struct app app;
	struct answer a;
	(void)state;

	start_wal(&f, 4096);
	apply_random(&f, 3);
	wrep_conn_fence_open(f.b);
	app_open(&app, &f);
	assert_int_equal(app_exec(&app, "UPDATE t SET x = 1"), SQLITE_OK);
	a = app_say(&app, 'x', "PRAGMA journal_mode=DELETE");
	assert_true(a.rc == SQLITE_BUSY || strcmp(a.text, "wal") == 0);
	assert_int_equal(app_say(&app, 'c', "").rc, SQLITE_OK);
	assert_true(exists(&f, "b.db-wal"));
	assert_true(exists(&f, "b.db-shm"));
	app_stop(&app, 0);
	stop(&f);
}

static void fence_joins_running_application(void **state)
{
	struct fixture f;
	struct app app;
	(void)state;

	/* The application came first: the wal-index is its, and its transactions are in it. */
	start_wal(&f, 4096);
	wrep_conn_close(f.b);
	app_open(&app, &f);
	assert_int_equal(app_exec(&app, "BEGIN; UPDATE meta SET v = 5; COMMIT"), SQLITE_OK);
	assert_int_equal(app_exec(&app, "BEGIN IMMEDIATE; UPDATE meta SET v = 6"), SQLITE_OK);
	b_open(&f);
	assert_int_equal(wrep_conn_fence_close(f.b, true), -EBUSY);
	assert_int_equal(app_exec(&app, "COMMIT"), SQLITE_OK);
	assert_int_equal(wrep_conn_fence_close(f.b, true), 0);
	app_expect_version(&app, 6);
	app_stop(&app, SIGKILL);

	/* The daemon is alone, then an application joins: the wal-index is not emptied under us. */
	app_open(&app, &f);
	app_expect_version(&app, 6);
	app_stop(&app, 0);
	stop(&f);
}

static void fence_close_without_wal_says_so(void **state)
{
	struct fixture f;
	(void)state;

	start(&f, 4096);
	assert_int_equal(wrep_conn_fence_close(f.b, false), 0);
	assert_int_equal(wrep_conn_apply_direct(f.b, next_txn(&f, false)), 0);
	assert_int_equal(wrep_conn_fence_close(f.b, true), -EINVAL);
	assert_true(wrep_conn_fence_closed(f.b)); /* the other one, still */
	stop(&f);
}

/* ---- rollback mode -------------------------------------------------------------------------- */

static void direct_apply_waits_for_readers(void **state)
{
	struct fixture f;
	struct app old, new;
	(void)state;

	start(&f, 1024);
	assert_int_equal(wrep_conn_apply_direct(f.b, next_txn(&f, false)), -EINVAL);
	assert_int_equal(wrep_conn_fence_close(f.b, false), 0);
	assert_int_equal(wrep_conn_apply_direct(f.b, &f.txn), 0);
	app_open(&old, &f);
	app_open(&new, &f);
	assert_int_equal(app_exec(&old, "BEGIN; SELECT * FROM meta"), SQLITE_OK);

	a_random(&f);
	next_txn(&f, false);
	assert_int_equal(wrep_conn_apply_direct(f.b, &f.txn), -EBUSY);
	assert_int_equal(app_exec(&new, "SELECT * FROM meta"), SQLITE_BUSY);
	app_expect_version(&old, 0);
	assert_int_equal(wrep_conn_apply_direct(f.b, &f.txn), -EBUSY);
	assert_int_equal(app_exec(&old, "COMMIT"), SQLITE_OK);
	assert_int_equal(wrep_conn_apply_direct(f.b, &f.txn), 0);
	app_expect_version(&new, 1);
	app_expect_version(&old, 1);
	expect_equal(&f);

	for (int i = 0; i < 100; i++) {
		a_random(&f);
		assert_int_equal(wrep_conn_apply_direct(f.b, next_txn(&f, false)), 0);
		if (i % 10 == 0)
			app_expect_version(i % 20 ? &new : &old, f.version);
	}
	a_exec(&f, "DELETE FROM t WHERE id > 3");
	a_commit(&f, "SELECT 1");
	a_exec(&f, "PRAGMA page_size=8192; VACUUM"); /* another page size, a smaller file */
	assert_int_equal(wrep_conn_apply_direct(f.b, next_txn(&f, false)), 0);
	assert_int_equal(f.page_size, 8192);
	expect_equal(&f);
	app_expect_version(&new, f.version);
	app_expect_version(&old, f.version);
	app_stop(&old, 0);
	app_stop(&new, 0);
	stop(&f);
}

static void mode_there_and_back_lets_nobody_between(void **state)
{
	struct fixture f;
	struct app app, late;
	(void)state;

	start(&f, 4096);
	assert_int_equal(wrep_conn_fence_close(f.b, false), 0);
	assert_int_equal(wrep_conn_apply_direct(f.b, next_txn(&f, false)), 0);
	app_open(&app, &f);
	app_open(&late, &f);
	app_expect_version(&app, 0);

	for (int round = 0; round < 3; round++) {
		/* into WAL mode */
		a_random(&f);
		assert_int_equal(wrep_conn_apply_direct(f.b, next_txn(&f, true)), 0);
		assert_true(wrep_conn_fence_closed(f.b));
		assert_true(exists(&f, "b.db-wal"));
		app_expect_version(&app, f.version);
		assert_int_equal(app_exec(&app, "UPDATE meta SET v = 0"), SQLITE_BUSY);
		assert_int_equal(wrep_conn_fence_close(f.b, true), 0);
		assert_int_equal(app_exec(&app, "UPDATE meta SET v = 0"), SQLITE_BUSY);
		app_expect(&app, "PRAGMA journal_mode", "wal");
		apply_random(&f, 20);
		app_expect_version(&app, f.version);

		/* and out of it: whoever is there must leave first, and nobody comes in */
		a_random(&f);
		next_txn(&f, false);
		assert_int_equal(wrep_conn_fence_close(f.b, false), -EBUSY);
		assert_true(wrep_conn_fence_closed(f.b));
		assert_int_equal(wrep_conn_fence_close(f.b, true), 0);
		assert_int_equal(wrep_conn_fence_close(f.b, false), -EBUSY);
		assert_int_equal(app_exec(&late, "SELECT * FROM meta"), SQLITE_BUSY);
		app_expect_version(&app, f.version - 1);
		assert_int_equal(app_say(&app, 'c', "").rc, SQLITE_OK);
		assert_int_equal(app_say(&app, 'o', f.b_path).rc, SQLITE_OK);
		assert_int_equal(wrep_conn_fence_close(f.b, false), 0);
		assert_true(wrep_conn_fence_closed(f.b));
		assert_int_equal(app_exec(&app, "SELECT * FROM meta"), SQLITE_BUSY);
		assert_int_equal(wrep_conn_apply_direct(f.b, &f.txn), 0);
		assert_false(exists(&f, "b.db-wal"));
		assert_false(exists(&f, "b.db-shm"));
		assert_int_equal(f.removals, 2 * (round + 1));
		expect_equal(&f);
		app_expect_version(&app, f.version);
		app_expect(&app, "PRAGMA journal_mode", "delete");
		assert_int_equal(app_exec(&app, "UPDATE meta SET v = 0"), SQLITE_BUSY);
	}
	app_stop(&app, 0);
	app_stop(&late, 0);
	stop(&f);
}

static void side_files_belong_to_the_owner_of_the_database(void **state)
{
	struct fixture f;
	struct stat db, wal;
	(void)state;

	start(&f, 4096);
	if (geteuid() == 0)
		assert_int_equal(chown(f.b_path, 12345, 54321), 0);
	assert_int_equal(wrep_conn_fence_close(f.b, false), 0);
	assert_int_equal(wrep_conn_apply_direct(f.b, next_txn(&f, true)), 0);
	assert_int_equal(wrep_conn_fence_close(f.b, true), 0);
	assert_int_equal(stat(f.b_path, &db), 0);
	assert_int_equal(fstatat(f.dir_fd, "b.db-wal", &wal, 0), 0);
	assert_int_equal(db.st_uid, wal.st_uid);
	assert_int_equal(db.st_gid, wal.st_gid);
	assert_int_equal(wal.st_mode & 07777, 0640);
	stop(&f);
}

/* ---- a writer that died before it updated the wal-index -------------------------------------- */

/* The wal-index as it was at `header`, behind a transaction that is in the -wal already. */
static void dead_writer_is_repaired(bool fence)
{
	struct fixture f;
	struct app app;
	uint8_t header[96], wal[32];
	uint32_t salt[2], frames;
	int shm, fd;

	start_wal(&f, 4096);
	app_open(&app, &f);
	apply_random(&f, 10);
	app_expect_version(&app, f.version);
	shm = openat(f.dir_fd, "b.db-shm", O_RDWR | O_CLOEXEC);
	assert_int_equal(pread(shm, header, sizeof(header), 0), sizeof(header));
	apply_random(&f, 1);
	assert_int_equal(pwrite(shm, header, sizeof(header), 0), sizeof(header));
	app_expect_version(&app, f.version - 1);

	fd = openat(f.dir_fd, "b.db-wal", O_RDONLY | O_CLOEXEC);
	assert_int_equal(pread(fd, wal, sizeof(wal), 0), sizeof(wal));
	memcpy(salt, wal + 16, sizeof(salt));
	/* zeros follow the last frame: the file grows in steps */
	for (frames = 0;; frames++) {
		uint32_t pgno = 0;

		assert_true(pread(fd, &pgno, 4, 32 + (off_t)frames * (4096 + 24)) >= 0);
		if (!pgno)
			break;
	}
	if (!fence)
		wrep_conn_fence_open(f.b);
	assert_int_equal(wrep_wal_index_repair(shm, frames, salt), 1);
	assert_int_equal(wrep_wal_index_repair(shm, frames, salt), 0);
	if (fence) /* nobody else can recover it then */
		assert_int_equal(wrep_conn_fence_close(f.b, true), 0);
	app_expect_version(&app, f.version);
	assert_int_equal(wrep_wal_index_repair(shm, frames, salt), 0);
	assert_int_equal(wrep_conn_fence_close(f.b, true), 0);
	apply_random(&f, 10);
	app_expect_version(&app, f.version);
	close(fd);
	close(shm);
	app_stop(&app, 0);
	stop(&f);
}

static void dead_writer_with_open_fence_next_reader_recovers(void **state)
{
	(void)state;
	dead_writer_is_repaired(false);
}

static void dead_writer_with_closed_fence_recovered_by_closing_it(void **state)
{
	(void)state;
	dead_writer_is_repaired(true);
}

static void apply_on_invalid_index_recovers_first(void **state)
{
	struct fixture f;
	struct app app;
	uint8_t zero = 0;
	int shm;
	(void)state;

	start_wal(&f, 4096);
	apply_random(&f, 10);
	app_open(&app, &f);
	app_expect_version(&app, f.version);
	shm = openat(f.dir_fd, "b.db-shm", O_RDWR | O_CLOEXEC);
	assert_int_equal(pwrite(shm, &zero, 1, 12), 1);
	assert_int_equal(pwrite(shm, &zero, 1, 60), 1);
	apply_random(&f, 1);
	app_expect_version(&app, f.version);
	assert_int_equal(wrep_conn_checkpoint(f.b, true, NULL, NULL), 0);
	expect_equal(&f);
	close(shm);
	app_stop(&app, 0);
	stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(apply_beside_readers_keeps_every_snapshot),
		cmocka_unit_test(apply_every_page_size_equals_the_source),
		cmocka_unit_test(apply_smaller_database_truncates_at_checkpoint),
		cmocka_unit_test(wal_with_checkpoints_starts_over),
		cmocka_unit_test(wal_grows_once_no_former_size_can_come_back),
		cmocka_unit_test(wal_of_unknown_size_is_tried_again),
		cmocka_unit_test(wal_that_goes_while_it_is_opened_is_tried_again),
		cmocka_unit_test(failure_tells_the_code_and_the_call),
		cmocka_unit_test(apply_invalid_transaction_refused),
		cmocka_unit_test(fence_in_wal_mode_keeps_writers_out),
		cmocka_unit_test(fence_in_rollback_mode_keeps_writers_out),
		cmocka_unit_test(attached_application_deletes_nothing),
		cmocka_unit_test(fence_joins_running_application),
		cmocka_unit_test(fence_close_without_wal_says_so),
		cmocka_unit_test(direct_apply_waits_for_readers),
		cmocka_unit_test(mode_there_and_back_lets_nobody_between),
		cmocka_unit_test(side_files_belong_to_the_owner_of_the_database),
		cmocka_unit_test(dead_writer_with_open_fence_next_reader_recovers),
		cmocka_unit_test(dead_writer_with_closed_fence_recovered_by_closing_it),
		cmocka_unit_test(apply_on_invalid_index_recovers_first),
	};

	if (!load_stock()) {
		printf("1..0 # SKIP the applications here need libsqlite3.so.0\n");
		return 0;
	}
	if (wrep_conn_init())
		return 1;
	return cmocka_run_group_tests_name("walrepl_conn", tests, NULL, NULL);
}
