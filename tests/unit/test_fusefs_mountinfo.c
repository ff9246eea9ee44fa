/* /proc/self/mountinfo. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "mount/mountinfo.h"

static void unescape_of_octal_gives_the_character(void **state)
{
	char blank[] = "/a\\040b\\011c\\012d\\134e", plain[] = "/plain", half[] = "/a\\04";

	fsd_mountinfo_unescape(blank);
	assert_string_equal(blank, "/a b\tc\nd\\e");
	fsd_mountinfo_unescape(plain);
	assert_string_equal(plain, "/plain");
	fsd_mountinfo_unescape(half);
	assert_string_equal(half, "/a\\04");
}

static void parse_of_a_line_finds_the_fields(void **state)
{
	char optional[] = "47 27 0:40 / /mnt/a\\040b rw,nosuid shared:3 master:1 - fuse.dqlitefs "
			  "/var/lib/x\\054y rw,user_id=0\n";
	char none[] = "48 27 0:41 /sub /mnt rw - tmpfs tmpfs rw\n";
	struct fsd_mountinfo m;

	assert_true(fsd_mountinfo_parse(optional, &m));
	assert_int_equal(m.id, 47);
	assert_string_equal(m.mountpoint, "/mnt/a b");
	assert_string_equal(m.fstype, FSD_FSTYPE);
	assert_string_equal(m.source, "/var/lib/x,y");
	assert_true(fsd_mountinfo_parse(none, &m));
	assert_int_equal(m.id, 48);
	assert_string_equal(m.fstype, "tmpfs");
}

static void parse_of_a_short_line_is_refused(void **state)
{
	static const char *const bad[] = {"", "47", "47 27 0:40 / /mnt rw",
					  "47 27 0:40 / /mnt rw -", "47 27 0:40 / /mnt rw - tmpfs"};
	struct fsd_mountinfo m;
	char line[64];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		strcpy(line, bad[i]);
		assert_false(fsd_mountinfo_parse(line, &m));
	}
}

static void lookup_of_what_is_mounted_finds_it(void **state)
{
	struct fsd_mountinfo m;
	int fd;

	if (fsd_mountinfo_at("/proc", &m))
		skip(); /* a container without its own /proc */
	fd = fsd_mountinfo_open();
	assert_true(fd >= 0);
	for (int again = 0; again < 2; again++) {
		assert_true(fsd_mountinfo_has(fd, m.id));
		assert_false(fsd_mountinfo_has(fd, -1));
	}
	close(fd);
	assert_true(fsd_mountinfo_has(-1, m.id));
	assert_false(fsd_mountinfo_has(-1, -1));
	assert_int_equal(fsd_mountinfo_at("/proc/no such", &m), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unescape_of_octal_gives_the_character),
		cmocka_unit_test(parse_of_a_line_finds_the_fields),
		cmocka_unit_test(parse_of_a_short_line_is_refused),
		cmocka_unit_test(lookup_of_what_is_mounted_finds_it),
	};

	return cmocka_run_group_tests_name("fusefs_mountinfo", tests, NULL, NULL);
}
