/* dqlitefs status MOUNTPOINT [--json]: what the daemon says of itself, for people or for programs. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "cli/cli.h"
#include "cli/client.h"

static uint64_t number_of(json_t *object, const char *key)
{
	return fsd_number_of(json_object_get(object, key));
}

/* A daemon from before the levels says nothing of them. */
static void print_format(json_t *format)
{
	if (!json_is_object(format))
		return;
	printf("format   reads level %" PRIu64 ", the log needs %" PRIu64,
	       number_of(format, "reads"), number_of(format, "needed"));
	if (json_is_integer(json_object_get(format, "all_read")))
		printf(", all members read %" PRIu64, number_of(format, "all_read"));
	printf("\n");
}

static void print_node(json_t *status)
{
	json_t *leader = json_object_get(status, "leader"), *log = json_object_get(status, "log");
	json_t *fetch = json_object_get(status, "fetch");
	json_t *damage = json_object_get(status, "damage");
	char a[FSD_SHOWN_SIZE], b[FSD_SHOWN_SIZE];

	printf("node     %s at %s\n", fsd_client_text(status, "node", a),
	       fsd_client_text(status, "address", b));
	printf("role     %s in term %" PRIu64 "\n", fsd_client_text(status, "role", a),
	       number_of(status, "term"));
	if (json_is_object(leader))
		printf("leader   %s at %s\n", fsd_client_text(leader, "node", a),
		       fsd_client_text(leader, "address", b));
	else
		printf("leader   none known\n");
	printf("log      committed %" PRIu64 ", applied %" PRIu64 ", kept from %" PRIu64
	       " on in %" PRIu64 " MiB\n",
	       number_of(status, "commit_index"), number_of(status, "applied_index"),
	       number_of(log, "first_index"), number_of(log, "bytes") >> 20);
	print_format(json_object_get(status, "format"));
	printf("state    %s\n", fsd_client_text(status, "state", a));
	if (json_is_string(json_object_get(status, "waits")))
		printf("waits    opens wait: %s\n", fsd_client_text(status, "waits", b));
	if (!strcmp(a, "fetching"))
		printf("fetch    %" PRIu64 " MiB compared, %" PRIu64 " MiB fetched\n",
		       number_of(fetch, "compared_bytes") >> 20,
		       number_of(fetch, "fetched_bytes") >> 20);
	if (number_of(damage, "found")) {
		time_t at = (time_t)number_of(damage, "last_at");
		char when[32];

		strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime(&at));
		printf("damage   found %" PRIu64 " times, last at %s: %s\n",
		       number_of(damage, "found"), when, fsd_client_text(damage, "last", a));
	}
}

static void print_members(json_t *status)
{
	char node[FSD_SHOWN_SIZE], address[FSD_SHOWN_SIZE], role[FSD_SHOWN_SIZE];
	json_t *member;
	size_t i;

	printf("\n%-10s %-24s %-8s %12s\n", "MEMBER", "ADDRESS", "ROLE", "MATCH INDEX");
	json_array_foreach(json_object_get(status, "members"), i, member)
		printf("%-10s %-24s %-8s %12" PRIu64 "\n", fsd_client_text(member, "node", node),
		       fsd_client_text(member, "address", address),
		       fsd_client_text(member, "role", role), number_of(member, "match_index"));
}

static void print_databases(json_t *status)
{
	json_t *list = json_object_get(status, "databases"), *db;
	char name[FSD_SHOWN_SIZE], checksum[FSD_SHOWN_SIZE], mode[FSD_SHOWN_SIZE];
	size_t i;

	if (!json_array_size(list)) {
		printf("\nno databases yet\n");
		return;
	}
	printf("\n%-24s %10s  %-16s %9s %10s  %s\n", "DATABASE", "VERSION", "CHECKSUM", "PAGE SIZE",
	       "PAGES", "MODE");
	json_array_foreach(list, i, db)
		printf("%-24s %10" PRIu64 "  %-16s %9" PRIu64 " %10" PRIu64 "  %s%s%s\n",
		       fsd_client_text(db, "name", name), number_of(db, "version"),
		       fsd_client_text(db, "checksum", checksum), number_of(db, "page_size"),
		       number_of(db, "pages"), fsd_client_text(db, "mode", mode),
		       json_is_true(json_object_get(db, "damaged")) ? " DAMAGED" : "",
		       json_is_true(json_object_get(db, "uncommitted")) ? " UNCOMMITTED" : "");
}

int fsd_cmd_status(int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {0}};
	char path[PATH_MAX];
	struct fsd_mountinfo mount;
	const char *mountpoint;
	bool as_json = false;
	json_t *status;
	int c;

	while ((c = fsd_next_option(argc, argv, ":", options)) != -1) {
		if (c == '?')
			return FSD_EXIT_USAGE;
		as_json = true;
	}
	mountpoint = fsd_only_argument(argc, argv, "MOUNTPOINT");
	if (!mountpoint)
		return FSD_EXIT_USAGE;
	if (fsd_client_find(mountpoint, path, &mount))
		return FSD_EXIT_FAILED;
	status = fsd_client_call(mount.source, json_pack("{s:s}", "command", "status"));
	if (!status)
		return FSD_EXIT_FAILED;
	if (as_json) {
		json_dumpf(status, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
		putchar('\n');
	} else {
		print_node(status);
		print_members(status);
		print_databases(status);
	}
	json_decref(status);
	return fflush(stdout) ? FSD_EXIT_FAILED : 0;
}
