/* Waits end by the clock that only goes forward, whatever the wall clock says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include "clock.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;

/* 0, or what ended it. Others may wake it for nothing. */
static int wait_until(uint64_t until_ns)
{
	int rv;

	pthread_mutex_lock(&mutex);
	do
		rv = rlog_cond_wait(&cond, &mutex, until_ns);
	while (!rv);
	pthread_mutex_unlock(&mutex);
	return rv;
}

static void clock_goes_forward_in_both_units(void **state)
{
	uint64_t ms = rlog_clock_ms(), ns = rlog_clock_ns();

	(void)state;
	assert_true(ns / RLOG_NS_PER_MS >= ms);
	assert_true(rlog_clock_ms() >= ns / RLOG_NS_PER_MS);
}

static void wait_ends_at_its_time_and_not_before(void **state)
{
	const uint64_t until_ns = rlog_clock_ns() + 20 * RLOG_NS_PER_MS;

	(void)state;
	assert_int_equal(wait_until(until_ns), -ETIMEDOUT);
	assert_true(rlog_clock_ns() >= until_ns);
}

static void wait_for_what_is_past_ends_at_once(void **state)
{
	(void)state;
	assert_int_equal(wait_until(0), -ETIMEDOUT);
	assert_int_equal(wait_until(rlog_clock_ns()), -ETIMEDOUT);
}

static void *signal_it(void *arg)
{
	pthread_mutex_lock(&mutex);
	*(int *)arg = 1;
	pthread_cond_signal(&cond);
	pthread_mutex_unlock(&mutex);
	return NULL;
}

static void signal_ends_a_wait(void **state)
{
	const uint64_t until_ns = rlog_clock_ns() + 3600 * RLOG_NS_PER_S;
	int told = 0, rv = 0;
	pthread_t thread;

	(void)state;
	pthread_mutex_lock(&mutex);
	assert_int_equal(pthread_create(&thread, NULL, signal_it, &told), 0);
	while (!told && !rv)
		rv = rlog_cond_wait(&cond, &mutex, until_ns);
	pthread_mutex_unlock(&mutex);
	pthread_join(thread, NULL);
	assert_int_equal(rv, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clock_goes_forward_in_both_units),
		cmocka_unit_test(wait_ends_at_its_time_and_not_before),
		cmocka_unit_test(wait_for_what_is_past_ends_at_once),
		cmocka_unit_test(signal_ends_a_wait),
	};

	return cmocka_run_group_tests_name("raftlog_clock", tests, NULL, NULL);
}
