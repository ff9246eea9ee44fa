/* Whose files are open: holds, what keeps a database open beyond them, what is found when it is opened
 * again, and descriptors that run out. */
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
#include "base/wrep.h"
#include "base/work.h"
#include "db/db.h"
#include "db/pin.h"
#include "db/files.h"
#include "db/sync.h"
#include "db/table.h"
#include "apply/opening.h"
#include "file/file.h"
#include "snapshot/snapshotter.h"
#include "txn/commit.h"
#include "txn/discard.h"
#include "txn/streaming.h"
#include "txn/unjournaled.h"

#define MANY 100 /* more than may stay open for want of a sync */

static char dir[] = "/tmp/wrep-idle-XXXXXX";
static struct wrep w;

static void nothing_of_database(struct wrep_db *db)
{
}

static const struct wrep_up up = {
	.db_closing = nothing_of_database,
	.db_freed = nothing_of_database,
	.housekeeping_due = wrep_snapshotter_wake,
};
static struct wrep_db *db;
static unsigned lines;

static void host_log(void *ctx, char level, const char *line)
{
	lines++;
}

static int open_backing(const char *name)
{
	int fd = openat(w.config.data_fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	return fd;
}

static struct wrep_db *make(const char *name, uint64_t id)
{
	struct wrep_db *made = wrep_db_new(&w, name, id);

	assert_non_null(made);
	assert_int_equal(wrep_file_make(made, WREP_DB, open_backing(name), 0,
					&made->files[WREP_DB]),
			 0);
	wrep_db_close_unpinned(made);
	return made;
}

static void remove_all(void)
{
	struct wrep_db **all;
	size_t count;

	assert_int_equal(wrep_db_all(&w, &all, &count), 0);
	for (size_t i = 0; i < count; i++) {
		for (int k = 0; k < 4; k++) {
			char name[WREP_NAME_MAX + 16];

			wrep_db_backing_name(all[i], k, name);
			unlinkat(wrep_dir_fd(&w, k), name, 0);
			wrep_db_forget_file(all[i], k);
		}
		wrep_db_remove(all[i]);
		wrep_db_unref(all[i]);
	}
	free(all);
}

static int setup(void **state)
{
	(void)state;
	memset(&w, 0, sizeof(w));
	w.config.data_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	w.config.shm_fd = w.config.state_fd = w.config.data_fd;
	w.config.host.log = host_log;
	pthread_mutex_init(&w.lock, NULL);
	w.up = &up;
	wrep_pin_init(&w);
	lines = 0;
	if (w.config.data_fd < 0 || wrep_snapshotter_new(&w))
		return -1;
	db = make("a.db", 1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	remove_all();
	wrep_unsynced_clear(&w);
	wrep_snapshotter_free(&w);
	wrep_pin_destroy(&w);
	pthread_mutex_destroy(&w.lock);
	close(w.config.data_fd);
	return 0;
}

static bool is_open(enum wrep_kind kind)
{
	return db->files[kind] && db->files[kind]->fd >= 0;
}

static void add(enum wrep_kind kind)
{
	char name[WREP_NAME_MAX + 16];
	struct wrep_file *f;

	wrep_db_backing_name(db, kind, name);
	close(open_backing(name));
	f = wrep_db_file(db, kind);
	assert_non_null(f);
	wrep_file_unref(f);
}

static void files_are_open_while_held(void **state)
{
	struct stat before, after;

	assert_false(is_open(WREP_DB));
	add(WREP_WAL); /* found while idle, as by a listing */
	assert_false(is_open(WREP_WAL));
	assert_null(db->capture);
	assert_int_equal(wrep_db_pin(db, false), 0);
	assert_int_equal(wrep_db_pin(db, false), 0);
	add(WREP_JOURNAL);
	assert_true(is_open(WREP_DB) && is_open(WREP_WAL) && is_open(WREP_JOURNAL));
	assert_non_null(db->capture);
	assert_int_equal(wrep_file_stat(db->files[WREP_DB], &before), 0);
	wrep_db_unpin(db);
	assert_true(is_open(WREP_DB));
	wrep_db_unpin(db);
	assert_false(is_open(WREP_DB) || is_open(WREP_WAL) || is_open(WREP_JOURNAL));
	assert_null(db->capture);
	/* asked for its attributes it stays closed */
	assert_int_equal(wrep_file_stat(db->files[WREP_DB], &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	assert_false(is_open(WREP_DB));
	assert_int_equal(wrep_db_pin(db, false), 0);
	assert_true(is_open(WREP_DB) && is_open(WREP_WAL) && is_open(WREP_JOURNAL));
	wrep_db_unpin(db);
}

static void another_file_under_the_name_is_not_opened(void **state)
{
	close(open_backing("other"));
	assert_int_equal(renameat(w.config.data_fd, "other", w.config.data_fd, "a.db"), 0);
	assert_int_equal(wrep_db_pin(db, true), -ENOENT);
	assert_false(is_open(WREP_DB));
	assert_int_equal(db->pins, 0);
	unlinkat(w.config.data_fd, "a.db", 0);
	assert_int_equal(wrep_db_pin(db, true), -ENOENT);
	assert_int_equal(symlinkat("a.db-journal", w.config.data_fd, "a.db"), 0);
	assert_int_equal(wrep_db_pin(db, true), -ENOENT);
}

static void side_file_that_is_gone_is_forgotten(void **state)
{
	add(WREP_WAL);
	add(WREP_JOURNAL);
	unlinkat(w.config.data_fd, "a.db-wal", 0);
	assert_int_equal(wrep_db_pin(db, true), 0);
	assert_null(db->files[WREP_WAL]);
	assert_null(db->capture);
	assert_true(is_open(WREP_JOURNAL));
	wrep_db_unpin(db);
}

static void removed_file_is_closed_by_its_last_user(void **state)
{
	struct wrep_file *f;

	assert_int_equal(wrep_db_pin(db, false), 0);
	f = wrep_file_ref(db->files[WREP_DB]);
	assert_int_equal(wrep_file_opened(f, 0, true, 0), 0);
	wrep_db_unpin(db);
	wrep_db_forget_file(db, WREP_DB);
	assert_true(f->fd >= 0);
	wrep_file_unpin(f);
	assert_int_equal(f->fd, -1);
	/* The kernel still knows it, but nobody can open it any more. */
	assert_int_equal(wrep_file_opened(f, 0, true, 0), -ESTALE);
	assert_int_equal(db->pins, 0);
	wrep_file_unref(f);
}

static void idle_file_that_is_removed_is_closed_at_once(void **state)
{
	struct wrep_file *f;

	db->unsynced = true;
	assert_int_equal(wrep_db_pin(db, false), 0);
	wrep_db_unpin(db);
	f = wrep_file_ref(db->files[WREP_DB]);
	assert_true(f->fd >= 0);
	wrep_db_forget_file(db, WREP_DB);
	assert_int_equal(f->fd, -1);
	wrep_file_unref(f);
}

static void unfinished_business_keeps_files_open(void **state)
{
	struct wrep_commit pending;

	assert_int_equal(wrep_db_pin(db, true), 0);
	db->pending = &pending;
	wrep_db_unpin(db);
	assert_true(is_open(WREP_DB));
	assert_int_equal(wrep_overlay_open(&db->overlay, w.config.data_fd, 0), 0);
	db->pending = NULL;
	wrep_db_settled(db);
	assert_true(is_open(WREP_DB));
	wrep_db_drop_overlay(db);
	assert_false(is_open(WREP_DB));

	assert_int_equal(wrep_db_pin(db, true), 0);
	db->lost = true;
	wrep_db_unpin(db);
	assert_true(is_open(WREP_DB));
}

static void unsynced_files_stay_open_up_to_a_number(void **state)
{
	struct wrep_db *dbs[MANY];
	unsigned open_count = 0;
	char name[32];

	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "b%u.db", i);
		dbs[i] = make(name, i + 2);
		assert_int_equal(wrep_db_pin(dbs[i], true), 0);
		dbs[i]->unsynced = true;
		wrep_db_unpin(dbs[i]);
		assert_true(dbs[i]->files[WREP_DB]->fd >= 0);
	}
	assert_true(wrep_unsynced_many(&w));
	assert_int_equal(wrep_db_pin(dbs[0], true), 0); /* the oldest is in use again */
	wrep_unsynced_trim(&w);
	assert_false(wrep_unsynced_many(&w));
	for (unsigned i = 0; i < MANY; i++)
		open_count += dbs[i]->files[WREP_DB]->fd >= 0;
	assert_in_range(open_count, 1, MANY / 2);
	assert_true(dbs[0]->unsynced && dbs[0]->files[WREP_DB]->fd >= 0);
	assert_false(dbs[1]->unsynced);
	assert_int_equal(dbs[1]->files[WREP_DB]->fd, -1);
	assert_true(dbs[MANY - 1]->unsynced && dbs[MANY - 1]->files[WREP_DB]->fd >= 0);
	/* A durable point comes. */
	dbs[0]->unsynced = false;
	wrep_db_unpin(dbs[0]);
	assert_int_equal(dbs[0]->files[WREP_DB]->fd, -1);
}

static void last_descriptors_are_not_for_applications(void **state)
{
	int next = open_backing("next");

	close(next);
	unlinkat(w.config.data_fd, "next", 0);
	w.fd_spare = next;
	assert_int_equal(wrep_db_pin(db, false), -EMFILE);
	assert_int_equal(db->pins, 0);
	assert_false(is_open(WREP_DB));
	assert_int_equal(wrep_db_pin(db, true), 0);
	/* Open already: nothing is to be had. */
	assert_int_equal(wrep_db_pin(db, false), 0);
	wrep_db_unpin(db);
	wrep_db_unpin(db);
	w.fd_spare = next + 1;
	assert_int_equal(wrep_db_pin(db, false), 0);
	wrep_db_unpin(db);
}

static void shortage_is_told_now_and_then(void **state)
{
	assert_true(wrep_out_of_descriptors(&w, -EMFILE, "a.db"));
	assert_true(wrep_out_of_descriptors(&w, -ENFILE, "a.db"));
	assert_int_equal(lines, 1);
	assert_false(wrep_out_of_descriptors(&w, -ENOSPC, "a.db"));
	assert_false(wrep_out_of_descriptors(&w, 0, "a.db"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(files_are_open_while_held, setup, teardown),
		cmocka_unit_test_setup_teardown(another_file_under_the_name_is_not_opened, setup,
						teardown),
		cmocka_unit_test_setup_teardown(side_file_that_is_gone_is_forgotten, setup,
						teardown),
		cmocka_unit_test_setup_teardown(removed_file_is_closed_by_its_last_user, setup,
						teardown),
		cmocka_unit_test_setup_teardown(idle_file_that_is_removed_is_closed_at_once, setup,
						teardown),
		cmocka_unit_test_setup_teardown(unfinished_business_keeps_files_open, setup,
						teardown),
		cmocka_unit_test_setup_teardown(unsynced_files_stay_open_up_to_a_number, setup,
						teardown),
		cmocka_unit_test_setup_teardown(last_descriptors_are_not_for_applications, setup,
						teardown),
		cmocka_unit_test_setup_teardown(shortage_is_told_now_and_then, setup, teardown),
	};
	int failed;

	if (!mkdtemp(dir))
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return failed;
}
