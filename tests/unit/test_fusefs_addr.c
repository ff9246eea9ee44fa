/* HOST:PORT addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "node/addr.h"

static void assert_splits(const char *address, const char *want_host, const char *want_port)
{
	char host[FSD_ADDRESS_SIZE], port[FSD_ADDRESS_SIZE];

	assert_int_equal(fsd_addr_split(address, host, port), 0);
	assert_string_equal(host, want_host);
	assert_string_equal(port, want_port);
}

static void split_of_a_good_address_gives_host_and_port(void **state)
{
	assert_splits("127.0.0.1:4001", "127.0.0.1", "4001");
	assert_splits("node-1.example:0", "node-1.example", "0");
	assert_splits("[::1]:65535", "::1", "65535");
}

static void split_of_a_bad_address_is_refused(void **state)
{
	static const char *const bad[] = {
		"",	 "host",   ":1",   "host:", "host:65536", "host:-1",	 "host:1x", "::1",
		"::1:4", "[::1:4", "[]:4", "a b:1", "a/b:1",	  "host:123456", "a:1 ",
	};
	char host[FSD_ADDRESS_SIZE], port[FSD_ADDRESS_SIZE], longest[400];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(fsd_addr_split(bad[i], host, port), -EINVAL);
	memset(longest, 'a', sizeof(longest));
	strcpy(longest + sizeof(longest) - 3, ":1");
	assert_int_equal(fsd_addr_split(longest, host, port), -EINVAL);
}

static void listen_with_port_0_tells_the_port(void **state)
{
	char actual[FSD_ADDRESS_SIZE], again[FSD_ADDRESS_SIZE], errmsg[FSD_ERRMSG_SIZE];
	int fd = fsd_addr_listen("127.0.0.1:0", actual, errmsg);

	assert_true(fd >= 0);
	assert_memory_equal(actual, "127.0.0.1:", 10);
	assert_string_not_equal(actual, "127.0.0.1:0");
	assert_int_equal(fsd_addr_probe(actual, 1000, errmsg), 0);
	assert_int_equal(fsd_addr_listen(actual, again, errmsg), -EADDRINUSE);
	assert_non_null(strstr(errmsg, "--listen"));
	close(fd);
	assert_int_equal(fsd_addr_probe(actual, 1000, errmsg), -ECONNREFUSED);
	assert_non_null(strstr(errmsg, "--join"));
}

static void listen_everywhere_is_refused(void **state)
{
	char actual[FSD_ADDRESS_SIZE], errmsg[FSD_ERRMSG_SIZE];

	assert_int_equal(fsd_addr_listen("0.0.0.0:0", actual, errmsg), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(split_of_a_good_address_gives_host_and_port),
		cmocka_unit_test(split_of_a_bad_address_is_refused),
		cmocka_unit_test(listen_with_port_0_tells_the_port),
		cmocka_unit_test(listen_everywhere_is_refused),
	};

	return cmocka_run_group_tests_name("fusefs_addr", tests, NULL, NULL);
}
