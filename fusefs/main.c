/* The command line: `dqlitefs COMMAND ...`. */
#include <stdio.h>
#include <string.h>
#include "cli/cli.h"

#ifndef DQLITEFS_VERSION
#define DQLITEFS_VERSION "0.1.0"
#endif

static const char intro[] =
	"dqlitefs: SQLite databases in a directory that several machines share, every commit\n"
	"agreed by a majority of them before it returns.\n"
	"\n";

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} commands[] = {
	{"mount", fsd_cmd_mount,
	 "  dqlitefs mount MOUNTPOINT [OPTIONS]\n"
	 "      --data DIR               where this node keeps its files\n"
	 "                               (default /var/lib/dqlitefs/<mount point, / as ->)\n"
	 "      --listen HOST:PORT       the address at which other nodes reach this one\n"
	 "                               (default 127.0.0.1 with a port that is then kept)\n"
	 "      --join HOST:PORT         join the cluster that this member belongs to\n"
	 "                               (without it an empty data directory starts a new one)\n"
	 "      --match GLOB             more names that are databases; may be repeated\n"
	 "      --fuse-uring=auto|on|off requests over io_uring; 'on' also switches it on in the\n"
	 "                               kernel, 'auto' uses it when it is on (default auto)\n"
	 "      --commit-timeout SECONDS how long a commit waits for a majority (default 10)\n"
	 "      --election-timeout MS    a leader silent for so long is replaced (default 500)\n"
	 "      --max-transaction SIZE   a larger one fails: database or disk is full (default 4G)\n"
	 "      -o OPTS                  further mount options, for example ro,noexec\n"
	 "      --foreground             stay, and log to stderr\n"
	 "      --log FILE               (default DIR/.dqlitefs/log)\n"
	 "      --log-size SIZE          keep the Raft log about this small (default 64M)\n"
	 "      --scrub-rate SIZE        read so much of the databases per second to find\n"
	 "                               damage (default 8M)\n"},
	{"status", fsd_cmd_status,
	 "  dqlitefs status MOUNTPOINT [--json]                  the node, its cluster, its databases\n"},
	{"transfer", fsd_cmd_transfer,
	 "  dqlitefs transfer MOUNTPOINT [--to NODE|HOST:PORT]   hand leadership over\n"},
	{"umount", fsd_cmd_umount,
	 "  dqlitefs umount MOUNTPOINT                           unmount, and wait for the end\n"},
	{"log", fsd_cmd_log,
	 "  dqlitefs log --data DIR [--json]                     what the log of a stopped node holds\n"
	 "      --json                   one JSON object per line; \"kind\" says of what: node,\n"
	 "                               snapshot, segment, entry (its \"type\": create, unlink,\n"
	 "                               setattr, pages, commit, discard, group, mkdir, rmdir,\n"
	 "                               rename, members, barrier, truncation, unknown), database,\n"
	 "                               directory, summary, damage; damage also ends in exit code 1\n"},
	{"recover", fsd_cmd_recover,
	 "  dqlitefs recover --data DIR [--yes]   when most nodes are lost for good: make this stopped\n"
	 "                               node a cluster of one, with all that its log holds. Without\n"
	 "                               --yes only says what would be done, and exits 0 if it can\n"
	 "                               be. On one node only: the others are to be emptied, and to\n"
	 "                               join again\n"},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* Prints the help of one command, or with NULL of all. False: there is no such. */
static bool help(const char *command, FILE *to)
{
	bool any = false;

	if (!command)
		fputs(intro, to);
	for (size_t i = 0; i < COMMANDS; i++) {
		if (command && strcmp(command, commands[i].name))
			continue;
		fputs(commands[i].help, to);
		any = true;
	}
	if (!command)
		fputs("  dqlitefs help [COMMAND] | COMMAND --help | --version\n", to);
	return any;
}

/* Is there "--help" among the options? It is no value of one: those would need a better name. */
static bool asks_for_help(int argc, char **argv)
{
	for (int i = 0; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
			return true;
	return false;
}

int main(int argc, char **argv)
{
	const char *command = argv[1];

	if (argc < 2) {
		help(NULL, stderr);
		return FSD_EXIT_USAGE;
	}
	if (!strcmp(command, "help") || !strcmp(command, "--help") || !strcmp(command, "-h")) {
		if (help(argv[2], stdout))
			return 0;
		command = argv[2];
	}
	if (!strcmp(command, "--version") || !strcmp(command, "-V")) {
		puts("dqlitefs " DQLITEFS_VERSION);
		return 0;
	}
	for (size_t i = 0; i < COMMANDS; i++) {
		if (strcmp(command, commands[i].name))
			continue;
		if (!asks_for_help(argc - 2, argv + 2))
			return commands[i].run(argc - 1, argv + 1);
		help(command, stdout);
		return 0;
	}
	fsd_complain("unknown command '%s': see 'dqlitefs help'", command);
	return FSD_EXIT_USAGE;
}
