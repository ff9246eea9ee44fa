/* dqlitefs log --data DIR [--json]: what the Raft log of a stopped node holds, entry by entry.
 *
 * The log is dumped, printed as it is read, so that any size of it can be looked at; nothing is
 * written. The node's lock is held meanwhile, so that no daemon starts to write into what is read.
 * Damage ends the dump: it is told behind everything that could be read in front of it, and again in
 * one line on stderr.
 *
 * With --json every line is an object; its "kind" says of what:
 *
 *   node      node, address, cluster, term, voted_for (or null), torn
 *   snapshot  index, term, members: [{node, address, role}],
 *             databases: [{name, id, version, index, wal_frames}], directories: [{name, id}]: what the
 *             files hold; the log goes on from there, whatever of it still lies in front
 *   segment   file, first_index, entries, used_bytes, bytes, state: full, last, torn, damaged
 *   entry     file, offset, index, term, bytes, dropped, type; and by that:
 *               members              members: [{node, address, role}]
 *               barrier, unknown
 *               truncation           the entries from index on are dropped
 *               create, setattr      database, id, effect, mode, uid, gid (setattr: those it sets)
 *               unlink               database, id, effect
 *               mkdir, rmdir         directory, id, effect; mkdir: mode, uid, gid. A setattr may have
 *                                    directory instead of database
 *               rename               database, id, effect, to, keep: only if `to` is free, replaced:
 *                                    the id of the database that goes by it, or null
 *               pages                database, id, effect, part, pages, page_size
 *               commit               these, and base_version, version, checksum, total_pages,
 *                                    dropped_pages, page_count, mode: wal, rollback
 *               group                effect, members: [{what a commit has, but for the effect}]
 *   database  name, id, version, checksum, page_size, pages: at the end of what was read
 *             (the snapshot's and what the entries made of it)
 *   directory name, id: likewise
 *   summary   segments, entries, first_index, last_index, terms, first_term, last_term, torn_bytes
 *   damage    file, offset, message, segments_unread
 *
 * Names and numbers are as values.h says. A database that an entry names by an id that does not live (any more) is null. The effect is true,
 * false, or null when what the snapshot says was after the entry. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "cli/cli.h"
#include "cli/log_json.h"
#include "cli/log_printer.h"
#include "cli/log_text.h"
#include "cli/stopped.h"
#include "node/identity.h"
#include "walrepl.h"

struct shown {
	const struct fsd_log_printer *printer;
	struct fsd_identity identity;
	bool has_identity, other_node;
	struct wrep_history *history;
	struct fsd_log_totals totals;
	bool bad_manifest; /* the snapshot's payload is none */
	/* the first entry that this version does not understand */
	char strange_file[32];
	uint64_t strange_offset, strange_index;
};

/* ---- the dump ------------------------------------------------------------------------------ */

static int show_snapshot(struct shown *s, const struct rlog_dump_node *node)
{
	int err = wrep_history_start(s->history, node->snapshot_index, node->snapshot_payload);

	s->bad_manifest = err == -EBADMSG;
	return err ? err : s->printer->snapshot(node, s->history);
}

static int show_node(void *arg, const struct rlog_dump_node *node)
{
	struct shown *s = arg;
	int err;

	s->other_node = s->has_identity &&
			(node->id != s->identity.node || node->cluster_id != s->identity.cluster);
	err = s->printer->node(node, s->has_identity ? s->identity.address : "-");
	return !err && node->snapshot_payload ? show_snapshot(s, node) : err;
}

static int show_segment(void *arg, const struct rlog_dump_segment *segment)
{
	struct shown *s = arg;

	s->totals.segments++;
	return s->printer->segment(segment);
}

static void count_entry(struct fsd_log_totals *s, const struct rlog_dump_entry *entry)
{
	if (!s->entries++) {
		s->first_index = entry->index;
		s->first_term = entry->term;
	}
	if (s->terms == 0 || entry->term != s->last_term)
		s->terms++;
	s->last_index = entry->index;
	s->last_term = entry->term;
}

static int show_entry(void *arg, const struct rlog_dump_entry *entry)
{
	struct shown *s = arg;
	struct wrep_description description, *d = NULL;
	int effect = WREP_HISTORY_PASSED_OVER;
	int err;

	if (entry->type == RLOG_DUMP_COMMAND && !wrep_describe(entry->buf, &description))
		d = &description;
	if (d && !entry->dropped) {
		effect = wrep_history_add(s->history, entry->index, entry->term, d);
		if (effect < 0) {
			wrep_description_clear(d);
			return effect;
		}
	}
	if (entry->type != RLOG_DUMP_TRUNCATION && !entry->dropped) {
		count_entry(&s->totals, entry);
		if (!s->strange_index && !strcmp(fsd_log_type_word(entry, d), "unknown")) {
			snprintf(s->strange_file, sizeof(s->strange_file), "%s", entry->file);
			s->strange_offset = entry->offset;
			s->strange_index = entry->index;
		}
	}
	err = s->printer->entry(entry, d, effect);
	if (d)
		wrep_description_clear(d);
	return err;
}

/* The end of the output, also of a dump that ended early. */
static void show_end(struct shown *s, const struct rlog_dump_end *end)
{
	s->printer->end(s->history);
	s->printer->summary(&s->totals, end->torn_bytes);
	if (end->damage)
		s->printer->damage(end->damage_file, end->damage_offset, end->damage,
				   end->segments_unread);
	if (s->bad_manifest)
		s->printer->damage("snapshot", 0, "not a manifest of this version", 0);
	if (s->strange_index)
		s->printer->damage(s->strange_file, s->strange_offset,
				   "not an entry of this version", 0);
}

/* ---- the command --------------------------------------------------------------------------- */

static int show(struct shown *s, const char *raft)
{
	static const struct rlog_dump_ops ops = {
		.node = show_node,
		.segment = show_segment,
		.entry = show_entry,
	};
	char errmsg[RLOG_ERRMSG_SIZE] = "out of memory";
	struct rlog_dump_end end;
	int err;

	s->history = wrep_history_new();
	if (!s->history) {
		fsd_complain("%s", errmsg);
		return -ENOMEM;
	}
	err = rlog_dump(raft, &ops, s, &end, errmsg);
	if (!ferror(stdout))
		show_end(s, &end);
	wrep_history_free(s->history);
	if (fflush(stdout) || ferror(stdout)) {
		fsd_complain("cannot write all of the output: look at where it goes");
		return -EIO;
	}
	if (s->bad_manifest) {
		fsd_complain(
			"the snapshot of the log cannot be understood file=snapshot offset=0: run "
			"the dqlitefs version that wrote it");
	} else if (err) {
		fsd_complain("%s", errmsg);
	} else if (s->other_node) {
		fsd_complain("%s/%s and the raft log are not of the same node: bring back the one "
			     "that was changed",
			     FSD_STATE_DIR, FSD_NODE_FILE);
		err = -EXDEV;
	} else if (s->strange_index) {
		fsd_complain("an entry of the log cannot be understood index=%" PRIu64
			     " file=%s offset=%" PRIu64 ": run the dqlitefs version that wrote it",
			     s->strange_index, s->strange_file, s->strange_offset);
		err = -EBADMSG;
	}
	return err;
}

int fsd_cmd_log(int argc, char **argv)
{
	static const struct option options[] = {{"data", required_argument, NULL, 'd'},
						{"json", no_argument, NULL, 'j'},
						{0}};
	char errmsg[FSD_ERRMSG_SIZE];
	struct fsd_stopped node;
	struct shown s = {.printer = &fsd_log_as_text};
	const char *given = NULL;
	int c, err, bad_identity;

	while ((c = fsd_next_option(argc, argv, ":", options)) != -1) {
		if (c == '?')
			return FSD_EXIT_USAGE;
		if (c == 'd')
			given = optarg;
		else
			s.printer = &fsd_log_as_json;
	}
	if (optind < argc || !given || !given[0]) {
		fsd_complain("log wants --data DIR and nothing else: see 'dqlitefs help log'");
		return FSD_EXIT_USAGE;
	}
	if (fsd_stopped_open(given, &node))
		return FSD_EXIT_FAILED;
	bad_identity = fsd_identity_read(node.state_fd, &s.identity, errmsg);
	s.has_identity = !bad_identity;
	err = fsd_stopped_has_log(&node, &s.identity);
	if (!err)
		err = show(&s, node.raft);
	if (bad_identity && !err)
		fsd_complain("%s", errmsg);
	fsd_stopped_close(&node);
	return err || bad_identity ? FSD_EXIT_FAILED : 0;
}
