/* dqlitefs transfer MOUNTPOINT [--to NODE|HOST:PORT]: hand leadership to another node. */
#include <stdio.h>
#include "cli/cli.h"
#include "cli/client.h"

int fsd_cmd_transfer(int argc, char **argv)
{
	static const struct option options[] = {{"to", required_argument, NULL, 't'}, {0}};
	const char *mountpoint, *to = NULL;
	char path[PATH_MAX], node[FSD_SHOWN_SIZE], address[FSD_SHOWN_SIZE];
	struct fsd_mountinfo mount;
	json_t *answer, *leader;
	int c;

	while ((c = fsd_next_option(argc, argv, ":", options)) != -1) {
		if (c == '?')
			return FSD_EXIT_USAGE;
		to = optarg;
	}
	mountpoint = fsd_only_argument(argc, argv, "MOUNTPOINT");
	if (!mountpoint)
		return FSD_EXIT_USAGE;
	if (fsd_client_find(mountpoint, path, &mount))
		return FSD_EXIT_FAILED;
	answer = fsd_client_call(mount.source, json_pack("{s:s, s:o*}", "command", "transfer", "to",
							 to ? fsd_bytes_json(to) : NULL));
	if (!answer)
		return FSD_EXIT_FAILED;
	leader = json_object_get(answer, "leader");
	if (json_is_object(leader))
		printf("leader %s at %s\n", fsd_client_text(leader, "node", node),
		       fsd_client_text(leader, "address", address));
	else
		printf("handed over; the leader is not known yet: see 'dqlitefs status'\n");
	json_decref(answer);
	return 0;
}
