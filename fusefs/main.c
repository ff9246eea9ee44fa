/* The command line: `dqlitefs COMMAND ...`. */
#include <stdio.h>
#include <string.h>
#include "cli.h"

#ifndef DQLITEFS_VERSION
#define DQLITEFS_VERSION "0.1.0"
#endif

static const char help[] =
	"dqlitefs: SQLite databases in a directory that several machines share, every commit\n"
	"agreed by a majority of them before it returns.\n"
	"\n"
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
	"                               damage (default 8M)\n"
	"  dqlitefs status MOUNTPOINT [--json]\n"
	"  dqlitefs transfer MOUNTPOINT [--to NODE|HOST:PORT]   hand leadership over\n"
	"  dqlitefs umount MOUNTPOINT                           unmount, and wait for the end\n"
	"  dqlitefs log --data DIR [--json]                     what the log of a stopped node holds\n"
	"      --json                   one JSON object per line; \"kind\" says of what: node,\n"
	"                               snapshot, segment, entry (its \"type\": create, unlink,\n"
	"                               setattr, pages, commit, discard, members, barrier,\n"
	"                               truncation), database, summary, damage; damage also ends\n"
	"                               in exit code 1\n"
	"  dqlitefs recover --data DIR [--yes]   when most nodes are lost for good: make this stopped\n"
	"                               node a cluster of one, with all that its log holds. Without\n"
	"                               --yes only says what would be done. On one node only: the\n"
	"                               others are to be emptied, and to join again\n"
	"  dqlitefs help | --version\n";

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{"log", fsd_cmd_log},	    {"mount", fsd_cmd_mount},	    {"recover", fsd_cmd_recover},
	{"status", fsd_cmd_status}, {"transfer", fsd_cmd_transfer}, {"umount", fsd_cmd_umount},
};

int main(int argc, char **argv)
{
	if (argc < 2) {
		fputs(help, stderr);
		return FSD_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		fputs(help, stdout);
		return 0;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		puts("dqlitefs " DQLITEFS_VERSION);
		return 0;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(argv[1], commands[i].name))
			continue;
		for (int j = 2; j < argc && strcmp(argv[j], "--"); j++) {
			if (!strcmp(argv[j], "--help") || !strcmp(argv[j], "-h")) {
				fputs(help, stdout);
				return 0;
			}
		}
		return commands[i].run(argc - 1, argv + 1);
	}
	fsd_complain("unknown command '%s': see 'dqlitefs help'", argv[1]);
	return FSD_EXIT_USAGE;
}
