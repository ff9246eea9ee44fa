/* attr.c: times before and after 1970, and what of a file changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"

static int temporary(void)
{
	int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);

	assert_true(fd >= 0);
	return fd;
}

/* A file whose mtime is before 1970 was one that a peer could not fetch. */
static void time_before_1970_is_one_that_a_file_can_have(void **state)
{
	static const int64_t times[] = {0, 1, -1, 999999999, 1000000000, -1000000000, -1500000000,
					1700000000123456789};
	int fd = temporary();

	(void)state;
	for (unsigned i = 0; i < sizeof times / sizeof *times; i++) {
		struct wrep_attr attr = {.valid = WREP_ATTR_TIMES,
					 .atime = wrep_attr_time(times[i], true),
					 .mtime = wrep_attr_time(times[i], false)};
		struct stat before, st;

		assert_int_equal(fstat(fd, &before), 0);
		assert_int_equal(wrep_attr_set(fd, &attr), 0);
		assert_int_equal(fstat(fd, &st), 0);
		assert_true(st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec == times[i]);
		assert_true(st.st_atim.tv_sec == before.st_atim.tv_sec &&
			    st.st_atim.tv_nsec == before.st_atim.tv_nsec);
	}
	close(fd);
}

static void only_what_is_valid_changes(void **state)
{
	struct wrep_attr attr = {.valid = WREP_ATTR_MODE,
				 .mode = S_IFREG | 0640,
				 .uid = getuid() + 1,
				 .gid = getgid() + 1,
				 .mtime = {.tv_sec = 1}};
	int fd = temporary();
	struct stat st;

	(void)state;
	assert_int_equal(wrep_attr_set(fd, &attr), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(st.st_uid, getuid());
	assert_int_equal(st.st_gid, getgid());
	assert_true(st.st_mtim.tv_sec > 1);
	attr.valid = 0;
	attr.mode = 0;
	assert_int_equal(wrep_attr_set(fd, &attr), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	close(fd);
}

static void owner_of_a_new_file_gets_its_mode_despite_the_umask(void **state)
{
	int fd = temporary();
	struct stat st;

	(void)state;
	assert_int_equal(wrep_attr_own(fd, S_IFREG | 0666, getuid(), getgid()), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0666);
	close(fd);
	assert_true(wrep_attr_own(-1, 0666, getuid(), getgid()) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(time_before_1970_is_one_that_a_file_can_have),
		cmocka_unit_test(only_what_is_valid_changes),
		cmocka_unit_test(owner_of_a_new_file_gets_its_mode_despite_the_umask),
	};

	return cmocka_run_group_tests_name("walrepl_attr", tests, NULL, NULL);
}
