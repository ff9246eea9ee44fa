/* Questions about processes and threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "node/process.h"

static pid_t nobody(void)
{
	pid_t child = fork();

	if (!child)
		_exit(0);
	assert_true(child > 0);
	assert_int_equal(waitpid(child, NULL, 0), child);
	return child;
}

/* A child that ends by this signal, or, with 0, by itself; not reaped yet. */
static pid_t ended_by(int sig)
{
	siginfo_t info;
	pid_t child = fork();

	if (!child) {
		if (!sig)
			_exit(3);
		for (;;)
			pause();
	}
	assert_true(child > 0);
	if (sig)
		assert_int_equal(kill(child, sig), 0);
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	return child;
}

static void *ask_of_oneself(void *arg)
{
	pid_t *process = arg;

	*process = fsd_process_of(gettid());
	return NULL;
}

static void process_of_a_thread_is_found(void **state)
{
	pid_t process = 0, gone = nobody();
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, ask_of_oneself, &process), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(process, getpid());
	assert_int_equal(fsd_process_of(gone), gone);
}

static void killed_is_who_ends_by_a_signal(void **state)
{
	pid_t killed = ended_by(SIGKILL), ended = ended_by(0);

	assert_true(fsd_process_is_killed(killed));
	assert_false(fsd_process_is_killed(ended));
	assert_false(fsd_process_is_killed(getpid()));
	waitpid(killed, NULL, 0);
	waitpid(ended, NULL, 0);
	assert_false(fsd_process_is_killed(killed));
}

static void dying_is_whose_main_thread_has_ended(void **state)
{
	pid_t ended = ended_by(0);

	assert_true(fsd_process_is_dying(ended));
	assert_false(fsd_process_is_dying(getpid()));
	waitpid(ended, NULL, 0);
	assert_false(fsd_process_is_dying(ended));
}

static void signal_that_is_not_blocked_is_seen(void **state)
{
	pid_t child = fork();
	int status;

	if (!child)
		for (;;)
			pause();
	assert_true(child > 0);
	/* who is stopped handles none */
	assert_int_equal(kill(child, SIGSTOP), 0);
	assert_int_equal(waitpid(child, &status, WUNTRACED), child);
	assert_true(WIFSTOPPED(status));
	assert_false(fsd_process_has_signal(child));
	assert_int_equal(kill(child, SIGTERM), 0);
	assert_true(fsd_process_has_signal(child));
	assert_int_equal(kill(child, SIGKILL), 0);
	waitpid(child, NULL, 0);
	assert_true(fsd_process_has_signal(child)); /* gone */
}

static void signal_that_is_blocked_is_none(void **state)
{
	sigset_t set, before;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	assert_int_equal(pthread_sigmask(SIG_BLOCK, &set, &before), 0);
	assert_int_equal(raise(SIGUSR1), 0);
	assert_false(fsd_process_has_signal(gettid()));
	assert_int_equal(sigwait(&set, &sig), 0);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(process_of_a_thread_is_found),
		cmocka_unit_test(killed_is_who_ends_by_a_signal),
		cmocka_unit_test(dying_is_whose_main_thread_has_ended),
		cmocka_unit_test(signal_that_is_not_blocked_is_seen),
		cmocka_unit_test(signal_that_is_blocked_is_none),
	};

	return cmocka_run_group_tests_name("fusefs_process", tests, NULL, NULL);
}
