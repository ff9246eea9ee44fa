/* Names, addresses and texts of others, on their way out: to a terminal, a log, a program.
 *
 * A file name may hold any byte but 0 and '/'. Whoever makes a file may not thereby write a line of the log,
 * move a terminal's cursor, or make JSON that nobody can read. So what is not ours is escaped where it leaves
 * the daemon or a command, here and nowhere else, and once:
 *
 *   \\               a backslash
 *   \n  \t           a line break, a tab
 *   \xHH             any other byte that cannot stand there: control characters (those of Unicode, too, and
 *                    those that turn the direction of writing), and bytes that are no UTF-8
 *
 * Everything else stands for itself. So two names never look alike, and fsd_unescape() gives the bytes back;
 * so does $'...' in bash.
 */
#ifndef FUSEFS_ESCAPE_H
#define FUSEFS_ESCAPE_H

#include <stddef.h>

enum fsd_escape_for {
	FSD_FOR_PEOPLE, /* all that is said above */
	/* A string of JSON: that has a way to write control characters, and the string may hold them. Only
	 * backslashes and bytes that are no UTF-8 are escaped, in the same way. */
	FSD_FOR_JSON,
};

/* The room that `len` bytes need at most, with the 0. */
#define FSD_ESCAPED_SIZE(len) (4 * (size_t)(len) + 1)

/* Escapes into `out`, up to the last character of which all of it fits; returns the length. */
size_t fsd_escape(enum fsd_escape_for whom, const char *bytes, char *out, size_t size);

/* The same, to be freed; NULL: out of memory. */
char *fsd_escaped(enum fsd_escape_for whom, const char *bytes);

/* Undo either, in place. 0, or -EINVAL: that is nothing that fsd_escape() makes. */
int fsd_unescape(char *text);

#endif
