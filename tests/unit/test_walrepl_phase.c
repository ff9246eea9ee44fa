/* How far a node has come, and whether it goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <string.h>
#include <time.h>
#include "base/phase.h"
#include "base/wrep.h"

static struct wrep w;

static int setup(void **state)
{
	memset(&w, 0, sizeof(w));
	wrep_phase_init(&w.phase);
	return 0;
}

static int teardown(void **state)
{
	wrep_phase_destroy(&w.phase);
	return 0;
}

static void (*act_soon)(void);

static void *soon(void *arg)
{
	(void)arg;
	nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	act_soon();
	return NULL;
}

/* Calls `act` a little later, from another thread, while `wait` waits for it. */
static void wait_for(void (*wait)(struct wrep *w), void (*act)(void))
{
	pthread_t thread;

	act_soon = act;
	assert_int_equal(pthread_create(&thread, NULL, soon, NULL), 0);
	wait(&w);
	pthread_join(thread, NULL);
}

static void open_it(void)
{
	wrep_phase_opened(&w);
}

static void close_it(void)
{
	wrep_phase_close(&w);
}

static void end_fetch(void)
{
	wrep_phase_fetched(&w, true);
}

static void node_opens_catches_up_and_serves(void **state)
{
	assert_false(wrep_opened(&w) || wrep_delivers(&w) || wrep_is_ready(&w));
	assert_false(wrep_phase_serve(&w));
	wait_for(wrep_phase_wait_opened, open_it);
	assert_true(wrep_opened(&w) && wrep_delivers(&w) && wrep_goes_on(&w));
	assert_false(wrep_is_ready(&w));
	assert_true(wrep_phase_serve(&w));
	assert_true(wrep_phase_serve(&w)); /* raftlog tells more than once */
	assert_true(wrep_is_ready(&w) && wrep_delivers(&w));
}

static void unfit_node_delivers_nothing_until_it_has_fetched(void **state)
{
	open_it();
	assert_true(wrep_phase_serve(&w));
	assert_true(wrep_phase_can_be_unfit(&w));
	assert_true(wrep_phase_unfit(&w));
	assert_false(wrep_phase_can_be_unfit(&w));
	assert_false(wrep_phase_unfit(&w)); /* it is */
	assert_true(wrep_fetching(&w));
	assert_false(wrep_delivers(&w) || wrep_goes_on(&w) || wrep_is_ready(&w));
	assert_false(wrep_phase_serve(&w));
	wrep_phase_wait_fetched(&w); /* it has not begun */
	assert_true(wrep_phase_fetch(&w));
	assert_true(wrep_fetching(&w));
	assert_false(wrep_phase_unfit(&w));
	wait_for(wrep_phase_wait_fetched, end_fetch);
	assert_false(wrep_fetching(&w) || wrep_is_ready(&w));
	assert_true(wrep_delivers(&w) && wrep_phase_serve(&w));
}

static void node_that_is_unfit_from_the_start_stays_so_when_it_is_opened(void **state)
{
	assert_true(wrep_phase_unfit(&w));
	wrep_phase_opened(&w);
	assert_true(wrep_fetching(&w) && wrep_opened(&w));
}

static void fetch_that_fails_leaves_the_node_unfit(void **state)
{
	open_it();
	assert_true(wrep_phase_unfit(&w));
	assert_true(wrep_phase_fetch(&w));
	close_it();
	wrep_phase_fetched(&w, false);
	assert_true(wrep_fetching(&w));
	assert_false(wrep_phase_fetch(&w)); /* it stops */
	assert_false(wrep_delivers(&w));
}

static void closing_node_judges_what_still_comes_and_is_as_ready_as_before(void **state)
{
	open_it();
	assert_true(wrep_phase_serve(&w));
	close_it();
	assert_true(wrep_closing(&w) && wrep_stopping(&w) && wrep_delivers(&w) &&
		    wrep_is_ready(&w));
	assert_false(wrep_goes_on(&w) || wrep_phase_unfit(&w));
}

static void closing_ends_the_wait_for_the_opening(void **state)
{
	wait_for(wrep_phase_wait_opened, close_it);
	assert_false(wrep_opened(&w));
}

static void failed_node_delivers_nothing_even_when_it_closes(void **state)
{
	open_it();
	assert_true(wrep_phase_fail(&w));
	assert_false(wrep_phase_fail(&w)); /* told of once */
	assert_true(wrep_stopping(&w));
	assert_false(wrep_closing(&w) || wrep_delivers(&w) || wrep_phase_unfit(&w));
	close_it();
	assert_true(wrep_closing(&w));
	assert_false(wrep_delivers(&w) || wrep_phase_fail(&w));
}

static void closing_node_may_fail(void **state)
{
	open_it();
	close_it();
	assert_true(wrep_phase_fail(&w));
	assert_true(wrep_closing(&w));
	assert_false(wrep_delivers(&w));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(node_opens_catches_up_and_serves),
		TEST(unfit_node_delivers_nothing_until_it_has_fetched),
		TEST(node_that_is_unfit_from_the_start_stays_so_when_it_is_opened),
		TEST(fetch_that_fails_leaves_the_node_unfit),
		TEST(closing_node_judges_what_still_comes_and_is_as_ready_as_before),
		TEST(closing_ends_the_wait_for_the_opening),
		TEST(failed_node_delivers_nothing_even_when_it_closes),
		TEST(closing_node_may_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
