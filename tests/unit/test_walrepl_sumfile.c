/* Page hashes on disk: what has changed is written, and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "pages/sumfile.h"

#define PAGES 3000u

static char dir[] = "/tmp/wrep-sumfile-XXXXXX";
static int dir_fd;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void grow(struct wrep_pagesum *s, uint32_t count, uint64_t first)
{
	struct wrep_page_change *changes = calloc(count, sizeof(*changes));

	for (uint32_t i = 0; i < count; i++)
		changes[i] = (struct wrep_page_change){i + 1, first + i};
	assert_int_equal(wrep_pagesum_apply(s, 4096, count, changes, count), 0);
	free(changes);
}

static void expect(const struct wrep_pagesum *s)
{
	uint64_t *hash;

	assert_int_equal(wrep_sumfile_load(dir_fd, 7, s->page_count, &hash), 0);
	assert_memory_equal(hash, s->hash, s->page_count * sizeof(*hash));
	free(hash);
}

static void stored_hashes_are_loaded(void **state)
{
	struct wrep_pagesum s = {0};

	(void)state;
	grow(&s, PAGES, 1);
	assert_int_equal(wrep_sumfile_store(dir_fd, 7, &s, &lock), 0);
	expect(&s);
	/* one page, and a size that is smaller, then larger again with pages never written */
	assert_int_equal(wrep_pagesum_apply(&s, 4096, PAGES, &(struct wrep_page_change){2000, 99},
					    1),
			 0);
	assert_int_equal(wrep_sumfile_store(dir_fd, 7, &s, &lock), 0);
	expect(&s);
	assert_int_equal(wrep_pagesum_apply(&s, 4096, 10, NULL, 0), 0);
	assert_int_equal(wrep_sumfile_store(dir_fd, 7, &s, &lock), 0);
	assert_int_equal(wrep_pagesum_apply(&s, 4096, PAGES, NULL, 0), 0);
	assert_int_equal(wrep_sumfile_store(dir_fd, 7, &s, &lock), 0);
	expect(&s);
	assert_int_equal(s.hash[PAGES - 1], 0);
	wrep_pagesum_close(&s);
	assert_int_equal(wrep_sumfile_remove(dir_fd, 7), 0);
}

static void clean_blocks_are_not_written(void **state)
{
	struct wrep_pagesum s = {0};
	uint64_t *hash, other = 12345;
	int fd;

	(void)state;
	grow(&s, PAGES, 1);
	assert_int_equal(wrep_sumfile_store(dir_fd, 7, &s, &lock), 0);
	/* somebody's hand: in the block of page 1 it stays, in that of page 2000 it goes */
	fd = openat(dir_fd, "sums-7", O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, &other, 8, 0), 8);
	assert_int_equal(pwrite(fd, &other, 8, 2000 * 8), 8);
	close(fd);
	wrep_pagesum_mark(&s, 2000);
	assert_int_equal(wrep_sumfile_store(dir_fd, 7, &s, &lock), 0);
	assert_int_equal(wrep_sumfile_load(dir_fd, 7, PAGES, &hash), 0);
	assert_int_equal(hash[0], other);
	assert_int_equal(hash[2000], s.hash[2000]);
	free(hash);
	wrep_pagesum_close(&s);
	assert_int_equal(wrep_sumfile_remove(dir_fd, 7), 0);
}

static void what_the_file_lacks_is_zero(void **state)
{
	struct wrep_pagesum s = {0};
	uint64_t *hash;

	(void)state;
	assert_int_equal(wrep_sumfile_load(dir_fd, 8, 100, &hash), 0);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(hash[i], 0);
	free(hash);
	grow(&s, 50, 1);
	assert_int_equal(wrep_sumfile_store(dir_fd, 8, &s, &lock), 0);
	assert_int_equal(wrep_sumfile_load(dir_fd, 8, 100, &hash), 0);
	assert_int_equal(hash[49], 50);
	assert_int_equal(hash[50], 0);
	free(hash);
	wrep_pagesum_close(&s);
}

static bool keeps_nine(void *arg, uint64_t id)
{
	(void)arg;
	return id == 9;
}

static void tidying_removes_what_nobody_knows(void **state)
{
	static const char *const names[] = {"sums-9", "sums-10", "sums-x", "node"};

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		close(openat(dir_fd, names[i], O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	assert_int_equal(wrep_sumfile_tidy(dir_fd, keeps_nine, NULL), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(unlinkat(dir_fd, names[i], 0), i == 1 ? -1 : 0);
	assert_int_equal(faccessat(dir_fd, "sums-8", F_OK, 0), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stored_hashes_are_loaded),
		cmocka_unit_test(clean_blocks_are_not_written),
		cmocka_unit_test(what_the_file_lacks_is_zero),
		cmocka_unit_test(tidying_removes_what_nobody_knows),
	};
	int rc;

	if (!mkdtemp(dir))
		return 1;
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rc = cmocka_run_group_tests_name("walrepl_sumfile", tests, NULL, NULL);
	rmdir(dir);
	return rc;
}
