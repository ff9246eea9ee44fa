/* Bytes of others on their way out, and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "node/escape.h"
#include "node/values.h"

static void escaped_as_documented(void **state)
{
	static const struct {
		const char *bytes, *people, *json;
	} cases[] = {
		{"", "", ""},
		{"app.db", "app.db", "app.db"},
		{"mit Leer zeichen \"'.db", "mit Leer zeichen \"'.db", "mit Leer zeichen \"'.db"},
		{"gr\xc3\xbc\xc3\x9f\x65 \xe6\x97\xa5 \xf0\x9f\x98\x80.db",
		 "gr\xc3\xbc\xc3\x9f\x65 \xe6\x97\xa5 \xf0\x9f\x98\x80.db",
		 "gr\xc3\xbc\xc3\x9f\x65 \xe6\x97\xa5 \xf0\x9f\x98\x80.db"},
		{"a\nb\tc\\d.db", "a\\nb\\tc\\\\d.db", "a\nb\tc\\\\d.db"},
		{"\r\x1b[2J\x7f", "\\x0d\\x1b[2J\\x7f", "\r\x1b[2J\x7f"},
		{"\xff.db", "\\xff.db", "\\xff.db"},
		{"\\xff.db", "\\\\xff.db", "\\\\xff.db"},
		{"\xc2\x9b", "\\xc2\\x9b", "\xc2\x9b"},			/* C1: CSI */
		{"\xe2\x80\xae", "\\xe2\\x80\\xae", "\xe2\x80\xae"},	/* right to left */
		{"\xe2\x80\xa8", "\\xe2\\x80\\xa8", "\xe2\x80\xa8"},	/* a line separator */
		{"\x9b", "\\x9b", "\\x9b"},				/* a C1 byte by itself */
		{"\xc3", "\\xc3", "\\xc3"},				/* cut off */
		{"\xe6\x97x", "\\xe6\\x97x", "\\xe6\\x97x"},		/* cut off */
		{"\xc0\xaf", "\\xc0\\xaf", "\\xc0\\xaf"},		/* too long for '/' */
		{"\xe0\x82\x9b", "\\xe0\\x82\\x9b", "\\xe0\\x82\\x9b"}, /* and for C1 */
		{"\xed\xa0\x80", "\\xed\\xa0\\x80", "\\xed\\xa0\\x80"}, /* a surrogate */
		{"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80", "\\xf4\\x90\\x80\\x80"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char out[100];

		assert_int_equal(fsd_escape(FSD_FOR_PEOPLE, cases[i].bytes, out, sizeof(out)),
				 strlen(cases[i].people));
		assert_string_equal(out, cases[i].people);
		fsd_escape(FSD_FOR_JSON, cases[i].bytes, out, sizeof(out));
		assert_string_equal(out, cases[i].json);
	}
}

/* Back to what it was, whoever it was made for; so no two names look alike. JSON takes it. */
static void check_there_and_back(const char *bytes)
{
	for (int whom = FSD_FOR_PEOPLE; whom <= FSD_FOR_JSON; whom++) {
		char *text = fsd_escaped((enum fsd_escape_for)whom, bytes), *again;
		json_t *value = json_string(text);

		assert_non_null(value);
		for (const char *c = text; whom == FSD_FOR_PEOPLE && *c; c++)
			assert_true((unsigned char)*c >= ' ' && *c != 0x7f);
		again = fsd_bytes_of(value);
		assert_non_null(again);
		assert_string_equal(again, bytes);
		free(again);
		free(text);
		json_decref(value);
	}
}

static void every_name_comes_back(void **state)
{
	uint64_t random = 1;

	(void)state;
	for (unsigned a = 1; a < 256; a++) {
		for (unsigned b = 0; b < 256; b++) {
			const char bytes[] = {(char)a, (char)b, 0};

			check_there_and_back(bytes);
		}
	}
	for (unsigned round = 0; round < 50000; round++) {
		/* mostly of what begins and goes on in UTF-8, and in an escape */
		static const char likely[] = "\\xnt0f\n\xc2\x80\x9b\xe2\xed\xa0\xf0\x90\xf4\xff";
		char bytes[9] = "";

		for (unsigned i = 0; i < 8; i++) {
			random = random * 6364136223846793005 + 1442695040888963407;
			bytes[i] = likely[(random >> 33) % (sizeof(likely) - 1)];
		}
		check_there_and_back(bytes);
	}
}

static void no_escape_is_cut_in_two(void **state)
{
	static const char bytes[] = "a\n\xff\xc3\xbc\xc2\x9b";
	char whole[50], part[50];
	const size_t len = fsd_escape(FSD_FOR_PEOPLE, bytes, whole, sizeof(whole));

	(void)state;
	for (size_t size = 1; size <= len; size++) {
		size_t done = fsd_escape(FSD_FOR_PEOPLE, bytes, part, size);

		assert_true(done < size);
		assert_memory_equal(part, whole, done);
		assert_int_equal(fsd_unescape(part), 0);
		assert_memory_equal(part, bytes, strlen(part));
	}
}

static void what_is_no_escape_is_refused(void **state)
{
	static const char *const bad[] = {"\\",	  "a\\",   "\\a",   "\\x",
					  "\\x1", "\\xg0", "\\x00", "\\X41"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char text[8];

		strcpy(text, bad[i]);
		assert_int_equal(fsd_unescape(text), -EINVAL);
	}
}

static void numbers_of_64_bits_come_back(void **state)
{
	static const uint64_t numbers[] = {0, 1, INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		json_t *value = fsd_number_json(numbers[i]), *again;
		char *text = json_dumps(value, JSON_ENCODE_ANY);

		assert_null(strchr(text, '-'));
		again = json_loads(text, JSON_DECODE_ANY, NULL);
		assert_true(fsd_number_of(again) == numbers[i]);
		assert_int_equal(json_is_integer(value), numbers[i] <= INT64_MAX);
		json_decref(value);
		json_decref(again);
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(escaped_as_documented),
		cmocka_unit_test(every_name_comes_back),
		cmocka_unit_test(no_escape_is_cut_in_two),
		cmocka_unit_test(what_is_no_escape_is_refused),
		cmocka_unit_test(numbers_of_64_bits_come_back),
	};

	return cmocka_run_group_tests_name("fusefs_escape", tests, NULL, NULL);
}
