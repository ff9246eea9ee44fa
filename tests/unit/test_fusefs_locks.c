/* Who holds a POSIX lock, of files on a tmpfs, whose device's major number is 0 like a mount's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>
#include "mount/locks.h"

#define BYTE 100

static char path[] = "/dev/shm/fsd-locks-XXXXXX";
static int fd = -1;
static struct fsd_locked_file file;

static int setup(void **state)
{
	struct stat st;

	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	if (major(st.st_dev) != 0)
		return -1;
	file = (struct fsd_locked_file){minor(st.st_dev), st.st_ino};
	return 0;
}

static int teardown(void **state)
{
	close(fd);
	return unlink(path);
}

static void lock(int of, short type, off_t start, off_t len)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	if (fcntl(of, F_SETLK, &l) < 0)
		abort();
}

/* A process that locks, and waits until it is killed. `len` 0: to the end, wherever that will be. */
static pid_t start_holder(short type, off_t start, off_t len)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		int own = open(path, O_RDWR);

		lock(own, type, start, len);
		if (write(ready[1], "", 1) < 0)
			abort();
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void holder_of_a_write_lock_on_the_byte_is_found(void **state)
{
	pid_t pid = start_holder(F_WRLCK, BYTE - 10, 20);

	assert_int_equal(fsd_lock_holder(&file, BYTE), pid);
	assert_int_equal(fsd_lock_holder(&file, BYTE + 10), 0);
	assert_true(fsd_lock_may_be_held(&file, BYTE, pid));
	assert_false(fsd_lock_may_be_held(&file, BYTE + 10, pid));
	assert_true(fsd_has_open(&file, pid));
	end(pid);
	assert_int_equal(fsd_lock_holder(&file, BYTE), 0);
}

static void lock_up_to_the_end_is_held_for_all_that_is_known(void **state)
{
	pid_t pid = start_holder(F_WRLCK, 0, 0);

	assert_true(fsd_lock_may_be_held(&file, BYTE, pid));
	end(pid);
}

static void read_lock_is_none(void **state)
{
	pid_t pid = start_holder(F_RDLCK, BYTE, 1);

	assert_int_equal(fsd_lock_holder(&file, BYTE), 0);
	assert_false(fsd_lock_may_be_held(&file, BYTE, pid));
	end(pid);
}

static void lock_of_another_process_is_not_this_ones(void **state)
{
	pid_t holder = start_holder(F_WRLCK, BYTE, 1), other = start_holder(F_WRLCK, BYTE + 1, 1);

	assert_true(fsd_lock_may_be_held(&file, BYTE, holder));
	assert_false(fsd_lock_may_be_held(&file, BYTE, other));
	end(holder);
	end(other);
}

static void lock_by_any_of_several_descriptors_is_held(void **state)
{
	int first = open(path, O_RDWR), second = open(path, O_RDWR), third = open(path, O_RDWR);

	lock(second, F_WRLCK, BYTE, 1);
	assert_true(fsd_lock_may_be_held(&file, BYTE, getpid()));
	lock(third, F_UNLCK, BYTE, 1);
	assert_false(fsd_lock_may_be_held(&file, BYTE, getpid()));
	close(first);
	close(second);
	close(third);
}

/* One that ends has no descriptors to be seen before its locks go. */
static void who_has_no_descriptor_may_hold_it(void **state)
{
	pid_t pid = fork();

	if (!pid) {
		close(fd);
		for (;;)
			pause();
	}
	while (fsd_has_open(&file, pid))
		usleep(1000);
	assert_true(fsd_lock_may_be_held(&file, BYTE, pid));
	end(pid);
	assert_true(fsd_lock_may_be_held(&file, BYTE, pid));
	assert_true(fsd_lock_may_be_held(&file, BYTE, 0));
	assert_true(fsd_lock_may_be_held(&file, BYTE, -1));
	assert_false(fsd_has_open(&file, pid));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(holder_of_a_write_lock_on_the_byte_is_found),
		cmocka_unit_test(lock_up_to_the_end_is_held_for_all_that_is_known),
		cmocka_unit_test(read_lock_is_none),
		cmocka_unit_test(lock_of_another_process_is_not_this_ones),
		cmocka_unit_test(lock_by_any_of_several_descriptors_is_held),
		cmocka_unit_test(who_has_no_descriptor_may_hold_it),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
