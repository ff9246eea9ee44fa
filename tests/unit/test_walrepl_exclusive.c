/* When sessions are looked at, and what the first write of one waits for; the host is the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>
#include "sqlite/file_format.h"
#include "txn/exclusive.h"
#include "base/wrep.h"
#include "base/work.h"
#include "db/db.h"
#include "db/pin.h"
#include "db/table.h"
#include "file/file.h"
#include "txn/commit.h"
#include "txn/streaming.h"
#include "txn/unjournaled.h"

#define NUMBER 7

static struct wrep w;
static struct wrep_db db;
static struct wrep_file file;
static _Atomic int watch_result, watched, looks, lines, last_result, told;
static _Atomic bool goes_on;
/* What the host has to tell when it is asked to the next time. */
static pthread_mutex_t calls_lock = PTHREAD_MUTEX_INITIALIZER;
static struct wrep_lock_call next_call;
static bool has_call;

static int host_watch(void *ctx, uint64_t byte, bool on)
{
	assert_int_equal(byte, WREP_SHARED_FIRST);
	if (on && watch_result)
		return watch_result;
	watched = on;
	return 0;
}

static void host_read(void *ctx)
{
	struct wrep_lock_call call;
	bool has;

	pthread_mutex_lock(&calls_lock);
	has = has_call;
	call = next_call;
	has_call = false;
	pthread_mutex_unlock(&calls_lock);
	if (has)
		wrep_lock_called(&w, &call);
}

static void host_wait(void *ctx, int timeout_ms)
{
	usleep(1000);
	host_read(ctx);
}

static uint64_t host_number(void *ctx, struct wrep_file *f)
{
	return NUMBER;
}

static void host_log(void *ctx, char level, const char *line)
{
	lines++;
}

static bool look(struct wrep_db *at)
{
	assert_ptr_equal(at, &db);
	looks++;
	pthread_mutex_lock(&db.lock);
	if (!goes_on)
		db.unjournaled.active = false;
	pthread_mutex_unlock(&db.lock);
	return goes_on;
}

static void done(struct wrep_op *op, int result)
{
	last_result = result;
	told++;
}

static void call(uint64_t number, int type, int result)
{
	pthread_mutex_lock(&calls_lock);
	next_call = (struct wrep_lock_call){
		.number = number,
		.first = WREP_SHARED_FIRST,
		.last = WREP_SHARED_FIRST + 509,
		.type = type,
		.result = result,
	};
	has_call = true;
	pthread_mutex_unlock(&calls_lock);
}

static void begin_session(void)
{
	pthread_mutex_lock(&db.lock);
	db.unjournaled.active = true;
	wrep_exclusive_begin(&db);
	pthread_mutex_unlock(&db.lock);
}

static bool retaken(void)
{
	bool is;

	pthread_mutex_lock(&db.lock);
	is = wrep_exclusive_retaken(&db);
	pthread_mutex_unlock(&db.lock);
	return is;
}

static int setup(void **state)
{
	memset(&w, 0, sizeof(w));
	memset(&db, 0, sizeof(db));
	w.config.host = (struct wrep_host){
		.watch_locks = host_watch,
		.read_lock_calls = host_read,
		.wait_lock_calls = host_wait,
		.number_of = host_number,
		.log = host_log,
	};
	db.refs = 1000;
	db.w = &w;
	db.name = "x.db";
	db.files[WREP_DB] = &file;
	pthread_mutex_init(&db.lock, NULL);
	watch_result = watched = looks = lines = told = 0;
	goes_on = true;
	has_call = false;
	alarm(60);
	return wrep_exclusive_start(&w, look);
}

static int teardown(void **state)
{
	wrep_exclusive_stop(&w);
	assert_false(watched);
	return 0;
}

static void first_write_waits_until_the_host_tells(void **state)
{
	struct wrep_op op = {.done = done};

	assert_true(wrep_exclusive_must_wait(&db));
	assert_int_equal(wrep_exclusive_wait(&db, &op), WREP_PENDING);
	while (!told)
		usleep(1000);
	assert_int_equal(last_result, -EINTR);
	assert_true(watched);
	assert_false(wrep_exclusive_must_wait(&db));
	/* and for a moment longer than it is needed */
	while (watched)
		usleep(1000);
	assert_true(wrep_exclusive_must_wait(&db));
}

static void session_that_may_end_by_fsync_waits_for_nothing(void **state)
{
	db.syncs = true;
	goes_on = false;
	assert_false(wrep_exclusive_must_wait(&db));
	begin_session();
	pthread_mutex_lock(&db.lock);
	db.unjournaled.active = false;
	pthread_mutex_unlock(&db.lock);
	while (!looks)
		usleep(1000);
	assert_false(watched);
}

static void lock_taken_since_the_last_write_is_told_once(void **state)
{
	struct wrep_op op = {.done = done};

	if (wrep_exclusive_wait(&db, &op) == WREP_PENDING)
		while (!told)
			usleep(1000);
	call(NUMBER, F_WRLCK, 0); /* by which the session begins */
	begin_session();
	assert_false(retaken());
	call(NUMBER, F_WRLCK, -EAGAIN);
	assert_false(retaken());
	call(NUMBER + 1, F_WRLCK, 0);
	assert_false(retaken());
	call(NUMBER, F_UNLCK, 0);
	assert_false(retaken());
	call(NUMBER, F_WRLCK, 0);
	assert_true(retaken());
	assert_false(retaken());
}

static void released_lock_is_looked_at_until_the_session_ends(void **state)
{
	struct wrep_op op = {.done = done};
	int before;

	if (wrep_exclusive_wait(&db, &op) == WREP_PENDING)
		while (!told)
			usleep(1000);
	begin_session();
	before = looks;
	call(NUMBER, F_RDLCK, 0);
	while (looks == before)
		usleep(1000);
	goes_on = false;
	call(NUMBER, F_UNLCK, 0);
	for (bool there = true; there; usleep(1000)) {
		pthread_mutex_lock(&db.lock);
		there = db.watched;
		pthread_mutex_unlock(&db.lock);
	}
}

static void host_that_cannot_tell_is_named_once_and_sessions_are_looked_at(void **state)
{
	struct wrep_op op = {.done = done};

	watch_result = -EPERM;
	assert_int_equal(wrep_exclusive_wait(&db, &op), WREP_PENDING);
	while (!told)
		usleep(1000);
	assert_int_equal(last_result, -EINTR);
	for (int i = 0; i < 3; i++) {
		assert_false(wrep_exclusive_must_wait(&db));
		goes_on = true;
		begin_session();
		while (looks < 5 * (i + 1))
			usleep(1000);
		goes_on = false;
		while (db.unjournaled.active)
			usleep(1000);
	}
	assert_int_equal(lines, 1);
}

static void write_that_waits_at_the_end_fails(void **state)
{
	struct wrep_op op = {.done = done};
	int rc;

	begin_session(); /* nobody switches anything on for it: it is looked at, and goes on */
	wrep_exclusive_stop(&w);
	assert_null(db.watched);
	assert_int_equal(wrep_exclusive_start(&w, look), 0);
	rc = wrep_exclusive_wait(&db, &op);
	wrep_exclusive_stop(&w);
	if (rc == WREP_PENDING) {
		assert_int_equal(told, 1);
		assert_true(last_result == -EIO || last_result == -EINTR);
	}
	assert_int_equal(wrep_exclusive_start(&w, look), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(first_write_waits_until_the_host_tells, setup,
						teardown),
		cmocka_unit_test_setup_teardown(session_that_may_end_by_fsync_waits_for_nothing,
						setup, teardown),
		cmocka_unit_test_setup_teardown(lock_taken_since_the_last_write_is_told_once, setup,
						teardown),
		cmocka_unit_test_setup_teardown(released_lock_is_looked_at_until_the_session_ends,
						setup, teardown),
		cmocka_unit_test_setup_teardown(
			host_that_cannot_tell_is_named_once_and_sessions_are_looked_at, setup,
			teardown),
		cmocka_unit_test_setup_teardown(write_that_waits_at_the_end_fails, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
