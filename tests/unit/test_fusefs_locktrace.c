/* Being told of lock calls by the kernel, of a file on a tmpfs, whose device's major number is 0 like a
 * mount's. */
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
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>
#include "mount/locktrace.h"

#define BYTE 100
#define CALLS_MAX 64

static char path[] = "/dev/shm/fsd-locktrace-XXXXXX";
static int fd = -1;
static struct stat about;
static struct fsd_locktrace *trace;
static struct wrep_lock_call calls[CALLS_MAX];
static unsigned call_count, lost_count;

/* On that tmpfs may be files of others, too: this program may run twice at once. */
static void each(void *ctx, const struct wrep_lock_call *call)
{
	assert_ptr_equal(ctx, trace);
	if (!call)
		lost_count++;
	else if (call->number == about.st_ino && call_count++ < CALLS_MAX)
		calls[call_count - 1] = *call;
}

static void switch_on(void)
{
	int rv = fsd_locktrace_on(trace, minor(about.st_dev), BYTE, each, trace);

	if (rv == -EPERM || rv == -EACCES || rv == -ENOENT || rv == -ENOSYS) {
		print_message("# skipped, the kernel does not tell: %s\n", strerror(-rv));
		skip();
	}
	assert_int_equal(rv, 0);
}

static int setup(void **state)
{
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &about), 0);
	trace = fsd_locktrace_new();
	assert_non_null(trace);
	return major(about.st_dev);
}

static int begin(void **state)
{
	call_count = lost_count = 0;
	return 0;
}

static int end(void **state)
{
	fsd_locktrace_off(trace);
	return 0;
}

static int teardown(void **state)
{
	fsd_locktrace_free(trace);
	close(fd);
	return unlink(path);
}

static int lock(short type, off_t start)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 2};

	return fcntl(fd, F_SETLK, &l) < 0 ? -errno : 0;
}

static void call_is_told_when_it_has_returned(void **state)
{
	switch_on();
	for (unsigned i = 0; i < 20; i++) {
		call_count = 0;
		assert_int_equal(lock(F_WRLCK, BYTE - 1), 0);
		fsd_locktrace_read(trace);
		assert_int_equal(call_count, 1);
		assert_int_equal(calls[0].number, about.st_ino);
		assert_int_equal(calls[0].first, BYTE - 1);
		assert_int_equal(calls[0].last, BYTE);
		assert_int_equal(calls[0].type, F_WRLCK);
		assert_int_equal(calls[0].pid, getpid());
		assert_int_equal(calls[0].result, 0);
		assert_int_equal(lock(F_UNLCK, BYTE), 0);
		fsd_locktrace_read(trace);
		assert_int_equal(call_count, 2);
		assert_int_equal(calls[1].type, F_UNLCK);
	}
	assert_int_equal(lost_count, 0);
}

static void other_bytes_and_asking_are_not_told(void **state)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = BYTE, .l_len = 1};

	switch_on();
	assert_int_equal(lock(F_RDLCK, BYTE + 1), 0);
	assert_int_equal(lock(F_UNLCK, BYTE - 2), 0);
	assert_int_equal(fcntl(fd, F_GETLK, &l), 0);
	fsd_locktrace_read(trace);
	assert_int_equal(call_count, 0);
	assert_int_equal(lock(F_UNLCK, BYTE), 0);
	fsd_locktrace_read(trace);
	assert_int_equal(call_count, 1);
}

static void refused_call_of_another_process_is_told(void **state)
{
	int status;
	pid_t pid;

	switch_on();
	assert_int_equal(lock(F_WRLCK, BYTE), 0);
	pid = fork();
	if (!pid)
		_exit(lock(F_RDLCK, BYTE) == -EAGAIN ? 0 : 1);
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	assert_int_equal(lock(F_UNLCK, BYTE), 0);
	fsd_locktrace_wait(trace, 10000);
	for (unsigned i = 0; i < call_count; i++)
		if (calls[i].pid == pid && calls[i].type == F_RDLCK)
			assert_int_equal(calls[i].result, -EAGAIN);
	/* its end, too, lets go of all locks that it may have had */
	assert_true(call_count >= 4);
}

static void end_of_a_process_is_told(void **state)
{
	bool found = false;
	pid_t pid;

	switch_on();
	pid = fork();
	if (!pid) {
		lock(F_WRLCK, BYTE);
		abort();
	}
	waitpid(pid, NULL, 0);
	fsd_locktrace_read(trace);
	for (unsigned i = 0; i < call_count; i++)
		found |= calls[i].type == F_UNLCK && calls[i].number == about.st_ino;
	assert_true(found);
}

static void calls_without_room_are_told_as_lost(void **state)
{
	switch_on();
	for (unsigned i = 0; i < 5000; i++)
		assert_int_equal(lock(i % 2 ? F_UNLCK : F_RDLCK, BYTE), 0);
	fsd_locktrace_read(trace);
	assert_true(call_count > 100);
	assert_true(call_count < 5000);
	/* The kernel says so with the next that finds room. */
	assert_int_equal(lock(F_UNLCK, BYTE), 0);
	fsd_locktrace_read(trace);
	assert_true(lost_count > 0);
}

static void what_is_off_tells_nothing(void **state)
{
	switch_on();
	fsd_locktrace_off(trace);
	assert_int_equal(lock(F_WRLCK, BYTE), 0);
	fsd_locktrace_read(trace);
	assert_int_equal(call_count, 0);
	switch_on();
	fsd_locktrace_read(trace);
	assert_int_equal(call_count, 0);
	assert_int_equal(lock(F_UNLCK, BYTE), 0);
	fsd_locktrace_read(trace);
	assert_int_equal(call_count, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(call_is_told_when_it_has_returned, begin, end),
		cmocka_unit_test_setup_teardown(other_bytes_and_asking_are_not_told, begin, end),
		cmocka_unit_test_setup_teardown(refused_call_of_another_process_is_told, begin,
						end),
		cmocka_unit_test_setup_teardown(end_of_a_process_is_told, begin, end),
		cmocka_unit_test_setup_teardown(calls_without_room_are_told_as_lost, begin, end),
		cmocka_unit_test_setup_teardown(what_is_off_tells_nothing, begin, end),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
