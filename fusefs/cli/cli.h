/* Common to the subcommands. Exit codes: 0 done, 1 failed, 2 not understood. */
#ifndef FUSEFS_CLI_H
#define FUSEFS_CLI_H

#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include "node/escape.h"
#include "walrepl.h"

#define FSD_EXIT_FAILED 1
#define FSD_EXIT_USAGE 2

/* argv[0] is the subcommand's name. */
int fsd_cmd_log(int argc, char **argv);
int fsd_cmd_mount(int argc, char **argv);
int fsd_cmd_recover(int argc, char **argv);
int fsd_cmd_status(int argc, char **argv);
int fsd_cmd_transfer(int argc, char **argv);
int fsd_cmd_umount(int argc, char **argv);

/* One line on stderr: "dqlitefs: ...". It is escaped as a whole: names are put into it as they are. */
void fsd_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The next option as getopt_long(3) tells it, -1 after the last, '?' after a complaint. The short
 * options must start with a colon. */
int fsd_next_option(int argc, char **argv, const char *short_options, const struct option *options);

/* The only argument that is not an option; NULL after a complaint. `what` is its name. */
const char *fsd_only_argument(int argc, char **argv, const char *what);

/* A name or a text of others, for people (escape.h): returns `out`. */
#define FSD_SHOWN_SIZE FSD_ESCAPED_SIZE(WREP_DAMAGE_SIZE)
const char *fsd_shown(const char *bytes, char out[FSD_SHOWN_SIZE]);

/* A size in bytes, or with a suffix in powers of 1024: K, M, G, T. 0 or -EINVAL. */
int fsd_parse_size(const char *text, uint64_t *out);

#endif
