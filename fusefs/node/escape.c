#include "node/escape.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The length of the UTF-8 character at `s`, which ends with a 0, and its code; 0: there is none. */
static size_t character(const unsigned char *s, uint32_t *code)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const size_t len = s[0] < 0x80	 ? 1
			   : s[0] < 0xc2 ? 0
			   : s[0] < 0xe0 ? 2
			   : s[0] < 0xf0 ? 3
			   : s[0] < 0xf5 ? 4
					 : 0;

	*code = len > 1 ? s[0] & (0x7fu >> len) : s[0];
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		*code = *code << 6 | (s[i] & 0x3f);
	}
	if (len && (*code < least[len] || *code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000)))
		return 0;
	return len;
}

/* Does a terminal, or who reads a line, take it for a command? */
static bool is_control(uint32_t code)
{
	return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x61c || code == 0x200e ||
	       code == 0x200f || (code >= 0x2028 && code <= 0x202e) ||
	       (code >= 0x2066 && code <= 0x2069);
}

/* One byte as an escape of at most 4 characters. */
static size_t escape_byte(unsigned char byte, char out[5])
{
	switch (byte) {
	case '\\':
		strcpy(out, "\\\\");
		break;
	case '\n':
		strcpy(out, "\\n");
		break;
	case '\t':
		strcpy(out, "\\t");
		break;
	default:
		snprintf(out, 5, "\\x%02x", byte);
	}
	return strlen(out);
}

/* The next character, or the next byte that is none, as it goes out. Returns how much of `s` that is. */
static size_t piece(enum fsd_escape_for whom, const unsigned char *s, char out[17], size_t *out_len)
{
	uint32_t code;
	size_t len = character(s, &code);

	*out_len = 0;
	if (len && code != '\\' && (whom == FSD_FOR_JSON || !is_control(code))) {
		memcpy(out, s, len);
		*out_len = len;
		return len;
	}
	if (!len)
		len = 1;
	for (size_t i = 0; i < len; i++)
		*out_len += escape_byte(s[i], out + *out_len);
	return len;
}

size_t fsd_escape(enum fsd_escape_for whom, const char *bytes, char *out, size_t size)
{
	const unsigned char *s = (const unsigned char *)bytes;
	size_t done = 0;

	while (*s) {
		char next[17];
		size_t len, used = piece(whom, s, next, &len);

		if (done + len >= size)
			break;
		memcpy(out + done, next, len);
		done += len;
		s += used;
	}
	out[done] = '\0';
	return done;
}

char *fsd_escaped(enum fsd_escape_for whom, const char *bytes)
{
	const size_t size = FSD_ESCAPED_SIZE(strlen(bytes));
	char *out = malloc(size);

	if (out)
		fsd_escape(whom, bytes, out, size);
	return out;
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int fsd_unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from;) {
		if (*from != '\\') {
			*to++ = *from++;
			continue;
		}
		from++;
		if (*from == '\\' || *from == 'n' || *from == 't') {
			*to++ = (char)(*from == 'n' ? '\n' : *from == 't' ? '\t' : '\\');
			from++;
		} else if (*from == 'x' && digit(from[1]) >= 0 && digit(from[2]) >= 0 &&
			   (digit(from[1]) || digit(from[2]))) {
			*to++ = (char)(digit(from[1]) << 4 | digit(from[2]));
			from += 3;
		} else {
			return -EINVAL;
		}
	}
	*to = '\0';
	return 0;
}
