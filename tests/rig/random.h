/* Random numbers that a seed repeats: WREP_TEST_SEED, or else one that nobody has had. */
#ifndef TEST_RANDOM_H
#define TEST_RANDOM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t seed, rng;
static int round_now;

/* xorshift64* */
static inline uint64_t random64(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng * UINT64_C(0x2545f4914f6cdd1d);
}

static inline uint32_t random_below(uint32_t n)
{
	return (uint32_t)((random64() >> 32) % n);
}

/* The numbers of this round are the same whatever came before it. */
static inline void random_round(int round)
{
	round_now = round;
	rng = (seed + (uint64_t)round * 1000003) * UINT64_C(0x9e3779b97f4a7c15) | 1;
	for (int i = 0; i < 8; i++)
		random64();
}

static inline void random_begin(void)
{
	const char *given = getenv("WREP_TEST_SEED");

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) << 16 ^ (uint64_t)getpid();
	random_round(0);
}

/* An assertion that tells how to repeat its failure. */
#define check(cond)                                                                 \
	do {                                                                        \
		if (!(cond)) {                                                      \
			print_error("repeat with WREP_TEST_SEED=%llu (round %d)\n", \
				    (unsigned long long)seed, round_now);           \
			assert_true(cond);                                          \
		}                                                                   \
	} while (0)

#endif
