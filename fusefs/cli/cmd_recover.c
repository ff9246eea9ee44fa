/* dqlitefs recover --data DIR [--yes]: when most nodes of a cluster are lost for good, make a survivor
 * that does not run a cluster of its own.
 *
 * First the log is walked, and what it holds is told; without --yes that is all, nothing is written, and the
 * exit code is 0: this node can be recovered.
 * With --yes the node gets the log of a new cluster (raftlog/offline/new_cluster.c). The identity file is the journal:
 *
 *   1. the new log is made aside          node: the old cluster       a mount, or recover, begins anew
 *   2. node: new cluster, "recovering"                                a mount is refused; recover goes on
 *   3. the new log takes the old one's    node: "recovering"          the same
 *      place, the old one is removed
 *   4. node: new cluster, "member"                                    done
 *
 * The databases' files stay as they are: what they hold is told by entry indexes, which stay, too. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "cli/cli.h"
#include "cli/stopped.h"
#include "node/identity.h"
#include "node/words.h"
#include "walrepl.h"

struct recovery {
	struct fsd_stopped node;
	struct fsd_identity identity;
	/* what the log says */
	struct wrep_history *history;
	uint64_t snapshot_index, last_index, last_term;
	struct rlog_member members[RLOG_MEMBERS_MAX];
	unsigned member_count;
	const char *problem; /* what this version does not understand, and where */
	char file[32];
	uint64_t offset;
	bool other_node;
};

/* ---- what the log holds ------------------------------------------------------------------------ */

static int strange(struct recovery *r, const char *file, uint64_t offset, const char *problem)
{
	snprintf(r->file, sizeof(r->file), "%s", file);
	r->offset = offset;
	r->problem = problem;
	return -EBADMSG;
}

static void take_members(struct recovery *r, const struct rlog_member *members, unsigned count)
{
	if (count > 0)
		memcpy(r->members, members, count * sizeof(*members));
	r->member_count = count;
}

static int take_node(void *arg, const struct rlog_dump_node *node)
{
	struct recovery *r = arg;
	int err = 0;

	if (node->id != r->identity.node || node->cluster_id != r->identity.cluster) {
		r->other_node = true;
		return -EXDEV;
	}
	if (!node->snapshot_payload)
		return 0;
	err = wrep_history_start(r->history, node->snapshot_index, node->snapshot_payload);
	r->snapshot_index = r->last_index = node->snapshot_index;
	r->last_term = node->snapshot_term;
	take_members(r, node->snapshot_members, node->snapshot_member_count);
	return err == -EBADMSG ? strange(r, "snapshot", 0, "not a manifest of this version") : err;
}

static int take_entry(void *arg, const struct rlog_dump_entry *entry)
{
	struct recovery *r = arg;
	struct wrep_description d;
	int effect;

	if (entry->type == RLOG_DUMP_TRUNCATION || entry->dropped ||
	    entry->index <= r->snapshot_index)
		return 0;
	r->last_index = entry->index;
	r->last_term = entry->term;
	if (entry->type == RLOG_DUMP_MEMBERS)
		take_members(r, entry->members, entry->member_count);
	if (entry->type == RLOG_DUMP_UNKNOWN ||
	    (entry->type == RLOG_DUMP_COMMAND && wrep_describe(entry->buf, &d)))
		return strange(r, entry->file, entry->offset, "not an entry of this version");
	if (entry->type != RLOG_DUMP_COMMAND)
		return 0;
	effect = wrep_history_add(r->history, entry->index, entry->term, &d);
	wrep_description_clear(&d);
	return effect < 0 ? effect : 0;
}

static int read_log(struct recovery *r)
{
	static const struct rlog_dump_ops ops = {.node = take_node, .entry = take_entry};
	char errmsg[RLOG_ERRMSG_SIZE] = "out of memory";
	struct rlog_dump_end end;
	int err = rlog_dump(r->node.raft, &ops, r, &end, errmsg);

	if (err == 0 && r->last_index == 0) {
		fsd_complain("the log of this node holds nothing: it had not got anything from its "
			     "cluster; recover another node");
		return -ENODATA;
	}
	if (err == 0)
		return 0;
	if (r->other_node)
		fsd_complain("%s/%s and the raft log are not of the same node: bring back the one "
			     "that was changed",
			     FSD_STATE_DIR, FSD_NODE_FILE);
	else if (r->problem)
		fsd_complain("the raft log cannot be understood file=%s offset=%" PRIu64
			     " (%s): run the dqlitefs version that wrote it",
			     r->file, r->offset, r->problem);
	else if (end.damage)
		fsd_complain("the raft log of this node is damaged file=%s offset=%" PRIu64
			     " (%s): recover another node, or bring this one back from a backup",
			     end.damage_file, end.damage_offset, end.damage);
	else
		fsd_complain("%s", errmsg);
	return err;
}

/* ---- what would be done ------------------------------------------------------------------------ */

static const char *role_word(const struct rlog_member *member)
{
	return member ? fsd_member_role_word(member->role) : "not a member yet";
}

static const struct rlog_member *own_member(const struct recovery *r)
{
	for (unsigned i = 0; i < r->member_count; i++)
		if (r->members[i].id == r->identity.node)
			return &r->members[i];
	return NULL;
}

/* Does it need no other for a majority? */
static bool is_alone(const struct recovery *r)
{
	const struct rlog_member *own = own_member(r);
	unsigned voters = 0;

	for (unsigned i = 0; i < r->member_count; i++)
		voters += r->members[i].role == RLOG_VOTER;
	return own && own->role == RLOG_VOTER && voters == 1;
}

static int show_database(void *arg, const struct wrep_history_db *db)
{
	char name[FSD_SHOWN_SIZE];

	(void)arg;
	printf("  %-24s %10" PRIu64 "  %016" PRIx64 " %10" PRIu32 "\n", fsd_shown(db->name, name),
	       db->version, db->checksum, db->page_count);
	return 0;
}

static void show_plan(const struct recovery *r)
{
	const struct rlog_member *own = own_member(r);
	char address[FSD_SHOWN_SIZE];

	printf("node     %08" PRIx32 " at %s, %s\n", r->identity.node,
	       fsd_shown(r->identity.address, address), role_word(own));
	printf("cluster  %016" PRIx64 "\n", r->identity.cluster);
	printf("log      ends at term %" PRIu64 ", index %" PRIu64 "\n\n", r->last_term,
	       r->last_index);
	printf("This node would go on alone, as a new cluster, with these databases:\n");
	printf("  %-24s %10s  %-16s %10s\n", "DATABASE", "VERSION", "CHECKSUM", "PAGES");
	wrep_history_databases(r->history, show_database, NULL);
	printf("\nThese members would be dropped:\n");
	for (unsigned i = 0; i < r->member_count; i++)
		if (r->members[i].id != r->identity.node)
			printf("  %08" PRIx64 " at %s, %s\n", r->members[i].id,
			       fsd_shown(r->members[i].address, address),
			       role_word(&r->members[i]));
	printf("\n"
	       "What stands at the end of the log may or may not have been committed; from then on it\n"
	       "counts as committed. What only the lost nodes had is lost. So this is to be done only if\n"
	       "no majority can come back, and on one node only: of those that are left, the one whose\n"
	       "log ends at the highest term and, among these, at the highest index. The others must not\n"
	       "go on with what they hold: empty their data directories, then join them to this node.\n");
	if (!own || own->role != RLOG_VOTER)
		printf("\nThis node was no voter yet, and may lack much of what was committed.\n");
}

/* ---- doing it ---------------------------------------------------------------------------------- */

/* Steps 3 and 4. */
static int finish(struct recovery *r)
{
	char errmsg[FSD_ERRMSG_SIZE], address[FSD_SHOWN_SIZE];
	int err = rlog_new_cluster_finish(r->node.raft, r->identity.cluster, errmsg);

	if (err) {
		fsd_complain("%s", errmsg);
		return err;
	}
	r->identity.state = FSD_MEMBER;
	err = fsd_identity_write(r->node.state_fd, &r->identity, errmsg);
	if (err) {
		fsd_complain("%s", errmsg);
		return err;
	}
	printf("recovered: node %08" PRIx32 " is the only member of the new cluster %016" PRIx64
	       "\nMount it again. Empty the data directories of the other nodes, and join them with\n"
	       "--join %s.\n",
	       r->identity.node, r->identity.cluster, fsd_shown(r->identity.address, address));
	return 0;
}

static int begin(struct recovery *r)
{
	struct rlog_new_cluster_options options = {.id = r->identity.node,
						   .cluster_id = r->identity.cluster,
						   .new_cluster_id = fsd_identity_random64(),
						   .address = r->identity.address};
	char errmsg[FSD_ERRMSG_SIZE];
	int err;

	r->identity.cluster = options.new_cluster_id;
	r->identity.state = FSD_RECOVERING;
	err = rlog_new_cluster_prepare(r->node.raft, &options, errmsg);
	if (!err)
		err = fsd_identity_write(r->node.state_fd, &r->identity, errmsg);
	/* Which identity counts after an error is not known, so the new log stays; the next attempt, or
	 * the next start, goes on with it or removes it. */
	if (err)
		fsd_complain("%s", errmsg);
	return err;
}

/* Nobody else may come in while the log is changed. */
static int lock(struct recovery *r)
{
	pid_t owner;

	if (r->node.lock_fd == -ENOENT)
		r->node.lock_fd = fsd_identity_lock(r->node.state_fd, true, &owner);
	if (r->node.lock_fd >= 0)
		return 0;
	fsd_complain("cannot lock the data directory %s: %s", r->node.data,
		     strerror(-r->node.lock_fd));
	return r->node.lock_fd;
}

static int unfit(const struct recovery *r)
{
	fsd_complain(
		"the databases in %s are unfit: this node was still getting them from a leader, and "
		"has a part of them only; recover another node",
		r->node.data);
	return -EUCLEAN;
}

static int plan_and_do(struct recovery *r, bool yes)
{
	int err = fsd_stopped_has_log(&r->node, &r->identity);

	if (err)
		return err;
	if (wrep_is_unfit(r->node.state_fd))
		return unfit(r);
	r->history = wrep_history_new();
	if (!r->history) {
		fsd_complain("out of memory");
		return -ENOMEM;
	}
	err = read_log(r);
	if (err)
		return err;
	if (wrep_history_wants(r->history) > r->last_index)
		return unfit(r);
	if (is_alone(r)) {
		printf("node %08" PRIx32 " needs no other one for a majority: there is nothing to "
		       "recover\n",
		       r->identity.node);
		return 0;
	}
	show_plan(r);
	if (!yes) {
		printf("\nNothing was changed: say it again with --yes to do it.\n");
		return 0;
	}
	printf("\n");
	fflush(stdout); /* ahead of what may go to stderr */
	err = lock(r);
	if (!err)
		err = begin(r);
	return err ? err : finish(r);
}

static int recover(struct recovery *r, bool yes)
{
	char errmsg[FSD_ERRMSG_SIZE];
	int err = fsd_identity_read(r->node.state_fd, &r->identity, errmsg);

	if (err) {
		fsd_complain("%s", errmsg);
		return err;
	}
	if (r->identity.state != FSD_RECOVERING || !yes)
		return plan_and_do(r, yes);
	err = lock(r);
	return err ? err : finish(r);
}

int fsd_cmd_recover(int argc, char **argv)
{
	static const struct option options[] = {{"data", required_argument, NULL, 'd'},
						{"yes", no_argument, NULL, 'y'},
						{0}};
	struct recovery r = {0};
	const char *given = NULL;
	bool yes = false;
	int c, err;

	while ((c = fsd_next_option(argc, argv, ":", options)) != -1) {
		if (c == '?')
			return FSD_EXIT_USAGE;
		if (c == 'd')
			given = optarg;
		else
			yes = true;
	}
	if (optind < argc || !given || !given[0]) {
		fsd_complain(
			"recover wants --data DIR, and --yes to do it: see 'dqlitefs help recover'");
		return FSD_EXIT_USAGE;
	}
	if (fsd_stopped_open(given, &r.node))
		return FSD_EXIT_FAILED;
	err = recover(&r, yes);
	wrep_history_free(r.history);
	fsd_stopped_close(&r.node);
	if (!err && (fflush(stdout) || ferror(stdout))) {
		fsd_complain("cannot write all of the output: look at where it goes");
		err = -EIO;
	}
	return err ? FSD_EXIT_FAILED : 0;
}
