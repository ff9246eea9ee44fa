/* Options and arguments, with one line for everything that is wrong with them. */
#include "cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "node/addr.h"
#include "node/escape.h"

void fsd_complain(const char *format, ...)
{
	char line[FSD_ERRMSG_SIZE], shown[FSD_ESCAPED_SIZE(FSD_ERRMSG_SIZE)];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	fsd_escape(FSD_FOR_PEOPLE, line, shown, sizeof(shown));
	fprintf(stderr, "dqlitefs: %s\n", shown);
}

int fsd_next_option(int argc, char **argv, const char *short_options, const struct option *options)
{
	int c, index = optind ? optind : 1;

	opterr = 0;
	c = getopt_long(argc, argv, short_options, options, NULL);
	if (c == ':') {
		fsd_complain("option '%s' wants a value: see 'dqlitefs help %s'", argv[optind - 1],
			     argv[0]);
		return '?';
	}
	if (c == '?') {
		/* A bad short option leaves optind behind when it is one of several. */
		const char *word = optopt && optind == index ? argv[index] : argv[optind - 1];

		fsd_complain("unknown option '%s' for %s: see 'dqlitefs help %s'", word, argv[0],
			     argv[0]);
	}
	return c;
}

const char *fsd_only_argument(int argc, char **argv, const char *what)
{
	if (optind == argc) {
		fsd_complain("%s wants a %s: see 'dqlitefs help %s'", argv[0], what, argv[0]);
		return NULL;
	}
	if (optind + 1 < argc) {
		fsd_complain("%s takes one %s, '%s' is one too many: see 'dqlitefs help %s'",
			     argv[0], what, argv[optind + 1], argv[0]);
		return NULL;
	}
	if (!argv[optind][0]) {
		fsd_complain("the %s is empty: see 'dqlitefs help %s'", what, argv[0]);
		return NULL;
	}
	return argv[optind];
}

const char *fsd_shown(const char *bytes, char out[FSD_SHOWN_SIZE])
{
	fsd_escape(FSD_FOR_PEOPLE, bytes, out, FSD_SHOWN_SIZE);
	return out;
}

int fsd_parse_size(const char *text, uint64_t *out)
{
	static const char suffixes[] = "KMGT";
	const char *suffix;
	unsigned shift = 0;
	char *end;
	unsigned long long value;

	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (*end) {
		suffix = strchr(suffixes, *end >= 'a' && *end <= 'z' ? *end - 'a' + 'A' : *end);
		if (!suffix || end[1])
			return -EINVAL;
		shift = 10 * (unsigned)(suffix - suffixes + 1);
	}
	if (errno || value > UINT64_MAX >> shift)
		return -EINVAL;
	*out = (uint64_t)value << shift;
	return 0;
}
