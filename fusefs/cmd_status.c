/* dqlitefs status MOUNTPOINT [--json]: what the daemon says of itself, for people or for programs. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "cli.h"
#include "client.h"

static const char *string_of(json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "-";
}

static json_int_t number_of(json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static void print_node(json_t *status)
{
	json_t *leader = json_object_get(status, "leader"), *log = json_object_get(status, "log");
	json_t *fetch = json_object_get(status, "fetch");
	json_t *damage = json_object_get(status, "damage");

	printf("node     %s at %s\n", string_of(status, "node"), string_of(status, "address"));
	printf("role     %s in term %" JSON_INTEGER_FORMAT "\n", string_of(status, "role"),
	       number_of(status, "term"));
	if (json_is_object(leader))
		printf("leader   %s at %s\n", string_of(leader, "node"),
		       string_of(leader, "address"));
	else
		printf("leader   none known\n");
	printf("log      committed %" JSON_INTEGER_FORMAT ", applied %" JSON_INTEGER_FORMAT
	       ", kept from %" JSON_INTEGER_FORMAT " on in %" JSON_INTEGER_FORMAT " MiB\n",
	       number_of(status, "commit_index"), number_of(status, "applied_index"),
	       number_of(log, "first_index"), number_of(log, "bytes") >> 20);
	printf("state    %s\n", string_of(status, "state"));
	if (json_is_string(json_object_get(status, "waits")))
		printf("waits    opens wait: %s\n", string_of(status, "waits"));
	if (!strcmp(string_of(status, "state"), "fetching"))
		printf("fetch    %" JSON_INTEGER_FORMAT " MiB compared, %" JSON_INTEGER_FORMAT
		       " MiB fetched\n",
		       number_of(fetch, "compared_bytes") >> 20,
		       number_of(fetch, "fetched_bytes") >> 20);
	if (number_of(damage, "found")) {
		time_t at = (time_t)number_of(damage, "last_at");
		char when[32];

		strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime(&at));
		printf("damage   found %" JSON_INTEGER_FORMAT " times, last at %s: %s\n",
		       number_of(damage, "found"), when, string_of(damage, "last"));
	}
}

static void print_members(json_t *status)
{
	json_t *member;
	size_t i;

	printf("\n%-10s %-24s %-8s %12s\n", "MEMBER", "ADDRESS", "ROLE", "MATCH INDEX");
	json_array_foreach(json_object_get(status, "members"), i, member)
		printf("%-10s %-24s %-8s %12" JSON_INTEGER_FORMAT "\n", string_of(member, "node"),
		       string_of(member, "address"), string_of(member, "role"),
		       number_of(member, "match_index"));
}

static void print_databases(json_t *status)
{
	json_t *list = json_object_get(status, "databases"), *db;
	size_t i;

	if (!json_array_size(list)) {
		printf("\nno databases yet\n");
		return;
	}
	printf("\n%-24s %10s  %-16s %9s %10s  %s\n", "DATABASE", "VERSION", "CHECKSUM", "PAGE SIZE",
	       "PAGES", "MODE");
	json_array_foreach(list, i, db)
		printf("%-24s %10" JSON_INTEGER_FORMAT "  %-16s %9" JSON_INTEGER_FORMAT
		       " %10" JSON_INTEGER_FORMAT "  %s%s%s\n",
		       string_of(db, "name"), number_of(db, "version"), string_of(db, "checksum"),
		       number_of(db, "page_size"), number_of(db, "pages"), string_of(db, "mode"),
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
		json_dumpf(status, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		print_node(status);
		print_members(status);
		print_databases(status);
	}
	json_decref(status);
	return fflush(stdout) ? FSD_EXIT_FAILED : 0;
}
