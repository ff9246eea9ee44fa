/* A hostile writer of a -wal: the inputs of tests/fuzz/fuzz_capture.c, without libFuzzer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "fuzz_capture.h"

#define INPUTS 50000u
#define INPUT_BYTES 240u

/* The one that is being run, for who has to repeat it. */
static volatile unsigned long long running;

static void tell(int sig)
{
	char line[80];
	int n = snprintf(line, sizeof(line), "# repeat with HOSTILE_SEED=%llu\n", running);

	(void)!write(STDERR_FILENO, line, (size_t)n);
	signal(sig, SIG_DFL);
	raise(sig);
}

/* splitmix64 */
static uint64_t random_word(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static void run_seed(uint64_t seed)
{
	uint8_t input[INPUT_BYTES];
	uint64_t state = seed;

	running = seed;
	for (size_t i = 0; i < sizeof(input); i += 8) {
		uint64_t word = random_word(&state);

		memcpy(input + i, &word, 8);
	}
	LLVMFuzzerTestOneInput(input, sizeof(input));
}

static void random_inputs_do_not_get_through(void **state)
{
	const char *one = getenv("HOSTILE_SEED");

	(void)state;
	if (one) {
		run_seed(strtoull(one, NULL, 10));
		return;
	}
	for (uint64_t seed = 1; seed <= INPUTS; seed++)
		run_seed(seed);
}

/* Each of these once did. */
static void former_inputs_do_not_get_through(void **state)
{
	static const char *const inputs[] = {
		"016c6c000000a16c01002d000686260026",
		"050000cc0e0000000000280000cc0e0103cbd4c63126",
		"014400003bb4e60a000e2c3d68fdfdfe00000a000e6dffe644",
		"f0f0f01af0e00d010390f1f0f0d6f0",
		"00f8000100ffff7e92bce2f6f8c6c69ac60a5b5b00858418f87b",
		"00ff010000050067676767008f003db333323300ff",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++) {
		uint8_t input[INPUT_BYTES];
		size_t len = strlen(inputs[i]) / 2;

		for (size_t k = 0; k < len; k++) {
			const char digits[] = {inputs[i][2 * k], inputs[i][2 * k + 1], '\0'};

			input[k] = (uint8_t)strtoul(digits, NULL, 16);
		}
		LLVMFuzzerTestOneInput(input, len);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(former_inputs_do_not_get_through),
		cmocka_unit_test(random_inputs_do_not_get_through),
	};

	signal(SIGABRT, tell);
	return cmocka_run_group_tests_name("walrepl_hostile", tests, NULL, NULL);
}
