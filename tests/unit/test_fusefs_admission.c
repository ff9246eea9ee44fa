/* Which requests may call walrepl. What libfuse and walrepl know of a request stands below. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "ops/admission.h"

#define APPLIER 4711
#define SOMEBODY 4712
#define CLEANER 4713

static struct fsd fs;
static int replied;

/* A request is the thread that made it. */
static struct fuse_ctx of_applier = {.pid = APPLIER}, of_somebody = {.pid = SOMEBODY};

static fuse_req_t from(struct fuse_ctx *ctx)
{
	return (fuse_req_t)ctx;
}

const struct fuse_ctx *__wrap_fuse_req_ctx(fuse_req_t req);
const struct fuse_ctx *__wrap_fuse_req_ctx(fuse_req_t req)
{
	return (const struct fuse_ctx *)req;
}

int __wrap_fuse_reply_err(fuse_req_t req, int error);
int __wrap_fuse_reply_err(fuse_req_t req, int error)
{
	replied = error;
	return 0;
}

pid_t __wrap_wrep_applier_tid(struct wrep *w);
pid_t __wrap_wrep_applier_tid(struct wrep *w)
{
	return APPLIER;
}

static int begin(void **state)
{
	replied = 0;
	fs.admission = fsd_admission_new();
	return !fs.admission;
}

static int end(void **state)
{
	free(fs.admission);
	return 0;
}

static void all_are_admitted_at_first(void **state)
{
	assert_true(fsd_enter(&fs, from(&of_somebody)));
	fsd_leave(&fs);
	assert_true(fsd_enter_to_write(&fs, from(&of_somebody)));
	fsd_leave(&fs);
	assert_false(fsd_admission_is_shut(&fs));
	assert_int_equal(replied, 0);
}

static void applier_and_cleaner_are_internal(void **state)
{
	struct fuse_ctx of_cleaner = {.pid = CLEANER};

	assert_true(fsd_is_internal(&fs, from(&of_applier)));
	assert_false(fsd_is_internal(&fs, from(&of_cleaner)));
	fsd_admission_set_cleaner(&fs, CLEANER);
	assert_true(fsd_is_internal(&fs, from(&of_cleaner)));
	assert_false(fsd_is_internal(&fs, from(&of_somebody)));
}

static void restricted_to_reading_refuses_all_writers_but_the_applier(void **state)
{
	fsd_admission_restrict(&fs, FSD_ADMITS_READING);
	assert_true(fsd_enter(&fs, from(&of_somebody)));
	fsd_leave(&fs);
	assert_false(fsd_enter_to_write(&fs, from(&of_somebody)));
	assert_int_equal(replied, EIO);
	assert_true(fsd_enter_to_write(&fs, from(&of_applier)));
	fsd_leave(&fs);
	assert_true(fsd_enter_to_write_as(&fs, from(&of_somebody), true));
	fsd_leave(&fs);
	assert_false(fsd_admission_is_shut(&fs));
}

static void restricted_to_none_refuses_all(void **state)
{
	fsd_admission_restrict(&fs, FSD_ADMITS_READING);
	fsd_admission_restrict(&fs, FSD_ADMITS_NONE);
	assert_false(fsd_enter(&fs, from(&of_somebody)));
	assert_int_equal(replied, ENOTCONN);
	assert_false(fsd_enter_to_write(&fs, from(&of_applier)));
	assert_false(fsd_enter_as(&fs, from(&of_somebody), true));
	assert_true(fsd_admission_is_shut(&fs));
}

struct holder {
	bool to_write;
	sem_t entered, may_leave;
};

static void *hold_main(void *arg)
{
	struct holder *h = arg;
	fuse_req_t req = from(&of_somebody);

	assert_true(h->to_write ? fsd_enter_to_write(&fs, req) : fsd_enter(&fs, req));
	sem_post(&h->entered);
	sem_wait(&h->may_leave);
	fsd_leave(&fs);
	return NULL;
}

static _Atomic bool is_restricted;

static void *restrict_main(void *arg)
{
	fsd_admission_restrict(&fs, *(enum fsd_admits *)arg);
	atomic_store(&is_restricted, true);
	return NULL;
}

/* A request is inside while others are refused already. */
static void assert_waits_for(bool to_write, enum fsd_admits admits)
{
	struct holder holder = {.to_write = to_write};
	fuse_req_t other = from(&of_somebody);
	pthread_t holds, restricts;

	sem_init(&holder.entered, 0, 0);
	sem_init(&holder.may_leave, 0, 0);
	atomic_store(&is_restricted, false);
	assert_int_equal(pthread_create(&holds, NULL, hold_main, &holder), 0);
	sem_wait(&holder.entered);
	assert_int_equal(pthread_create(&restricts, NULL, restrict_main, &admits), 0);
	while (to_write ? fsd_enter_to_write(&fs, other) : fsd_enter(&fs, other)) {
		fsd_leave(&fs);
		sched_yield();
	}
	assert_false(atomic_load(&is_restricted));
	sem_post(&holder.may_leave);
	assert_int_equal(pthread_join(restricts, NULL), 0);
	assert_true(atomic_load(&is_restricted));
	pthread_join(holds, NULL);
}

static void restriction_waits_for_those_inside_that_it_would_refuse(void **state)
{
	assert_waits_for(true, FSD_ADMITS_READING);
	assert_waits_for(false, FSD_ADMITS_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(all_are_admitted_at_first, begin, end),
		cmocka_unit_test_setup_teardown(applier_and_cleaner_are_internal, begin, end),
		cmocka_unit_test_setup_teardown(
			restricted_to_reading_refuses_all_writers_but_the_applier, begin, end),
		cmocka_unit_test_setup_teardown(restricted_to_none_refuses_all, begin, end),
		cmocka_unit_test_setup_teardown(
			restriction_waits_for_those_inside_that_it_would_refuse, begin, end),
	};

	return cmocka_run_group_tests_name("fusefs_admission", tests, NULL, NULL);
}
