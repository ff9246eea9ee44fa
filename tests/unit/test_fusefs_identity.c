/* The node's identity file and its lock. */
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
#include "node/identity.h"

static char dir[] = "/tmp/test_fusefs_identity.XXXXXX";
static int dir_fd = -1;

static int setup(void **state)
{
	dir_fd = mkdtemp(dir) ? open(dir, O_RDONLY | O_DIRECTORY) : -1;
	return dir_fd < 0;
}

static int teardown(void **state)
{
	unlinkat(dir_fd, FSD_NODE_FILE, 0);
	unlinkat(dir_fd, FSD_LOCK_FILE, 0);
	close(dir_fd);
	return rmdir(dir);
}

static void put(const char *text)
{
	int fd = openat(dir_fd, FSD_NODE_FILE, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void write_then_read_gives_the_same(void **state)
{
	struct fsd_identity in = {.node = 0x0badcafe, .cluster = 0x123}, out;
	char errmsg[FSD_ERRMSG_SIZE];
	struct stat st;

	strcpy(in.address, "[::1]:4001");
	for (in.state = FSD_STARTING; in.state <= FSD_RECOVERING; in.state++) {
		assert_int_equal(fsd_identity_write(dir_fd, &in, errmsg), 0);
		assert_int_equal(fsd_identity_read(dir_fd, &out, errmsg), 0);
		assert_int_equal(out.node, in.node);
		assert_int_equal(out.cluster, in.cluster);
		assert_int_equal(out.state, in.state);
		assert_string_equal(out.address, in.address);
	}
	assert_int_equal(fstatat(dir_fd, FSD_NODE_FILE, &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	/* and nothing is left of the writing */
	assert_int_equal(faccessat(dir_fd, FSD_NODE_FILE ".new", F_OK, 0), -1);
}

static void read_without_a_file_says_so(void **state)
{
	struct fsd_identity out;
	char errmsg[FSD_ERRMSG_SIZE];

	unlinkat(dir_fd, FSD_NODE_FILE, 0);
	assert_int_equal(fsd_identity_read(dir_fd, &out, errmsg), -ENOENT);
}

static void read_of_a_damaged_file_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"{",
		"[1, 2]",
		"{\"version\": 1}",
		/* node id zero, too short, upper case; no address; unknown state */
		"{\"version\": 1, \"node\": \"00000000\", \"cluster\": \"0123456789abcdef\","
		" \"address\": \"h:1\", \"state\": \"member\"}",
		"{\"version\": 1, \"node\": \"1234\", \"cluster\": \"0123456789abcdef\","
		" \"address\": \"h:1\", \"state\": \"member\"}",
		"{\"version\": 1, \"node\": \"ABCDEF01\", \"cluster\": \"0123456789abcdef\","
		" \"address\": \"h:1\", \"state\": \"member\"}",
		"{\"version\": 1, \"node\": \"abcdef01\", \"cluster\": \"0123456789abcdef\","
		" \"address\": \":1\", \"state\": \"member\"}",
		"{\"version\": 1, \"node\": \"abcdef01\", \"cluster\": \"0123456789abcdef\","
		" \"address\": \"h:1\", \"state\": \"retired\"}",
	};
	struct fsd_identity out;
	char errmsg[FSD_ERRMSG_SIZE];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		put(bad[i]);
		assert_int_equal(fsd_identity_read(dir_fd, &out, errmsg), -EINVAL);
		assert_non_null(strstr(errmsg, "damaged"));
	}
}

static void read_of_a_newer_version_says_so(void **state)
{
	struct fsd_identity out;
	char errmsg[FSD_ERRMSG_SIZE];

	put("{\"version\": 2, \"node\": \"abcdef01\", \"cluster\": \"0123456789abcdef\","
	    " \"address\": \"h:1\", \"state\": \"member\"}");
	assert_int_equal(fsd_identity_read(dir_fd, &out, errmsg), -EPROTONOSUPPORT);
	assert_non_null(strstr(errmsg, "newer"));
}

static void lock_held_by_another_names_its_process(void **state)
{
	pid_t owner;
	int first, second;

	assert_int_equal(fsd_identity_lock(dir_fd, false, &owner), -ENOENT);
	first = fsd_identity_lock(dir_fd, true, &owner);
	assert_true(first >= 0);
	assert_int_equal(fsd_identity_sign_lock(first), 0);
	assert_int_equal(fsd_identity_lock(dir_fd, true, &owner), -EWOULDBLOCK);
	assert_int_equal(owner, getpid());
	close(first);
	second = fsd_identity_lock(dir_fd, false, &owner);
	assert_true(second >= 0);
	close(second);
}

static void random_numbers_are_never_zero_and_differ(void **state)
{
	uint32_t a = fsd_identity_random32(), b = fsd_identity_random32();

	assert_int_not_equal(a, 0);
	assert_int_not_equal(b, 0);
	assert_true(fsd_identity_random64() != fsd_identity_random64());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(write_then_read_gives_the_same),
		cmocka_unit_test(read_without_a_file_says_so),
		cmocka_unit_test(read_of_a_damaged_file_is_refused),
		cmocka_unit_test(read_of_a_newer_version_says_so),
		cmocka_unit_test(lock_held_by_another_names_its_process),
		cmocka_unit_test(random_numbers_are_never_zero_and_differ),
	};

	return cmocka_run_group_tests_name("fusefs_identity", tests, setup, teardown);
}
